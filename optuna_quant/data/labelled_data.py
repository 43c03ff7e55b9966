"""Labelled samples that are read a batch at a time, in any order."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.data.array_files import read_npy
from optuna_quant.data.array_files import read_npz
from optuna_quant.data.loaders import is_indexable
from optuna_quant.data.loaders import without_device
from optuna_quant.data.sample_checks import LABELS
from optuna_quant.data.sample_checks import are_whole
from optuna_quant.data.sample_checks import at_least_one
from optuna_quant.data.sample_checks import check_fits
from optuna_quant.data.sample_checks import check_inputs
from optuna_quant.data.sample_checks import cure_of_texts
from optuna_quant.data.sample_checks import find_labels
from optuna_quant.data.sample_checks import have_batch_of_one
from optuna_quant.data.sample_checks import unwrapped
from optuna_quant.data.sample_checks import warn_of_others
from optuna_quant.data.transformed import transformed


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.forms import Samples
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.data.sample_runs import Rows


Batch: TypeAlias = "tuple[dict[str, Rows], Rows]"


_THE_DATA = "the evaluation data"


class LabelledData(ABC):
    """Labelled samples; no more than one batch of them is copied into memory at once.

    :func:`open_labelled_data` makes one of what users give.

    Attributes:
        needs_labels:
            Whether there must be labels, which is so by default. Otherwise the labels of a batch
            are an array of shape ``(n, 0)``.
    """

    needs_labels: bool = True

    @property
    def where(self) -> str:
        """What the data are, for messages."""
        return str(getattr(self, "_where", _THE_DATA))

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

    def __init__(self, arrays: Mapping[str, Any], where: str = _THE_DATA) -> None:
        self._where = where
        self._arrays = {name: _as_array(array, name, where) for name, array in arrays.items()}
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
        return features, _none_of(indices) if labels is None else labels[chosen]


class DatasetData(LabelledData):
    """Samples that an object gives one by one, such as a dataset of PyTorch.

    Args:
        dataset:
            Has a length, and gives with an index a dict of arrays of one sample, or a pair of the
            inputs and the label. The inputs of a pair are a dict, or one array if the model has
            one input. There is no axis of samples in them; a sample that has all the axes that
            the model's inputs have is run by itself. Shapes may differ from sample to sample.
            Where no labels are needed, an array alone is a sample as well, if the model has one
            input.
        where:
            What it is, for error messages.
        transform:
            Function that gives the input as the model takes it, of what the dataset gives; with
            several inputs, a dict of a dict.
    """

    def __init__(
        self,
        dataset: Samples,
        where: str = _THE_DATA,
        *,
        transform: Transform | None = None,
    ) -> None:
        self._where = where
        self._dataset = dataset
        self._transform = transform
        self._told: set[str] = set()

    @property
    def dataset(self) -> Samples:
        """What gives the samples."""
        return self._dataset

    @property
    def samples(self) -> int:
        """The number of samples."""
        return at_least_one(len(self._dataset), self._where)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the first sample fits a model's inputs."""
        at_least_one(len(self._dataset), self._where)
        self._sample(0, inputs)

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types in the first sample."""
        return {name: array.dtype for name, array in self._sample(0, inputs)[0].items()}

    def batch_in_item(self, inputs: Sequence[InputSpec]) -> int | None:
        """The length of the first item, if it has all of the model's axes and so many labels."""
        features, label = self._sample(0, inputs)
        shapes = {name: array.shape for name, array in features.items()}
        labels = label.shape[:1] if isinstance(label, np.ndarray) else ()
        sizes = {*(shape[:1] for shape in shapes.values()), labels}
        if len(sizes) > 1 or not self.needs_labels or not are_whole(inputs, shapes):
            return None
        (size,) = sizes
        return size[0] if size and size[0] > 1 else None

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        found: dict[str, list[NDArray[Any]]] = {spec.name: [] for spec in inputs}
        labels: list[Any] = []
        for index in map(int, indices):
            features, label = self._sample(index, inputs)
            for spec in inputs:
                # A dataset may give one buffer again and again.
                found[spec.name].append(np.array(features[spec.name]))
            labels.append(copy.deepcopy(label))
        rows = {spec.name: _stacked(found.pop(spec.name), spec.dtype) for spec in inputs}
        return rows, _stacked(labels) if self.needs_labels else _none_of(indices)

    def _sample(
        self, index: int, inputs: Sequence[InputSpec]
    ) -> tuple[dict[str, NDArray[Any]], Any]:
        where = f"sample {index} of {self._where}"
        try:
            sample = self._dataset[index]
        except Exception as error:
            raise ValueError(
                f"Sample {index} of {self._where} cannot be read: {type(error).__name__}: {error}"
            ) from error
        names = [spec.name for spec in inputs]
        if self._transform is not None:
            sample = transformed(self._transform, sample, names, where)
        label: object = np.empty(0)
        if isinstance(sample, Mapping) and not self.needs_labels:
            check_inputs(sample, names, where, labels=False)
            named: Mapping[str, Any] = sample
        elif isinstance(sample, Mapping):
            labels = find_labels(sample, inputs, where)
            named, label = sample, sample[labels]
            others = (name for name in sample if name != labels)
            warn_of_others(others, inputs, self._where, self._told)
        elif not self.needs_labels and len(names) == 1 and not isinstance(sample, tuple | list):
            named = {names[0]: sample}
        elif isinstance(sample, tuple | list) and len(sample) == 2:
            given, label = sample
            if isinstance(given, Mapping):
                check_inputs(given, names, where)
                warn_of_others(given, inputs, self._where, self._told)
                named = given
            elif len(names) == 1:
                named = {names[0]: unwrapped(given)}
            else:
                raise ValueError(
                    f"The inputs in {where} are of type {type(given).__name__}, but the model has "
                    f"{len(names)} inputs: give a dict with the keys {', '.join(names)}."
                    f"{cure_of_texts(given)}"
                )
        else:
            raise ValueError(
                f"Sample {index} of {self._where} must be a dict of arrays or a pair (inputs, "
                f"label), but is {_described(sample)}."
            )
        features = {s.name: _as_array(named[s.name], s.name, where) for s in inputs}
        is_whole = are_whole(inputs, {name: array.shape for name, array in features.items()})
        for spec in inputs:
            array = features[spec.name]
            shape = array.shape if is_whole else (1, *array.shape)
            check_fits(spec, array.dtype, shape, where)
        if have_batch_of_one(inputs, {name: array.shape for name, array in features.items()}):
            features = {name: array[0] for name, array in features.items()}
        return features, _as_label(label) if self.needs_labels else np.empty(0)


