"""How far two models are from each other, such as a simulation and what is built of it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import time
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np

from optuna_quant.backends.base import PreviewsCalibration
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.study.simulation import OutputDifference
from optuna_quant.study.simulation import finite


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.base import Feed
    from optuna_quant.backends.base import RunnableModel

    _Pair = tuple[NDArray[Any], NDArray[Any]]


_FEWEST_SAMPLES, _MOST_SAMPLES = 64, 256
_PART = 0.2
_SECONDS = 10.0


class _Batch(NamedTuple):
    """The outputs of two models for some samples.

    Args:
        samples:
            How many samples.
        pairs:
            Arrays of both models.
        scores:
            Those whose last axis may be that of classes.
    """

    samples: int
    pairs: list[_Pair]
    scores: list[_Pair]


def compare(
    first: RunnableModel,
    second: RunnableModel,
    feeds: Iterable[Feed],
    *,
    of: str = "evaluation",
    seconds: float | None = None,
) -> OutputDifference:
    """Run two models on the same inputs.

    Args:
        first:
            A model.
        second:
            Another model with the same inputs and outputs.
        feeds:
            Batches of inputs by name.
        of:
            Of which data they are.
        seconds:
            After how many seconds no further batch is run, without those of the first one; None
            for all.

    Raises:
        ValueError:
            If there are no feeds, or outputs have different shapes.
    """

    def batches() -> Iterator[_Batch]:
        for feed in feeds:
            size = next((len(each) for each in feed.values() if np.ndim(each)), 1)
            pairs = list(zip(first.run(feed), second.run(feed), strict=True))
            yield _Batch(size, pairs, [pair for pair in pairs[:1] if pair[0].ndim in (2, 3)])

    return _difference(batches(), of, seconds)


def difference_of(
    simulated: RunnableModel, model: RunnableModel, *, measure: object, backend: object
) -> OutputDifference | None:
    """How far a model is from its simulation, on a few samples.

    At most 256 samples are run, for about ten seconds after the first batch: a fifth of the
    evaluation data, but at least 64, from all of it, with the outputs that are scored; or if a
    function evaluates models, calibration data with all outputs.

    Args:
        simulated:
            The simulation.
        model:
            The model.
        measure:
            What evaluates models.
        backend:
            The backend, which may show calibration data.

    Returns:
        The difference; None if there are no data.

    Raises:
        ValueError:
            If outputs have different shapes.
    """
    if isinstance(measure, DataEvaluation):
        count = measure.samples
        few = min(count, _MOST_SAMPLES, max(_FEWEST_SAMPLES, int(_PART * count)))
        chosen = np.unique(np.linspace(0, count - 1, few).astype(np.int64))
        return _difference(_scored(simulated, model, measure, chosen), "evaluation", _SECONDS)
    if not isinstance(backend, PreviewsCalibration):
        return None
    found = backend.calibration_preview(_MOST_SAMPLES)
    if found is None or not found[1]:
        return None
    return compare(simulated, model, found[1], of="calibration", seconds=_SECONDS)


def _scored(
    simulated: RunnableModel,
    model: RunnableModel,
    measure: DataEvaluation,
    chosen: NDArray[np.int64],
) -> Iterator[_Batch]:
    size = measure.runs.batch_size_for(model)
    for start in range(0, len(chosen), size):
        part = measure.subset(chosen[start : start + size])
        rows = [
            part.runs.first_outputs(each, part.samples, size=size) for each in (simulated, model)
        ]
        pairs = list(zip(*rows, strict=True))
        # They are sample by sample, each with its outputs.
        firsts = pairs[:: max(1, len(pairs) // part.samples)]
        yield _Batch(part.samples, pairs, [pair for pair in firsts if pair[0].ndim in (1, 2)])


def _difference(batches: Iterable[_Batch], of: str, seconds: float | None) -> OutputDifference:
    started: float | None = None
    largest = squared = norm = 0.0
    same = places = samples = 0
    for batch in batches:
        samples += batch.samples
        for one, other in batch.pairs:
            if one.shape != other.shape:
                raise ValueError(f"outputs have shapes {one.shape} and {other.shape}")
            if one.dtype.kind not in "fiub":
                continue
            a, b = one.astype(np.float64), other.astype(np.float64)
            apart = np.abs(a - b)
            largest = float(np.maximum(largest, apart.max(initial=0.0)))  # NaN stays.
            squared += float(np.square(apart).sum())
            norm += float(np.square(a).sum())
        for one, other in batch.scores:
            if one.dtype.kind == "f" and one.shape[-1] > 1:
                agree = one.argmax(-1) == other.argmax(-1)
                same, places = same + int(np.sum(agree)), places + int(np.size(agree))
        if started is None:
            started = time.monotonic()  # The first run converts the model, which may take longer.
        elif seconds is not None and time.monotonic() - started > seconds:
            break
    if not samples:
        raise ValueError("There must be at least one batch of inputs to compare models on.")
    relative = float(np.sqrt(squared / norm)) if norm else float(squared > 0)
    return OutputDifference(
        samples=samples,
        of=of,
        agreement=same / places if places else None,
        largest=finite(largest),
        relative=finite(relative),
    )
