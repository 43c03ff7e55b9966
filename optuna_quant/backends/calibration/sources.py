"""Calibration data in the forms that people have them, as whole sets or as batches."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.calibration.feeds import is_array
from optuna_quant.data.batch_sequences import batches_of
from optuna_quant.data.batch_sequences import is_batch_sequence
from optuna_quant.data.image_folder import ImageFolder
from optuna_quant.data.image_folder import is_image_folder
from optuna_quant.data.loaders import LoaderSamples
from optuna_quant.data.loaders import Rows
from optuna_quant.data.loaders import in_batches
from optuna_quant.data.loaders import is_indexable
from optuna_quant.data.loaders import is_loader
from optuna_quant.data.loaders import row_of
from optuna_quant.data.sample_checks import LABELS
from optuna_quant.data.transformed import transformed


if TYPE_CHECKING:
    from optuna_quant.data.forms import SampleLike
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.inputs import InputSpec


_logger = get_logger(__name__)

_WHERE = "the calibration data"


@dataclass(frozen=True, kw_only=True)
class CalibrationSource:
    """Brings calibration data into a form with nothing in it but the model's inputs.

    Args:
        inputs:
            The inputs that the data must hold.
        constants:
            The names of those that are given once; in the data they are not looked at.
        batch_size:
            How many samples are put together where single ones are given.
        transform:
            What makes inputs of samples.
        load:
            Reads an ``.npz`` file.
        on_others:
            Called with names of which some may be no inputs.
    """

    inputs: Sequence[InputSpec]
    constants: frozenset[str]
    batch_size: int
    transform: Transform | None
    load: Callable[[Path], Mapping[str, Any]]
    on_others: Callable[[Iterable[str]], None]

    def simplified(self, data: SampleLike) -> SampleLike:
        """A dict of arrays, an array, a re-iterable or a function that returns an iterator."""
        if isinstance(data, str | os.PathLike):
            data = self._opened(Path(data))
        if isinstance(data, Mapping):
            data = self._without_others(data)
            return data if self.transform is None else self._of_samples(Rows(data, _WHERE))
        if isinstance(data, tuple) and len(data) == 2 and _is_labelled(*data):
            return self.simplified(data[0])
        if is_array(data):
            return data if self.transform is None else self._of_samples(_Single(data))
        if is_loader(data) and is_indexable(data.dataset):
            samples = LoaderSamples(data)
            if self.transform is None and samples.are_padded:
                _logger.info(
                    "The samples of the calibration data differ in length, and each is read "
                    "alone: calibration sees no padding. calibration_data=list(loader) keeps the "
                    "batches, padding included."
                )
            return self._of_samples(samples)
        if is_batch_sequence(data):
            batches = data
            return _Batches(lambda: batches_of(batches), self._batch)
        if is_indexable(data) and not isinstance(data, list | tuple):
            return self._of_samples(data)
        if isinstance(data, list | tuple):
            if self.transform is not None:
                return self._of_samples(data)
            return _Batches(lambda: iter(data), self._batch)
        if isinstance(data, Iterable):
            return _Batches(lambda: iter(data), self._batch)
        return data

    def batch(self, item: SampleLike) -> SampleLike:
        """A batch of what a function gives."""
        return self._batch(item)

    def _opened(self, path: Path) -> Any:
        if not path.is_dir():
            return self.load(path)
        files = {file.stem: file for file in path.glob("*.npy")}
        if not files and is_image_folder(path):
            return ImageFolder(path)
        if not files:
            raise ValueError(
                f"The folder {str(path)!r} holds neither .npy files, named after the model's "
                "inputs, nor images."
            )
        names = [spec.name for spec in self.inputs if spec.name in files]
        self.on_others(files)
        return {name: np.load(files[name], mmap_mode="r") for name in names}

    def _without_others(self, batch: Mapping[Any, Any]) -> dict[Any, Any]:
        """A batch without labels and without what is given once."""
        names = {spec.name for spec in self.inputs}
        if not names <= batch.keys():
            return dict(batch)  # The error that follows tells all that is there.
        return {
            name: value
            for name, value in batch.items()
            if name in names or (name not in self.constants and name not in LABELS)
        }

    def _batch(self, item: SampleLike) -> SampleLike:
        """A batch without labels, with an axis of samples."""
        if self.transform is not None:
            return self._transformed(item)
        return self._with_axis(self._without_labels(item))

    def _without_labels(self, item: SampleLike) -> SampleLike:
        count = len(self.inputs)
        if isinstance(item, tuple | list) and not _is_numbers(item):
            if len(item) == 2 and isinstance(item[0], Mapping):
                item = item[0]
            elif len(item) == count + 1:
                item = item[0] if count == 1 else item[:count]
        return self._without_others(item) if isinstance(item, Mapping) else item

    def _with_axis(self, item: SampleLike) -> SampleLike:
        """The item as a batch of one, if each array has one axis less than the model's input."""
        named = self._named(item)
        known = [spec for spec in self.inputs if spec.shape]
        if named is None or not known:
            return item
        for spec in known:
            value = named.get(spec.name)
            if value is None or not is_array(value) or np.ndim(value) != len(spec.shape or ()) - 1:
                return item
        return {name: np.asarray(plain)[None] for name, plain in named.items()}

    def _named(self, item: SampleLike) -> dict[Any, Any] | None:
        names = [spec.name for spec in self.inputs]
        if isinstance(item, Mapping):
            return dict(item)
        if is_array(item):
            return {names[0]: item} if len(names) == 1 else None
        if isinstance(item, tuple | list) and len(item) == len(names):
            return dict(zip(names, item, strict=True))
        return None

    def _transformed(self, item: SampleLike) -> SampleLike:
        """A batch each sample of which has gone through the transform."""
        item = self._without_labels(item)
        rows = len(next(iter(item.values()))) if isinstance(item, Mapping) else len(item)
        return self._stacked([self._sample(row_of(item, row), "a batch") for row in range(rows)])

    def _of_samples(self, samples: Any) -> _Batches:
        """Batches of what gives samples by number."""
        return _Batches(lambda: self._read(samples), lambda batch: batch)

    def _read(self, samples: Any) -> Iterator[Any]:
        fixed = {spec.shape[0] for spec in self.inputs if spec.shape} - {None}
        sizes = [size for size in fixed if isinstance(size, int)]
        size = sizes[0] if sizes else self.batch_size
        count = len(samples)
        if sizes and count % size and count > size:
            warn_user(
                f"The model has the fixed batch size {size}: the last {count % size} of {count} "
                "calibration samples are left out."
            )
            count -= count % size
        read = (self._sample(samples[i], f"sample {i}") for i in range(count))
        for some in in_batches(read, size, list):
            yield from self._in_one_shape(some)

    def _sample(self, item: SampleLike, where: str) -> dict[str, Any]:
        """The inputs of one sample."""
        names = [spec.name for spec in self.inputs]
        where = f"{where} of {_WHERE}"
        if self.transform is not None:
            item = transformed(self.transform, item, names, where)
        item = self._without_labels(item)
        if isinstance(item, Mapping):
            named = dict(item)
        elif len(names) == 1:
            named = {names[0]: item}
        else:
            found = self._named(item)
            if found is None:
                raise ValueError(
                    f"The inputs in {where} are of type {type(item).__name__}, but the model has "
                    f"{len(names)} inputs: give a dict with the keys {', '.join(names)}."
                )
            named = found
        return {name: np.asarray(value) for name, value in named.items()}

    def _in_one_shape(self, samples: list[dict[str, Any]]) -> Iterator[Any]:
        """Samples that follow one another and have one shape, together."""
        some: list[dict[str, Any]] = []
        for sample in samples:
            if some and _shapes(some[0]) != _shapes(sample):
                yield self._stacked(some)
                some = []
            if self._is_whole(sample):
                yield sample
            else:
                some.append(sample)
        if some:
            yield self._stacked(some)

    def _is_whole(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample has all axes of the model's inputs."""
        return any(
            spec.shape is not None
            and spec.name in sample
            and np.ndim(sample[spec.name]) == len(spec.shape)
            for spec in self.inputs
        )

    @staticmethod
    def _stacked(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


class _Single:
    """An array without a name as samples by number."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Any:
        return self._array[index]


@dataclass(frozen=True)
class _Batches:
    """Batches that can be read again."""

    start: Callable[[], Iterator[Any]]
    convert: Callable[[Any], Any]

    def __iter__(self) -> Iterator[Any]:
        return map(self.convert, self.start())


def _is_labelled(inputs: Any, labels: Any) -> bool:
    """Whether a pair is the inputs and the labels of all samples, and not two batches."""
    if not is_array(labels):
        return False
    return isinstance(inputs, Mapping) or (is_array(inputs) and np.ndim(labels) < np.ndim(inputs))


def _is_numbers(item: Sequence[Any]) -> bool:
    """Whether a list is an array that was written down."""
    return all(isinstance(value, int | float | bool) for value in item)


def _shapes(sample: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return [np.shape(value) for value in sample.values()]