def open_labelled_data(source: object) -> LabelledData:
    """Return labelled data as users give them, ready to be read.

    Args:
        source:
            A dict of arrays; a path to an ``.npz`` file, which is read as a whole; a path to a
            folder with one ``.npy`` file for each array, which are mapped and not read; or an
            object with ``__len__`` and ``__getitem__`` that gives one sample, see
            :class:`DatasetData`. Arrays have the samples along the first axis.

    Raises:
        TypeError:
            If it is none of these.
        ValueError:
            If a file cannot be read.
    """
    if isinstance(source, LabelledData):
        return source
    if isinstance(source, Mapping):
        return ArrayData(source)
    if isinstance(source, str | os.PathLike):
        where = f"{_THE_DATA} {os.fspath(source)!r}"
        return ArrayData(_load(Path(source)), where)
    if not is_indexable(source):
        raise TypeError(
            "Evaluation data must be a dict of arrays, a path to an .npz file or to a folder of "
            ".npy files, or a dataset with __len__ and __getitem__, but got "
            f"{type(source).__name__}."
        )
    return DatasetData(source)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    if path.is_dir():
        return _load_folder(path)
    if path.suffix != ".npz":
        raise ValueError(
            "Evaluation data must be an .npz file or a folder of .npy files, but got "
            f"{str(path)!r}."
        )
    try:
        return dict(read_npz(path, "The evaluation data"))
    except FileNotFoundError:
        raise ValueError(f"There is no file {str(path)!r}.") from None


def _load_folder(folder: Path) -> dict[str, NDArray[Any]]:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise ValueError(
            f"There is no .npy file in the folder {str(folder)!r}: save one there for each "
            "input of the model, under the input's name, and one for the labels; or put images "
            "there, in a folder for each class."
        )
    return {file.stem: read_npy(file, "The evaluation data") for file in files}


def _none_of(indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Labels of some samples where there are none."""
    return np.empty((len(indices), 0))


def _as_label(value: object) -> Any:
    """A label as an array, or as it is if it is none (a dict, arrays of several shapes)."""
    try:
        array = np.asarray(without_device(value))
    except Exception:
        return value
    return value if array.dtype == object else array


def _stacked(rows: list[Any], dtype: np.dtype[Any] | None = None) -> Rows:
    """Samples along the first axis of an array; as a list if they do not have one shape."""
    if dtype is not None:
        rows = [row.astype(dtype, copy=False) for row in rows]
    if not all(isinstance(row, np.ndarray) for row in rows):
        return rows
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def _described(sample: object) -> str:
    """What a sample is that is no pair, and what to do, for the end of a sentence."""
    kind = type(sample).__name__
    if not isinstance(sample, tuple | list):
        return f"of type {kind}"
    if len(sample) == 1:
        return (
            f"a {kind} of 1 item, without a label: metrics that compare with the FP32 model need "
            "none (metric='agreement', 'cosine' or 'relative_error', with the item itself)"
        )
    return (
        f"a {kind} of {len(sample)} items: leave out what is neither of the two, such as weights "
        "of samples, which are not used: data=[data[i][:2] for i in range(len(data))]"
    )


def _as_array(value: object, name: str, where: str) -> NDArray[Any]:
    try:
        return np.asarray(without_device(value))
    except Exception as error:
        raise ValueError(f"{name!r} in {where} is not an array: {error}") from error


def _as_slice(indices: NDArray[np.integer[Any]]) -> slice | NDArray[np.integer[Any]]:
    """Neighbours as a slice, which takes no copy."""
    if len(indices) and bool((np.diff(indices) == 1).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices
