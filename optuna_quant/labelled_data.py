"""Labelled samples that are read a batch at a time, in any order."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.calibration_data import InputSpec


Batch: TypeAlias = "tuple[dict[str, NDArray[Any]], NDArray[Any]]"

LABELS = ("labels", "label", "targets", "target", "y")
"""Under one of these names the labels are looked for; otherwise in what is no model input."""

_THE_DATA = "the evaluation data"


class LabelledData(ABC):
    """Labelled samples; no more than one batch of them is copied into memory at once.

    :func:`open_labelled_data` makes one of what users give.
    """

    @property
    @abstractmethod
    def samples(self) -> int:
        """The number of samples, at least one.

        Raises:
            ValueError:
                If it cannot be told, or is zero.
        """

    @abstractmethod
    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the samples fit a model's inputs, by shapes or by one sample.

        Raises:
            ValueError:
                If they do not; it says what does not.
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
            first axis, in the order of ``indices``.

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

    @property
    def samples(self) -> int:
        """The number of samples."""
        # Inputs and labels have the same number, and an array under one of these names is either.
        names = [name for name in LABELS if name in self._arrays] or list(self._arrays)
        if not names:
            raise ValueError(f"There are no arrays in {self._where}.")
        shape = self._arrays[names[0]].shape
        if not shape:
            raise ValueError(f"{names[0]!r} in {self._where} has no axis along which samples are.")
        return _at_least_one(shape[0], self._where)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the arrays fit a model's inputs."""
        labels = self._arrays[_find_labels(self._arrays, inputs, self._where)]
        for spec in inputs:
            array = self._arrays[spec.name]
            _check_fits(spec, array.dtype, array.shape, self._where)
        lengths = {spec.name: self._arrays[spec.name].shape[:1] for spec in inputs}
        lengths["the labels"] = labels.shape[:1]
        if len(set(lengths.values())) > 1 or () in lengths.values():
            shown = ", ".join(f"{name}: {n[0] if n else 'none'}" for name, n in lengths.items())
            raise ValueError(
                f"The inputs and labels in {self._where} must have the same number of samples, "
                f"along the first axis, but have: {shown}."
            )
        _at_least_one(len(labels), self._where)

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        labels = self._arrays[_find_labels(self._arrays, inputs, self._where)]
        chosen = _as_slice(indices)
        features = {
            spec.name: self._arrays[spec.name][chosen].astype(spec.dtype, copy=False)
            for spec in inputs
        }
        return features, labels[chosen]


class DatasetData(LabelledData):
    """Samples that an object gives one by one, such as a dataset of PyTorch.

    Args:
        dataset:
            Has a length, and gives with an index a dict of arrays of one sample, or a pair of the
            inputs and the label. The inputs of a pair are a dict, or one array if the model has
            one input. There is no axis of samples in them.
        where:
            What it is, for error messages.
    """

    def __init__(self, dataset: Any, where: str = _THE_DATA) -> None:
        self._where = where
        self._dataset = dataset

    @property
    def samples(self) -> int:
        """The number of samples."""
        return _at_least_one(len(self._dataset), self._where)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the first sample fits a model's inputs."""
        _at_least_one(len(self._dataset), self._where)
        self._sample(0, inputs)

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        stacks: dict[str, NDArray[Any]] = {}
        labels: list[NDArray[Any]] = []
        for position, index in enumerate(map(int, indices)):
            features, label = self._sample(index, inputs)
            for spec in inputs:
                value = features[spec.name]
                if position == 0:
                    shape = (len(indices), *value.shape)
                    stacks[spec.name] = np.empty(shape, dtype=spec.dtype)
                self._check_same(f"Input {spec.name!r}", index, value, stacks[spec.name].shape[1:])
                # Object arrays take a sample as one value, unless told that all of it is meant.
                stacks[spec.name][position, ...] = value
            if labels:
                self._check_same("The label", index, label, labels[0].shape)
            labels.append(label.copy())  # A dataset may give one buffer again and again.
        return stacks, np.stack(labels)

    def _sample(
        self, index: int, inputs: Sequence[InputSpec]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        where = f"sample {index} of {self._where}"
        try:
            sample = self._dataset[index]
        except Exception as error:
            raise ValueError(
                f"Sample {index} of {self._where} cannot be read: {type(error).__name__}: {error}"
            ) from error
        names = [spec.name for spec in inputs]
        if isinstance(sample, Mapping):
            named, label = sample, sample[_find_labels(sample, inputs, where)]
        elif isinstance(sample, tuple | list) and len(sample) == 2:
            given, label = sample
            if isinstance(given, Mapping):
                _check_inputs(given, names, where)
                named = given
            elif len(names) == 1:
                named = {names[0]: given}
            else:
                raise ValueError(
                    f"The inputs in {where} are of type {type(given).__name__}, but the model has "
                    f"{len(names)} inputs: give a dict with the keys {', '.join(names)}."
                )
        else:
            raise ValueError(
                f"Sample {index} of {self._where} must be a dict of arrays or a pair (inputs, "
                f"label), but is of type {type(sample).__name__}."
            )
        features = {}
        for spec in inputs:
            array = _as_array(named[spec.name], spec.name, where)
            _check_fits(spec, array.dtype, (1, *array.shape), where)
            features[spec.name] = array
        return features, _as_array(label, "the label", where)

    def _check_same(
        self, what: str, index: int, value: NDArray[Any], shape: tuple[int, ...]
    ) -> None:
        if value.shape != shape:
            raise ValueError(
                f"{what} of sample {index} of {self._where} has the shape {value.shape}, but that "
                f"of another sample in the same batch has {shape}: pad them to one shape, or use "
                "batch_size=1."
            )


def open_labelled_data(source: Any) -> LabelledData:
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
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise TypeError(
            "Evaluation data must be a dict of arrays, a path to an .npz file or to a folder of "
            ".npy files, or a dataset with __len__ and __getitem__ (of a DataLoader: its "
            f"dataset), but got {type(source).__name__}."
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
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ValueError(f"There is no file {str(path)!r}.") from None
    except Exception as error:
        raise ValueError(f"The evaluation data {str(path)!r} cannot be read: {error}") from error


def _load_folder(folder: Path) -> dict[str, NDArray[Any]]:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise ValueError(
            f"There is no .npy file in the folder {str(folder)!r}: save there one for each input "
            "of the model, under the input's name, and one for the labels."
        )
    arrays = {}
    for file in files:
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r")
        except Exception as error:
            raise ValueError(
                f"The evaluation data {str(file)!r} cannot be read: {error}"
            ) from error
    return arrays


def _find_labels(given: Iterable[str], inputs: Sequence[InputSpec], where: str) -> str:
    """The name of the labels, where there is all that the model needs."""
    given, names = list(given), [spec.name for spec in inputs]
    _check_inputs(given, names, where)
    rest = [name for name in given if name not in names]
    named = [name for name in LABELS if name in rest] or rest
    if not rest or (named == rest and len(rest) > 1):
        raise ValueError(
            f"There must be one array of labels in {where}, named 'labels', besides the model's "
            f"inputs ({', '.join(names)}); there are: {', '.join(given)}."
        )
    return named[0]


def _check_inputs(given: Iterable[str], names: Sequence[str], where: str) -> None:
    given = list(given)
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(
            f"Input {missing[0]!r} is missing in {where}, which holds: "
            f"{', '.join(given) or 'nothing'}. Name the arrays as the model's inputs "
            f"({', '.join(names)}), and the labels 'labels'."
        )


def _check_fits(spec: InputSpec, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    if spec.dtype == object:
        fits = dtype.kind in "OUS"
    else:
        fits = dtype == spec.dtype or dtype.kind == spec.dtype.kind == "f"
    if spec.shape is not None:
        fits = fits and len(shape) == len(spec.shape)
        fits = fits and all(
            not isinstance(wanted, int) or wanted == size
            for wanted, size in zip(spec.shape, shape, strict=True)
        )
    if not fits:
        raise ValueError(
            f"Input {spec.name!r}: {where} is {dtype} of shape {shape}, but the model expects "
            f"{spec}. Prepare the evaluation data exactly as for inference."
        )
    if 0 in shape[1:]:
        raise ValueError(
            f"Input {spec.name!r}: {where} is empty, with shape {shape}; the model expects {spec}."
        )


def _as_array(value: object, name: str, where: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:
        raise ValueError(f"{name!r} in {where} is not an array: {error}") from error


def _as_slice(indices: NDArray[np.integer[Any]]) -> slice | NDArray[np.integer[Any]]:
    """Neighbours as a slice, which takes no copy."""
    if len(indices) and bool((np.diff(indices) == 1).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def _at_least_one(samples: int, where: str) -> int:
    if samples < 1:
        raise ValueError(f"There are no samples in {where}; at least one is needed.")
    return samples
