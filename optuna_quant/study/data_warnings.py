"""What is suspicious about the data of a search, kept in its study for results and reports."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
from typing import TYPE_CHECKING

from optuna_quant._optuna import study_user_attrs
from optuna_quant.study import record


if TYPE_CHECKING:
    import optuna


def keep_warnings(study: optuna.Study, warnings: Iterable[str]) -> None:
    """Keep warnings in a study; each has an attribute of its own, so that workers do not race.

    Args:
        study:
            The study.
        warnings:
            The warnings. One that is there is not written again.
    """
    known = set(find_warnings(study))
    for warning in warnings:
        if warning not in known:
            digest = hashlib.sha256(warning.encode()).hexdigest()[:8]
            study.set_user_attr(f"{record.WARNING}{digest}", warning)


def find_warnings(study: optuna.Study) -> tuple[str, ...]:
    """The warnings that a study holds.

    Args:
        study:
            The study.
    """
    kept = list(study_user_attrs(study).items())
    return tuple(str(text) for name, text in kept if name.startswith(record.WARNING))
