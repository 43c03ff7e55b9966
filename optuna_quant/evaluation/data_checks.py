"""Check that data are enough and well-formed, and that data for calibration resemble the rest."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.printable import percent
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.base import PreviewsCalibration
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna_quant.backends.default import RunnableLike
    from optuna_quant.data.sample_runs import Rows

    Feed = Mapping[str, Rows]


_logger = get_logger(__name__)

FEWEST_CALIBRATION = 30
"""With fewer calibration samples there is a warning."""
FEWEST_EVALUATION = 100
"""With fewer evaluation samples there is a warning."""

_LOOKED_AT = 64
# Ranges of the same data that differ by more were prepared in different ways.
_DIFFERENT = 8.0
_GIVEN_BY_FUNCTION = "what evaluate= gives to the model"
# Single values do not make a range.
_INNER = (0.01, 0.99)


def warn_of_data(
    backend: object, measure: object, fp32: Callable[[], RunnableLike]
) -> tuple[str, ...]:
    """Warn of data that are too few, or of calibration data in another range.

    At most three lines in all, and of several processes that were started together one says them.
    A few batches are looked at.

    Args:
        backend:
            The backend; its data are looked at if it
            :class:`~optuna_quant.backends.base.PreviewsCalibration`.
        measure:
            What evaluates models; only a :class:`~optuna_quant.evaluation.labelled.DataEvaluation`
            has data.
        fp32:
            Builds the FP32 model.

    Returns:
        The warnings.
    """
    if not this_rank().is_leader:
        return ()
    found = tuple(_warnings(backend, measure, fp32))
    for warning in found:
        _logger.warning(warning)
    return found


def _warnings(backend: object, measure: object, fp32: Callable[[], RunnableLike]) -> Iterator[str]:
    calibration = None
    if isinstance(backend, PreviewsCalibration):
        calibration = backend.calibration_preview(_LOOKED_AT)
    if calibration is not None:
        count, feeds = calibration
        if count < FEWEST_CALIBRATION:
            yield (
                f"There {_are(count, 'calibration sample')}. The ranges of activations are "
                "found from these alone; a few hundred are usual."
            )
    if not isinstance(measure, DataEvaluation):
        return
    yield from _of_few(measure.samples)
    if calibration is not None:
        yield from _differences(feeds, measure.runs.preview(fp32(), _LOOKED_AT))[:1]


def tell_unused(measure: DataEvaluation, model: RunnableLike) -> None:
    """Say so if there are labels, and the metric does not look at them.

    Args:
        measure:
            The evaluation.
        model:
            The FP32 model.
    """
    names = measure.runs.unused(model)
    if names:
        _logger.warning(
            f"The metric {measure.name!r} compares with the FP32 model's outputs: "
            f"{', '.join(map(repr, names))} in the evaluation data is not used."
        )


def tell_forms(measure: DataEvaluation, model: RunnableLike) -> None:
    """Say so if the data are less precise than what the model takes, or look like batches.

    Args:
        measure:
            The evaluation.
        model:
            The FP32 model.
    """
    size = measure.runs.batch_in_item(model)
    if size is not None:
        measure.warn(
            f"An item of the evaluation data has {size} labels and is run by itself, as one "
            "sample. If items are batches, give [data[i] for i in range(len(data))]."
        )
    for spec, dtype in measure.runs.less_precise(model):
        warn_user(
            f"Input {spec.name!r}: the evaluation data have dtype {dtype} and are cast to the "
            f"model's {spec.dtype.name}: the metric is that of rounded inputs."
        )


class SeenInputs:
    """The first inputs that a function of the user's gives to the FP32 model.

    They are compared with the calibration data. Called with the feed of each run.
    """

    def __init__(self) -> None:
        self._feeds: list[Feed] = []
        self._samples = 0

    def __call__(self, feed: Mapping[str, object]) -> None:
        """Keep a copy of the first samples; what is no array of numbers is left out."""
        if self._samples >= _LOOKED_AT:
            return
        with suppress(Exception):  # The user's own run is to go on as without this.
            given = {name: np.asarray(value) for name, value in feed.items()}
            arrays = {name: a for name, a in given.items() if a.dtype.kind == "f" and a.ndim}
            self._samples += max([len(array) for array in given.values() if array.ndim], default=1)
            self._feeds.append({n: np.array(a[:_LOOKED_AT]) for n, a in arrays.items()})

    def warnings(self, backend: object) -> tuple[str, ...]:
        """What is suspicious about them; it is logged as well.

        Args:
            backend:
                The backend, whose calibration data they are compared with.
        """
        if not self._feeds or not isinstance(backend, PreviewsCalibration):
            return ()
        calibration = backend.calibration_preview(_LOOKED_AT)
        if calibration is None:
            return ()
        found = tuple(_differences(calibration[1], self._feeds, _GIVEN_BY_FUNCTION)[:1])
        if this_rank().is_leader:
            for warning in found:
                _logger.warning(warning)
        return found


def warn_of_few(samples: int) -> None:
    """Warn of too few evaluation samples."""
    for warning in _of_few(samples):
        _logger.warning(warning)


def _of_few(samples: int) -> Iterator[str]:
    if samples < FEWEST_EVALUATION:
        yield (
            f"There {_are(samples, 'evaluation sample')}. One of them is "
            f"{percent(1 / samples, digits=2)}%: a smaller loss cannot be seen."
        )


def _are(count: int, what: str) -> str:
    return f"is only 1 {what}" if count == 1 else f"are only {count} {what}s"


def _differences(
    calibration: Sequence[Feed], evaluation: Sequence[Feed], where: str = "the evaluation data"
) -> list[str]:
    """Warnings about inputs whose range differs in the evaluation."""
    found = []
    for name in calibration[0] if calibration else ():
        one, other = _Range.of(name, calibration), _Range.of(name, evaluation)
        if one is None or other is None or not one.differs_from(other):
            continue
        found.append(
            f"Input {name!r} is from {one} in the calibration data and from {other} in {where}: "
            "were both prepared in the same way (scaled by 1/255, normalized)? If not, the ranges "
            "of activations are wrong, and quantized models lose for that reason alone."
        )
    return found


@dataclass(frozen=True)
class _Range:
    """The range of an input.

    Args:
        low:
            The lowest.
        high:
            The highest.
        inner:
            How far nearly all are from each other.
    """

    low: float
    high: float
    inner: float

    @classmethod
    def of(cls, name: str, feeds: Sequence[Feed]) -> _Range | None:
        """The range in some batches; :obj:`None` if the input has no floating-point values."""
        given = [feed[name] for feed in feeds if name in feed]
        arrays = [
            array for each in given for array in (each if isinstance(each, list) else (each,))
        ]
        arrays = [a.reshape(-1).astype(np.float64) for a in arrays if a.dtype.kind == "f"]
        if not arrays:
            return None
        values = np.concatenate(arrays)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        first, last = np.quantile(values, _INNER)
        return cls(float(values.min()), float(values.max()), float(last - first))

    def differs_from(self, other: _Range) -> bool:
        """Whether both the extremes and what is between are many times as far apart."""
        pairs = ((self.high - self.low, other.high - other.low), (self.inner, other.inner))
        if min(min(pair) for pair in pairs) <= 0:
            return False  # Constants, and what is zero nearly everywhere, tell nothing.
        ratios = [one / two for one, two in pairs]
        return min(ratios) > _DIFFERENT or max(ratios) < 1 / _DIFFERENT

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"
