"""Labelled data in the forms that people have them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.logging import get_logger

from optuna_quant.data.batch_sequences import batches_of
from optuna_quant.data.batch_sequences import is_batch_sequence
from optuna_quant.data.image_folder import ImageFolder
from optuna_quant.data.image_folder import is_image_folder
from optuna_quant.data.labelled_data import ArrayData
from optuna_quant.data.labelled_data import Batch
from optuna_quant.data.labelled_data import LabelledData
from optuna_quant.data.labelled_dataset import DatasetData
from optuna_quant.data.loaders import BatchRows
from optuna_quant.data.loaders import LoaderSamples
from optuna_quant.data.loaders import Rows
from optuna_quant.data.loaders import content_hash
from optuna_quant.data.loaders import is_indexable
from optuna_quant.data.loaders import is_loader
from optuna_quant.data.loaders import kept_in_memory
from optuna_quant.data.open_labelled_data import open_labelled_data
from optuna_quant.data.sample_checks import LABELS
from optuna_quant.data.sample_checks import cure_of_texts
from optuna_quant.data.sample_checks import unwrapped


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import DataLike
    from optuna_quant.data.inputs import InputSpec


_logger = get_logger(__name__)

_THE_DATA = "the evaluation data"


def open_data(source: DataLike, transform: Transform | None = None) -> LabelledData:
    """Return labelled data as users give them, ready to be read in any order.

    Args:
        source:
            What :func:`~optuna_quant.data.open_labelled_data.open_labelled_data` takes;
            arrays as a pair ``(X, y)``; lists of arrays, whose shapes may differ; a list of
            samples or of batches; a data loader with a dataset that gives samples by number,
            which are read in the order of the dataset; a ``keras.utils.PyDataset``, whose batches
            are kept in memory, as are those of what follows; any other iterable of batches, an
            iterator, or a function that returns one, which are read once and must end; or a
            folder of images, see :class:`~optuna_quant.data.image_folder.ImageFolder`.
        transform:
            Function from one raw sample (an array, an image) to the input as the model takes it.

    Raises:
        TypeError:
            If it is none of these, or the transform is not a function.
        ValueError:
            If something cannot be read.
    """
    check_transform(transform)
    if isinstance(source, LabelledData):
        if transform is not None:
            raise ValueError("A transform needs data that are not opened yet.")
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        where = f"{_THE_DATA} {os.fspath(source)!r}"
        if path.is_dir() and not any(path.glob("*.npy")) and is_image_folder(path):
            return DatasetData(ImageFolder(path), where, transform=transform)
        opened = open_labelled_data(source)
        if transform is None or not isinstance(opened, ArrayData):
            return opened
        return DatasetData(Rows(opened.arrays, where), where, transform=transform)
    if isinstance(source, Mapping):
        return _of_columns(source, transform)
    if isinstance(source, tuple) and len(source) == 2 and _are_columns(*source):
        return _Unnamed(source[0], source[1], transform)
    if is_loader(source):
        if is_indexable(source.dataset):
            return DatasetData(LoaderSamples(source), transform=transform)
        return _Items(kept_in_memory(source, _THE_DATA), transform, are_batches=True)
    if isinstance(source, list) and _is_pair_in_list(source):
        raise ValueError(
            f"The list in {_THE_DATA} is one of samples or batches, but it seems to hold the "
            "inputs and the labels: give them as a tuple, data=(inputs, labels)."
        )
    if isinstance(source, list | tuple):
        return _Items(source, transform, are_batches=False)
    if is_batch_sequence(source):
        batches = kept_in_memory(batches_of(source), _THE_DATA, ends=True)
        return _Items(batches, transform, are_batches=True)
    if is_indexable(source):
        return DatasetData(source, transform=transform)
    if isinstance(source, Iterable) or callable(source):
        return _Items(kept_in_memory(source, _THE_DATA), transform, are_batches=True)
    raise TypeError(
        "Evaluation data must be a dict of arrays, a pair (X, y), a path to an .npz file, to a "
        "folder of .npy files or to a folder of images, a dataset with __len__ and __getitem__, a "
        f"DataLoader, or an iterable of batches, but got {type(source).__name__}."
    )


def check_transform(transform: object) -> None:
    """Refuse a transform that is not a function.

    Raises:
        TypeError:
            If it is not a function.
    """
    if transform is not None and not callable(transform):
        raise TypeError(f"transform must be a function of one sample, but got {transform!r}.")


def _of_columns(columns: Mapping[str, Any], transform: Transform | None) -> LabelledData:
    """Arrays, or lists of arrays whose shapes differ."""
    ragged = {name for name, column in columns.items() if _is_ragged(column)}
    if not ragged and transform is None:
        return ArrayData(columns)
    # What is no list or array of samples (a mean, say) is not looked at.
    rows = {name: c for name, c in columns.items() if name in ragged or np.ndim(c)}
    return DatasetData(Rows(rows, _THE_DATA), transform=transform)


def _is_ragged(column: Any) -> bool:
    """Whether a column is a list whose items are of several shapes, or no arrays."""
    if not isinstance(column, list | tuple):
        return False
    try:
        return np.asarray(column).dtype == object
    except Exception:
        return True


def _are_columns(inputs: Any, labels: Any) -> bool:
    """Whether a pair is the inputs and the labels of all samples, and not two samples."""
    if not _is_column(labels):
        return False
    if isinstance(inputs, Mapping):
        return True
    return _is_column(inputs)


def _is_pair_in_list(items: list[Any]) -> bool:
    """Whether a list is of two arrays as long as each other, but not of one kind."""
    if len(items) != 2 or not all(hasattr(each, "__array__") for each in items):
        return False
    first, second = map(np.shape, items)
    return bool(first and second) and first[0] == second[0] and len(first) != len(second)


def _is_column(value: Any) -> bool:
    return (hasattr(value, "__array__") and np.ndim(value) > 0) or isinstance(value, list)


class _Unnamed(LabelledData):
    """Inputs and labels whose names are those of the model."""

    def __init__(self, inputs: Any, labels: Any, transform: Transform | None) -> None:
        self._inputs = inputs
        self._labels = labels
        self._transform = transform
        self._opened: dict[tuple[object, ...], LabelledData] = {}

    @property
    def samples(self) -> int:
        """The number of samples."""
        if not len(self._labels):
            raise ValueError(f"There are no samples in {_THE_DATA}; at least one is needed.")
        return len(self._labels)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that they fit a model's inputs."""
        self._of(inputs).check(inputs)

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        return self._of(inputs).batch(indices, inputs)

    def unused(self, inputs: Sequence[InputSpec]) -> list[str]:
        """The names of labels that are there and not needed."""
        return self._of(inputs).unused(inputs)

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types in which the inputs are given."""
        return self._of(inputs).dtypes(inputs)

    def signature(self) -> dict[str, str]:
        """Content hashes, which tell these data from others."""
        found = {"data": content_hash(self._inputs)}
        return {**found, "labels": content_hash(self._labels)} if self.needs_labels else found

    def _of(self, inputs: Sequence[InputSpec]) -> LabelledData:
        names = tuple(spec.name for spec in inputs)
        key = (self.needs_labels, *names)
        if key not in self._opened:
            given = self._inputs
            if _are_dicts(given) and len(names) > 1:
                raise ValueError(
                    "The inputs of the evaluation data are a list of dicts, one for each sample, "
                    "and their labels come apart: give pairs of both, list(zip(inputs, labels)), "
                    f"or a dict of arrays with the keys {', '.join(names)}."
                )
            if not isinstance(given, Mapping) and len(names) > 1:
                raise ValueError(
                    f"{_THE_DATA[0].upper()}{_THE_DATA[1:]} are one array, but the model has "
                    f"{len(names)} inputs: give a dict with the keys {', '.join(names)}."
                    f"{cure_of_texts(given)}"
                )
            named = dict(given) if isinstance(given, Mapping) else {names[0]: given}
            label = next(name for name in (*LABELS, "the labels") if name not in named)
            opened = _of_columns({**named, label: self._labels}, self._transform)
            self._opened[key] = opened if self.needs_labels else opened.without_labels()
        return self._opened[key]


class _Items(LabelledData):
    """Samples or batches in memory; the model's inputs tell which.

    An item whose inputs have one axis less than the model's is a sample. Otherwise it is a batch
    where that is what is given by rule, as by data loaders; or, in a list, where it has a label
    for each entry of the first axis.
    """

    def __init__(
        self, items: Sequence[Any], transform: Transform | None, *, are_batches: bool
    ) -> None:
        self._items = items
        self._transform = transform
        self._are_batches = are_batches
        self._opened: LabelledData | None = None

    @property
    def samples(self) -> int:
        """The number of samples; until the model's inputs are known, batches are so by rule."""
        if self._opened is not None:
            return self._opened.samples
        if not self._items:
            raise ValueError(f"There are no samples in {_THE_DATA}; at least one is needed.")
        sizes = [_batch_size(item) for item in self._items] if self._are_batches else [None]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(self._items) else len(self._items)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the first sample fits a model's inputs."""
        self._of(inputs).check(inputs)

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        return self._of(inputs).batch(indices, inputs)

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types in which the inputs are given."""
        return self._of(inputs).dtypes(inputs)

    def signature(self) -> dict[str, str]:
        """A content hash, which tells these data from others."""
        return {"data": content_hash(self._items)}

    def without_labels(self) -> LabelledData:
        """The same samples for a metric that needs no labels."""
        other = copy.copy(self)
        other.needs_labels = False
        other._opened = None
        return other

    def _of(self, inputs: Sequence[InputSpec]) -> LabelledData:
        if self._opened is None:
            items: Any = self._items
            if items and self._hold_batches(inputs):
                sizes = [_batch_size(item) for item in items]
                for number, size in enumerate(sizes):
                    if size is None:
                        raise ValueError(
                            f"Batch {number} of {_THE_DATA} must be a pair (inputs, labels) or a "
                            "dict, in which each array has the samples along its first axis."
                        )
                known = [size for size in sizes if size is not None]
                items = BatchRows(items, known)
                _logger.info(
                    f"The evaluation data are {len(known)} batches, {sum(known)} samples."
                )
            opened: LabelledData = DatasetData(items, transform=self._transform)
            self._opened = opened if self.needs_labels else opened.without_labels()
        return self._opened

    def _hold_batches(self, inputs: Sequence[InputSpec]) -> bool:
        first = self._items[0]
        axes = _axes_of_inputs(first, inputs)
        if axes is None or self._transform is not None:
            # A transform may change the number of axes; what is by rule is so.
            return self._are_batches and _batch_size(first) is not None
        return axes == 0 and _batch_size(first) is not None


def _axes_of_inputs(item: Any, inputs: Sequence[InputSpec]) -> int | None:
    """How many axes fewer than the model's an item's inputs have; None if that is not known."""
    given: Any = item[0] if isinstance(item, tuple | list) and len(item) == 2 else item
    given = unwrapped(given)
    for spec in inputs:
        if spec.shape is None:
            continue
        value = given.get(spec.name) if isinstance(given, Mapping) else given
        if value is None or (len(inputs) > 1 and not isinstance(given, Mapping)):
            return None
        try:
            return len(spec.shape) - np.ndim(value)
        except Exception:
            return None
    return None


def _batch_size(item: Any) -> int | None:
    """The number of samples of what is a batch; None if it cannot be one."""
    parts: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            for each in value.values():
                collect(each)
        elif isinstance(value, tuple):
            for each in value:
                collect(each)
        else:
            parts.append(value)

    collect(tuple(item) if isinstance(item, list) else item)
    sizes: set[int] = set()
    for part in parts:
        if isinstance(part, str | bytes) or not hasattr(part, "__len__") or np.ndim(part) == 0:
            return None
        sizes.add(len(part))
    return sizes.pop() if len(sizes) == 1 else None


def _are_dicts(given: object) -> bool:
    """Whether samples are given as a list of dicts."""
    return isinstance(given, list | tuple) and bool(given) and isinstance(given[0], Mapping)
