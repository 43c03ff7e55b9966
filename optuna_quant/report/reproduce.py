"""What it takes to repeat a search."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from optuna_quant.evaluation.same_evaluation import EVALUATION
from optuna_quant.report.facts import ReproduceFacts
from optuna_quant.study.compatibility import SIGNATURE


if TYPE_CHECKING:
    from optuna_quant.tuning.outcome import Outcome


def reproduce_facts(result: Outcome) -> ReproduceFacts:
    """The call, its seed, and the fingerprints of what models and metrics depend on.

    Args:
        result:
            The result.
    """
    call, attrs = result.call, result.study.user_attrs
    return ReproduceFacts(
        language=None if call is None else call.language,
        code=None if call is None else call.text,
        seed=None if call is None else call.seed,
        models_depend_on=_texts(attrs.get(SIGNATURE)),
        metrics_depend_on=_texts(attrs.get(EVALUATION)),
        config=None if result.config is None else json.loads(result.config.to_json()),
    )


def _texts(found: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
