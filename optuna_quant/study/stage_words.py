"""The stages of trials, as people are told them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from optuna_quant.study import record


# Stages whose names say little to people.
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        record.EXHAUSTED_STAGE: "after the end of the strategy",
        record.SPARE_STAGE: "ahead of a result",
    }
)


def shown_stage(stage: str) -> str:
    """A stage for people: the strategy's own name of it, or words for what is outside of its plan.

    Args:
        stage:
            The stage as the record has it.
    """
    return _WORDS.get(stage, stage)
