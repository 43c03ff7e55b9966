"""Measure possible answers of a search against FP32 and each other."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant.backends.base import ChoosesLatencyFeed
from optuna_quant.backends.base import CompilesForUse
from optuna_quant.backends.base import HasThreads
from optuna_quant.backends.base import PreviewsCalibration
from optuna_quant.backends.base import as_used
from optuna_quant.costs.gain import Gain
from optuna_quant.costs.gain import measure_against
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.model_pair import FeedOf
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import Objective
from optuna_quant.evaluation.rebuild import rebuild


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

_MOST_FINALISTS = 5
# Of models whose predicted costs differ by less, measurements decide.
_CLOSE = 0.05
_SECONDS = 2.0


def first_feed(backend: Backend) -> FeedOf | None:
    """What models are run on where their time is measured.

    The first sample of a backend's calibration data, or the first batch if it is not divisible,
    if the backend does not say what it is.

    Returns:
        :obj:`None` for a backend that has no such data, or does not show them.
    """
    if isinstance(backend, ChoosesLatencyFeed):
        chosen = backend.latency_feed()
        return None if chosen is None else FeedOf(chosen[1], chosen[0])
    found = backend.calibration_preview(1) if isinstance(backend, PreviewsCalibration) else None
    if found is None or not found[1]:
        return None
    count, feeds = found
    return FeedOf(feeds[0], count)


def finalists(
    found: Sequence[Candidate], objective: Objective, *, close: float = _CLOSE
) -> list[Candidate]:
    """The candidates of different models among which measurements decide.

    Args:
        found:
            The candidates that meet the criterion, the best first.
        objective:
            What is best. If it is not the latency, or the user has said what configurations take,
            the first one is the only finalist.
        close:
            By which part the predicted cost of a finalist may be above the least.

    Returns:
        At most five, the best first.
    """
    given = isinstance(objective, KnownObjective) and objective.times_are_given
    if objective.measures != (LATENCY,) or given:
        return list(found[:1])
    most = (1 + close) * found[0].cost(objective)
    different: dict[object, Candidate] = {}
    for candidate in found:
        if candidate.cost(objective) <= most:
            key = candidate.view.model
            different.setdefault(key, candidate)
    return list(different.values())[:_MOST_FINALISTS]


def measure_finalists(
    found: Sequence[Candidate],
    *,
    backend: Backend,
    space: TuningSpace,
    seconds: float = _SECONDS,
    measure_against: Callable[..., Any] = measure_against,
) -> tuple[Candidate, Gain]:
    """Measure the finalists in turn with FP32, and take the fastest.

    Args:
        found:
            The finalists, the best by prediction first.
        backend:
            Builds the models, and has the samples that they are run on.
        space:
            The tuning space.
        seconds:
            About how long the measurement may take; building the models comes on top.
        measure_against:
            Measures, see :func:`optuna_quant.costs.gain.measure_against`.

    Returns:
        The fastest candidate, and what it is worth: without calibration data its size only, and
        then it is the first one.
    """
    feed = first_feed(backend)
    if feed is None:
        return found[0], _sizes(found[0], backend.quantize(space.fp32()))
    models = [rebuild(c.trial, backend=backend, space=space) for c in found]
    fp32 = backend.quantize(space.fp32())
    runs = [partial(as_used(model).run, feed.feed) for model in (fp32, *models)]
    if any(isinstance(model, CompilesForUse) for model in models):
        for run in runs:
            run()  # It is compiled now, and that is not timed.
    measured = measure_against(runs[0], runs[1:], seconds=seconds)
    for candidate, each in zip(found, measured.seconds, strict=True):
        _logger.info(f"Trial {candidate.trial.number}: {1e3 * each:.3g} ms.")
    best = min(range(len(found)), key=lambda i: measured.seconds[i])
    sizes = _sizes(found[best], fp32)
    return found[best], Gain(
        seconds=measured.seconds[best],
        fp32_seconds=measured.fp32_seconds,
        time_ratio=measured.ratios[best],
        nbytes=sizes.nbytes,
        fp32_bytes=sizes.fp32_bytes,
        batch=feed.samples,
        threads=fp32.threads if isinstance(fp32, HasThreads) else None,
        runs=measured.runs,
        inputs=_shown_inputs(fp32, feed),
    )


def _shown_inputs(model: Model, feed: FeedOf) -> str:
    """The shape of the first input whose size the model leaves open; empty if there is none."""
    for spec in model.inputs:
        if spec.shape is not None and any(not isinstance(axis, int) for axis in spec.shape[1:]):
            return f"{spec.name} {'x'.join(map(str, feed.feed[spec.name].shape))}"
    return ""


def _sizes(candidate: Candidate, fp32: Model) -> Gain:
    size = candidate.view.model_bytes
    return Gain() if size is None else Gain(nbytes=int(size), fp32_bytes=fp32.nbytes)
