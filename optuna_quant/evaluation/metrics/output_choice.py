"""Choose the outputs of a model that a metric scores."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.base import TracesOutputs
from optuna_quant.data.outputs import choose_outputs
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.evaluation.labelled import DataEvaluation
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)


def check_outputs(
    evaluation: DataEvaluation, model: Model, *, backend: Backend, space: TuningSpace
) -> tuple[str, ...] | None:
    """Check that quantization can change what is scored, and say what is if that was not asked.

    Args:
        evaluation:
            The evaluation.
        model:
            The FP32 model.
        backend:
            Knows which outputs depend on which ops, if it
            :class:`~optuna_quant.backends.base.TracesOutputs`.
        space:
            The tuning space.

    Returns:
        The outputs that are scored; :obj:`None` if these are all of the model's.

    Raises:
        ValueError:
            If the model has no output of a name, or no op of the space is before one of those
            that are scored.
    """
    known = evaluation.outputs_of(model)
    scored = choose_outputs(evaluation.output_names, known)
    if isinstance(backend, TracesOutputs):
        ops = [op for tunable in space.tunables if tunable.quantized for op in tunable.ops]
        _check_depends(scored, known, backend.outputs_behind(ops))
    if evaluation.output_names is None and len(known) > 1 and this_rank().is_leader:
        _logger.warning(
            f"The model has {len(known)} outputs ({', '.join(known)}); the metric scores the "
            f"first one, {scored[0]!r}. Choose another with output_names= (--output-name NAME)."
        )
    return None if set(scored) == set(known) else scored


def _check_depends(scored: Sequence[str], known: Sequence[str], behind: Iterable[str]) -> None:
    behind = set(behind)
    if behind.intersection(scored):
        return
    others = [name for name in known if name in behind]
    one = len(scored) == 1
    cure = (
        f"Quantization can change: {', '.join(others)}; choose with output_names= "
        "(--output-name NAME)."
        if others
        else "It cannot change any other output either."
    )
    raise ValueError(
        f"The metric scores the output{'' if one else 's'} {', '.join(map(repr, scored))}, but "
        f"no op that is to be quantized can change {'it' if one else 'them'}, so every model "
        f"would have the score of the FP32 model. {cure}"
    )
