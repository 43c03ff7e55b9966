"""Evaluation on labelled data, a batch at a time and in any order of samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
import copy
from dataclasses import replace
from functools import partial
import math
from numbers import Integral
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.labelled_data import LABELS
from optuna_quant.labelled_data import LabelledData
from optuna_quant.labelled_data import open_labelled_data
from optuna_quant.sample_metrics import Bounds
from optuna_quant.sample_metrics import CorpusMetric
from optuna_quant.sample_metrics import Metric
from optuna_quant.sample_metrics import SampleMetric
from optuna_quant.sample_metrics import Score
from optuna_quant.sample_metrics import accuracy
from optuna_quant.sample_metrics import as_metric_of
from optuna_quant.sample_metrics import mae
from optuna_quant.sample_metrics import metrics
from optuna_quant.sample_metrics import mse
from optuna_quant.sample_metrics import top5


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.calibration_data import InputSpec

    _Indices: TypeAlias = NDArray[np.integer[Any]]
    _Output: TypeAlias = tuple[NDArray[Any], NDArray[Any], _Indices]


__all__ = [
    "LABELS",
    "CorpusMetric",
    "DataEvaluation",
    "SampleMetric",
    "Score",
    "accuracy",
    "as_metric_of",
    "mae",
    "metrics",
    "mse",
    "top5",
]

_ROUNDING = 1e-9


class DataEvaluation:
    """A metric of labelled data, for a model in an ONNX Runtime session.

    Instead of a session, all methods take a model that has one, as a backend builds them. So
    this is a :class:`~optuna_quant.sampled_evaluation.SampleEvaluation` as well.

    Samples are read and run a batch at a time, so that the data may be larger than the memory. An
    evaluation can be called with a session for the metric of all samples, or asked for the scores
    of some samples.

    Args:
        data:
            An array for each input of the model and one of labels, samples along the first axis:
            a dict of arrays, a path to an ``.npz`` file, or a path to a folder of ``.npy`` files,
            which are mapped and not read. Or a dataset that gives one sample, see
            :class:`~optuna_quant.labelled_data.DatasetData`. The labels are named ``labels``,
            ``label``, ``targets``, ``target`` or ``y``, or are the one array that is no input.
        metric:
            ``"accuracy"``, ``"top5"`` (or any other number), ``"exact_match"``, ``"iou"``,
            ``"mse"`` or ``"mae"``; a :class:`~optuna_quant.sample_metrics.SampleMetric` or
            :class:`~optuna_quant.sample_metrics.CorpusMetric`; or a function that gives the score
            of each sample, of which higher is better. It is of the model's first output.
        batch_size:
            How many samples are run at once, unless the model has a fixed batch size.
        threads:
            How many batches are run at the same time; the session must allow that, as those of
            ONNX Runtime do. Data are read and scored in the calling thread. The sessions of models
            that a backend has built are made so that the batches share the cores.
        metric_bounds:
            The lowest and the highest score of a sample, for a metric that does not say it, such
            as ``"mse"``.

    Attributes:
        metric:
            The metric's name.
        name:
            The same.
        higher_is_better:
            Whether more is better.
        is_mean:
            Whether the metric is the mean of the samples' scores. Not so for a
            :class:`~optuna_quant.sample_metrics.CorpusMetric`.
        bounds:
            The lowest and the highest score of a sample; :obj:`None` if they are not known.
        batch_size:
            How many samples are run at once.
        threads:
            How many batches are run at the same time.

    Raises:
        TypeError:
            If the data or the metric are of a type that is not known.
        ValueError:
            If the metric is not known, the data cannot be read, or a number is out of range.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Mapping[str, Any] | LabelledData | Any,
        metric: Metric = "accuracy",
        *,
        batch_size: int = 64,
        threads: int = 1,
        metric_bounds: Bounds | None = None,
    ) -> None:
        self._metric = as_metric_of(metric, bounds=metric_bounds)
        check_count("batch_size", batch_size)
        check_count("threads", threads)
        self.metric = self.name = self._metric.name
        self.higher_is_better = self._metric.higher_is_better
        self.is_mean = isinstance(self._metric, SampleMetric)
        self.bounds = self._metric.bounds if isinstance(self._metric, SampleMetric) else None
        self.batch_size = batch_size
        self.threads = threads
        self._data = open_labelled_data(data)

    @property
    def samples(self) -> int:
        """The number of samples, at least one.

        Raises:
            ValueError:
                If it cannot be told, or is zero.
        """
        return self._data.samples

    def __call__(self, session: Any) -> float:
        """The metric of the model in a session, on all samples.

        Raises:
            ValueError:
                If the data do not fit the model, or the metric gives what is no score.
        """
        self.check(session)
        everything = np.arange(self.samples)
        if isinstance(self._metric, CorpusMetric):
            return self._of_corpus(self._metric, session, everything)
        total = 0.0
        metric = replace(self._metric, margin=None)
        with closing(self._pairs(metric, session, everything)) as batches:
            for scores, _ in batches:
                total += float(scores.sum())
        return total / len(everything)

    def scores(
        self, session: Any, indices: ArrayLike
    ) -> Generator[NDArray[np.float64], None, None]:
        """The scores of some samples.

        Args:
            session:
                A session with the model.
            indices:
                Which samples, from 0 on, in any order, of shape ``(n,)``.

        Returns:
            A generator that gives the scores in the order of ``indices``, a batch at a time.
            Batches are run as it is asked for them, with several threads up to as many ahead, so
            that it can be closed early. Closing it waits for what is being run.

        Raises:
            ValueError:
                If the data do not fit the model, an index is out of range, the metric is of the
                whole set only, or a score has the wrong shape, is not finite or out of bounds.
        """
        metric, chosen = self._checked(session, indices)
        return self._only_scores(self._pairs(replace(metric, margin=None), session, chosen))

    def scores_and_margins(
        self, session: Any, indices: ArrayLike
    ) -> Generator[tuple[NDArray[np.float64], NDArray[np.float64] | None], None, None]:
        """The scores of some samples, and how far each is from being decided otherwise.

        Args:
            session:
                A session with the model.
            indices:
                Which samples, from 0 on, in any order, of shape ``(n,)``.

        Returns:
            As :meth:`scores`, with pairs of scores and margins, both of shape ``(batch,)``. The
            margins are :obj:`None` if the metric does not tell them.

        Raises:
            ValueError:
                As :meth:`scores`.
        """
        metric, chosen = self._checked(session, indices)
        return self._pairs(metric, session, chosen)

    def check(self, session: Any) -> None:
        """Check that the data fit the model in a session, without running it.

        Raises:
            ValueError:
                If they do not; it says what does not.
        """
        self._data.check(_specs(self._session_of(session)))

    def signature(self) -> dict[str, str]:
        """What its metrics rest on besides the model: metric, data, labels; texts by part.

        Where two evaluations have the same signature, a model has the same metric in both, see
        :mod:`optuna_quant.evaluation_signature`.
        """
        from optuna_quant.evaluation_signature import data_signature

        return data_signature(self)

    def _session_of(self, model: Any) -> Any:
        """The session of a model that a backend has built; a session as it is."""
        session_for = getattr(model, "session_for", None)
        if self.threads > 1 and session_for is not None:
            return session_for(self.threads)
        return getattr(model, "session", model)

    def _of_corpus(self, metric: CorpusMetric, session: Any, indices: _Indices) -> float:
        outputs, labels = [], []
        with closing(self._outputs(session, indices)) as batches:
            for output, label, _ in batches:
                outputs.append(output)
                labels.append(own_copy(label) if label.dtype.hasobject else label)
        value = metric.score(self._joined("outputs", outputs), self._joined("labels", labels))
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"The metric {self.name!r} must be a finite number, but is {value!r}."
            )
        return number

    def _joined(self, what: str, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        shapes = sorted({array.shape[1:] for array in arrays})
        if len(shapes) > 1:
            raise ValueError(
                f"The metric {self.name!r} needs the {what} of all samples in one shape, but "
                f"there are the shapes {', '.join(map(str, shapes))}."
            )
        return np.concatenate(arrays)

    @staticmethod
    def _only_scores(
        pairs: Generator[tuple[NDArray[np.float64], Any], None, None],
    ) -> Generator[NDArray[np.float64], None, None]:
        with closing(pairs):
            for scores, _ in pairs:
                yield scores

    def _pairs(
        self, metric: SampleMetric, session: Any, indices: _Indices
    ) -> Generator[tuple[NDArray[np.float64], NDArray[np.float64] | None], None, None]:
        with closing(self._outputs(session, indices)) as batches:
            for output, labels, chosen in batches:
                # Of its own, since it may write into them: labels may be the user's arrays.
                margins = None
                if metric.margin is not None:
                    margins = metric.margin(own_copy(output), own_copy(labels))
                scores = _checked_scores(metric, metric.score(output, own_copy(labels)), chosen)
                yield scores, _checked_margins(metric, margins, chosen)

    def _outputs(self, session: Any, indices: _Indices) -> Generator[_Output, None, None]:
        """The outputs, labels and indices of batches, in order; some are run ahead."""
        session = self._session_of(session)
        specs = _specs(session)
        fixed = [i.shape[0] for i in session.get_inputs() if i.shape and _is_fixed(i.shape[0])]
        size = fixed[0] if fixed else self.batch_size
        starts = range(0, len(indices), size)
        run = partial(_run, session, session.get_outputs()[0].name, fixed[0] if fixed else None)
        if self.threads == 1:
            for start in starts:
                chosen = indices[start : start + size]
                feed, labels = self._data.batch(chosen, specs)
                yield run(feed, len(chosen)), labels, chosen
            return
        ahead: deque[tuple[Future[NDArray[Any]], NDArray[Any], _Indices]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="optuna_quant_data")
        try:
            for start in starts:
                chosen = indices[start : start + size]
                feed, labels = self._data.batch(chosen, specs)
                ahead.append((pool.submit(run, feed, len(chosen)), labels, chosen))
                del feed  # It is the worker's, and not kept while results are waited for.
                if len(ahead) > self.threads:
                    yield _done(ahead.popleft())
            while ahead:
                yield _done(ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _checked(self, session: Any, indices: ArrayLike) -> tuple[SampleMetric, _Indices]:
        """The metric and the indices, if samples can be scored with them."""
        if not isinstance(self._metric, SampleMetric):
            raise ValueError(
                f"The metric {self.name!r} is of the whole set; samples have no scores of their "
                "own."
            )
        self.check(session)
        array = np.asarray(indices)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"indices must be integers of shape (n,), but got {array.dtype} of shape "
                f"{array.shape}."
            )
        wrong = array[(array < 0) | (array >= self.samples)]
        if len(wrong):
            raise ValueError(
                f"There is no sample {wrong[0]}: the samples are 0 to {self.samples - 1}."
            )
        return self._metric, array.astype(np.int64, copy=False)


def _run(
    session: Any, name: str, fixed: int | None, feed: dict[str, NDArray[Any]], count: int
) -> NDArray[Any]:
    """The output for as many samples as were asked for."""
    if fixed is not None and count < fixed:
        feed = {key: _padded(array, fixed) for key, array in feed.items()}
    (result,) = session.run([name], feed)
    output = np.asarray(result)
    size = count if fixed is None else fixed
    if output.shape[:1] != (size,):
        raise ValueError(
            f"The model's first output, {name!r}, must have the samples along its first axis, but "
            f"has the shape {output.shape} for {size} samples."
        )
    return output[:count]


def own_copy(array: NDArray[Any]) -> NDArray[Any]:
    """A copy to write into; of objects, such as lists of boxes, of these as well."""
    return copy.deepcopy(array) if array.dtype.hasobject else array.copy()


def _done(one: tuple[Future[NDArray[Any]], NDArray[Any], _Indices]) -> _Output:
    future, labels, chosen = one
    return future.result(), labels, chosen


def _checked_scores(metric: SampleMetric, given: Any, chosen: _Indices) -> NDArray[np.float64]:
    array = np.asarray(given)
    if array.shape != chosen.shape or array.dtype.kind not in "biuf":
        raise ValueError(
            f"The metric {metric.name!r} must give one number for each sample, of shape "
            f"{chosen.shape}, but gave {array.dtype} of shape {array.shape}. For a metric of the "
            "whole set use CorpusMetric."
        )
    scores = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ValueError(
            f"The metric {metric.name!r} is {scores[bad[0]]} for sample {chosen[bad[0]]}; it must "
            "be finite for each sample."
        )
    if metric.bounds is None:
        return scores
    low, high = metric.bounds
    precision = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
    rounding = max(_ROUNDING, 4 * precision) * max(1.0, abs(low), abs(high))
    bad = np.flatnonzero((scores < low - rounding) | (scores > high + rounding))
    if len(bad):
        raise ValueError(
            f"The metric {metric.name!r} is {scores[bad[0]]} for sample {chosen[bad[0]]}, which "
            f"is outside its bounds {metric.bounds}. Give bounds that hold for every sample and "
            "every model, or none."
        )
    return np.clip(scores, low, high)


def _checked_margins(
    metric: SampleMetric, given: Any, chosen: _Indices
) -> NDArray[np.float64] | None:
    if given is None:
        return None
    margins = np.asarray(given)
    if margins.shape != chosen.shape or margins.dtype.kind not in "biuf":
        raise ValueError(
            f"The margin of the metric {metric.name!r} must be one number for each sample, of "
            f"shape {chosen.shape}, but is {margins.dtype} of shape {margins.shape}."
        )
    return margins.astype(np.float64)


def _specs(session: Any) -> list[InputSpec]:
    """What the model in a session expects, whatever the number of samples."""
    from optuna_quant.backends.onnxruntime.calibration_data import InputSpec

    kinds = {"float": "float32", "double": "float64", "string": "object"}
    specs = []
    for given in session.get_inputs():
        kind = given.type.removeprefix("tensor(").removesuffix(")")
        shape = (None, *given.shape[1:]) if given.shape else None
        specs.append(InputSpec(given.name, np.dtype(kinds.get(kind, kind)), shape))
    return specs


def _is_fixed(size: object) -> bool:
    return isinstance(size, int) and size > 0


def check_count(name: str, value: object) -> None:
    """Refuse what is no number of things to have at least one of.

    Raises:
        TypeError:
            If it is no integer.
        ValueError:
            If it is less than one.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, but got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, but got {value}.")


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with its last sample repeated; what the model gives for it is not used."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
