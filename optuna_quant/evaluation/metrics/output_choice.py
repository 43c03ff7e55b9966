"""Which of a model's outputs a metric is of."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import difflib
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.evaluation.labelled import DataEvaluation
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)


def as_output_names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """What a user gives as names of outputs; :obj:`None` for the first output.

    Raises:
        TypeError:
            If it is neither a name nor a sequence of names.
        ValueError:
            If there is none, or one twice.
    """
    if names is None:
        return None
    found = (names,) if isinstance(names, str) else names
    if not isinstance(found, Sequence) or not all(isinstance(name, str) for name in found):
        raise TypeError(
            f"output_names must be the name of an output or a list of names, but got {names!r}."
        )
    found = tuple(found)
    if not found:
        raise ValueError("output_names must name one output at least; None is the first one.")
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise ValueError(f"output_names names {twice[0]!r} twice.")
    return found


def choose_outputs(names: tuple[str, ...] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The outputs that are scored: those that were named, or the first.

    Args:
        names:
            The names; :obj:`None` if none were given.
        known:
            The model's outputs, in its order.

    Raises:
        ValueError:
            If the model has no output of a name.
    """
    if names is None:
        return tuple(known[:1])
    for name in names:
        if name not in known:
            raise ValueError(
                f"output_names: the model has no output {name!r}; {_nearest(name, known)}its "
                f"outputs are: {', '.join(known)}."
            )
    return names


def _nearest(name: str, known: Sequence[str]) -> str:
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[close[0]]!r}? " if close else ""


def check_outputs(
    evaluation: DataEvaluation, model: Any, *, backend: Backend, space: TuningSpace
) -> tuple[str, ...] | None:
    """Check that quantization can change what is scored, and say what is if that was not asked.

    Args:
        evaluation:
            The evaluation.
        model:
            The FP32 model.
        backend:
            Knows which outputs depend on which ops, if it has ``outputs_behind(ops)``.
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
    find = getattr(backend, "outputs_behind", None)
    if find is not None:
        ops = [op for tunable in space.tunables if tunable.quantized for op in tunable.ops]
        _check_depends(scored, known, find(ops))
    if evaluation.output_names is None and len(known) > 1 and this_rank().reports:
        _logger.warning(
            f"The model has {len(known)} outputs ({', '.join(known)}); the metric is of the first "
            f"one, {scored[0]!r}. Another is chosen with output_names= (--output-name NAME)."
        )
    return None if set(scored) == set(known) else scored


def _check_depends(scored: Sequence[str], known: Sequence[str], behind: Iterable[str]) -> None:
    behind = set(behind)
    if behind.intersection(scored):
        return
    others = [name for name in known if name in behind]
    one = len(scored) == 1
    cure = (
        f"Those that do are: {', '.join(others)}; choose with output_names= (--output-name NAME)."
        if others
        else "Nor does any other output of the model."
    )
    raise ValueError(
        f"The metric is of the output{'' if one else 's'} {', '.join(map(repr, scored))}, but no "
        f"op that is to be quantized can change {'it' if one else 'them'}, so every model would "
        f"score as the FP32 model does. {cure}"
    )
