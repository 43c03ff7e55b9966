"""Labelled samples that are read a batch at a time, in any order."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence
import copy
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.data.loaders import without_device
from optuna_quant.data.sample_checks import LABELS
from optuna_quant.data.sample_checks import are_whole
from optuna_quant.data.sample_checks import at_least_one
from optuna_quant.data.sample_checks import check_fits
from optuna_quant.data.sample_checks import check_inputs
from optuna_quant.data.sample_checks import find_labels
from optuna_quant.data.sample_checks import have_batch_of_one
from optuna_quant.data.sample_checks import warn_of_others


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.data.sample_runs import Rows


Batch: TypeAlias = "tuple[dict[str, Rows], Rows]"


EVALUATION_DATA = "the evaluation data"
"""What such data are called in messages, unless something better is known."""


class LabelledData(ABC):
    """Labelled samples; no more than one batch of them is copied into memory at once.

    :func:`~optuna_quant.data.open_labelled_data.open_labelled_data` makes one of what users give.

    Attributes:
        needs_labels:
            Whether there must be labels, which is so by default. Otherwise the labels of a batch
            are an array of shape ``(n, 0)``.
    """

    needs_labels: bool = True

    @property
    def where(self) -> str:
        """What the data are, for messages."""
        return str(getattr(self, "_where", EVALUATION_DATA))

    def without_labels(self) -> LabelledData:
        """The same samples for a metric that needs no labels; any that are there are not read."""
        other = copy.copy(self)
        other.needs_labels = False
        return other

    def unused(self, inputs: Sequence[InputSpec]) -> list[str]:
        """The names of labels that are there and not needed, as far as that can be determined."""
        return []

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types in which the inputs are given, as far as that can be determined."""
        return {}

    def batch_in_item(self, inputs: Sequence[InputSpec]) -> int | None:
        """How many samples an item seems to hold that is taken as one; None if it is one."""
        return None

    @property
    @abstractmethod
    def samples(self) -> int:
        """The number of samples, at least one.

        Raises:
            ValueError:
                If it cannot be determined, or is zero.
        """

    @abstractmethod
    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the samples fit a model's inputs, by their shapes or by one sample.

        Raises:
            ValueError:
                If they do not; the message says what does not fit.
        """

    @abstractmethod
    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples.

        Args:
            indices:
                Which samples, from 0 on, in any order, of shape ``(n,)``; at least one.
            inputs:
                The inputs of a model for which :meth:`check` found nothing. Floats are cast to
                the type of the model's.

        Returns:
            An array for each input by name, and one of labels; both with the samples along the
            first axis, in the order of ``indices``. Where the samples' shapes differ, a list.

        Raises:
            ValueError:
                If a sample cannot be read or does not fit; it names the sample.
        """


class ArrayData(LabelledData):
    """Samples along the first axis of arrays, in memory or mapped from files.

    Args:
        arrays:
            An array for each input of the model and one of labels.
        where:
            What they are, for error messages.
    """

    def __init__(self, arrays: Mapping[str, Any], where: str = EVALUATION_DATA) -> None:
        self._where = where
        self._arrays = {name: as_array(array, name, where) for name, array in arrays.items()}
        self._told: set[str] = set()

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The arrays by name."""
        return self._arrays

    @property
    def samples(self) -> int:
        """The number of samples."""
        # Inputs and labels have the same number, and an array under one of these names is either.
        names = [name for name in LABELS if name in self._arrays] or list(self._arrays)
        if not names:
            raise ValueError(f"There are no arrays in {self._where}.")
        shape = self._arrays[names[0]].shape
        if not shape:
            raise ValueError(f"{names[0]!r} in {self._where} has no sample axis.")
        return at_least_one(shape[0], self._where)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the arrays fit a model's inputs."""
        labels = self._labels(inputs)
        if labels is not None:
            kept = find_labels(self._arrays, inputs, self._where)
            others = (name for name in self._arrays if name != kept)
            warn_of_others(others, inputs, self._where, self._told)
        is_whole = are_whole(inputs, {n: a.shape[1:] for n, a in self._arrays.items()})
        for spec in inputs:
            array = self._arrays[spec.name]
            shape = array.shape[1:] if is_whole else array.shape
            check_fits(spec, array.dtype, shape, self._where)
        lengths = {spec.name: self._arrays[spec.name].shape[:1] for spec in inputs}
        if labels is not None:
            lengths["the labels"] = labels.shape[:1]
        if len(set(lengths.values())) > 1 or () in lengths.values():
            shown = ", ".join(f"{name}: {n[0] if n else 'none'}" for name, n in lengths.items())
            raise ValueError(
                f"The inputs and labels in {self._where} must have the same number of samples, "
                f"along the first axis, but have: {shown}."
            )
        at_least_one(next(iter(lengths.values()))[0], self._where)

    def _labels(self, inputs: Sequence[InputSpec]) -> NDArray[Any] | None:
        """The labels, where there is all that is needed; :obj:`None` if labels are not."""
        if self.needs_labels:
            return self._arrays[find_labels(self._arrays, inputs, self._where)]
        check_inputs(self._arrays, [spec.name for spec in inputs], self._where, labels=False)
        return None

    def unused(self, inputs: Sequence[InputSpec]) -> list[str]:
        """The names of the arrays that are no inputs, if no labels are needed."""
        names = {spec.name for spec in inputs}
        return [] if self.needs_labels else [name for name in self._arrays if name not in names]

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types of the arrays."""
        return {spec.name: self._arrays[spec.name].dtype for spec in inputs}

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        labels = self._labels(inputs)
        chosen = _as_slice(indices)
        features: dict[str, Rows] = {}
        axes = {name: array.shape[1:] for name, array in self._arrays.items()}
        has_batch_of_one = have_batch_of_one(inputs, axes)
        for spec in inputs:
            array = self._arrays[spec.name][chosen].astype(spec.dtype, copy=False)
            features[spec.name] = array[:, 0] if has_batch_of_one else array
        return features, no_labels(indices) if labels is None else labels[chosen]


def no_labels(indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Labels of some samples where there are none."""
    return np.empty((len(indices), 0))


def _as_slice(indices: NDArray[np.integer[Any]]) -> slice | NDArray[np.integer[Any]]:
    """Neighbours as a slice, which takes no copy."""
    if len(indices) and bool((np.diff(indices) == 1).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def as_array(value: object, name: str, where: str) -> NDArray[Any]:
    """A value of users as an array.

    Raises:
        ValueError:
            If it is none.
    """
    try:
        return np.asarray(without_device(value))
    except Exception as error:
        raise ValueError(f"{name!r} in {where} is not an array: {error}") from error
