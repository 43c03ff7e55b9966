"""Inputs of a model that are given once and are the same for all samples."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.forms import InputValues


class Spec(Protocol):
    """What a model expects of an input: its name, its element type, the size of each axis."""

    @property
    def name(self) -> str:
        """The input's name."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements; ``object`` for strings."""

    @property
    def shape(self) -> tuple[int | str | None, ...] | None:
        """The size of each axis; a name or None where any will do. None: of any shape."""


def cure_of_missing(name: str, names: Sequence[str]) -> str:
    """How to give an input that is missing in the data, for the end of an error message.

    Args:
        name:
            The input.
        names:
            All inputs of the model; of a model with one input nothing is said.
    """
    if len(names) < 2:
        return ""
    return (
        f" If {name!r} is the same for all samples, such as a sampling rate, a flag or the first "
        f"state, give it once: inputs={{{name!r}: ...}} (--input {name}=VALUE)."
    )


@dataclass(frozen=True)
class BoundInputs:
    """Constant inputs that fit a model.

    Args:
        values:
            An array for each, of the model's type.
        batch_axes:
            The axis of the samples in those that have one. There they have the size one, and are
            repeated for each sample.
    """

    values: Mapping[str, NDArray[Any]]
    batch_axes: Mapping[str, int]

    def varying(self, inputs: Iterable[Any]) -> list[Any]:
        """Those of the inputs that the data must hold."""
        return [spec for spec in inputs if spec.name not in self.values]

    def feed(self, samples: int) -> dict[str, NDArray[Any]]:
        """The inputs for a run of this number of samples."""
        return {
            name: np.repeat(value, samples, axis=self.batch_axes[name])
            if name in self.batch_axes
            else value
            for name, value in self.values.items()
        }

    @property
    def are_numbers(self) -> bool:
        """Whether each is a single number, which fits any number of samples."""
        return all(value.size == 1 for value in self.values.values())

    @property
    def allow_cutting(self) -> bool:
        """Whether they fit any number of samples; this is not known of a recurrent state."""
        return all(
            name in self.batch_axes or value.size == 1 for name, value in self.values.items()
        )


NO_INPUTS = BoundInputs({}, {})


class ConstantInputs:
    """Inputs that are given once, such as a sampling rate, a flag or the first recurrent state.

    Args:
        values:
            The value of each input by its name. A number or string fills the whole input; an
            array has the input's shape. The axis of the samples, which has the same name as the
            first axis of the other inputs (or has no size, as that has none), is of size one, or
            left out.

    Raises:
        TypeError:
            If it is not a mapping from names.
        ValueError:
            If a value cannot be made an array.
    """

    def __init__(self, values: InputValues | None = None) -> None:
        if values is not None and not isinstance(values, Mapping):
            raise TypeError(
                "inputs must be a dict from names of inputs to their values, such as "
                f"{{'sr': 16000}}, but got {values!r}."
            )
        self._values = {}
        for name, value in (values or {}).items():
            if not isinstance(name, str):
                raise TypeError(f"inputs: {name!r} is not the name of an input.")
            try:
                self._values[name] = np.array(value)
            except Exception as error:
                raise ValueError(f"inputs: {name!r} is not an array: {error}") from error

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._values)

    @property
    def values(self) -> Mapping[str, NDArray[Any]]:
        """The values as they were given, as arrays."""
        return self._values

    def bind(self, inputs: Sequence[Spec], optional: Sequence[Spec] = ()) -> BoundInputs:
        """The values as a model takes them.

        Args:
            inputs:
                The inputs that the model must be fed.
            optional:
                Those that have a default value in the model.

        Raises:
            ValueError:
                If the model has no such input, or the value does not fit; or if nothing would be
                left for the data.
        """
        if not self._values:
            return NO_INPUTS
        specs = {spec.name: spec for spec in (*inputs, *optional)}
        for name in self._values:
            if name not in specs:
                close = difflib.get_close_matches(name, specs, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(
                    f"inputs: the model has no input {name!r}; {hint}its inputs are: "
                    f"{', '.join(specs)}."
                )
        varying = [spec for spec in inputs if spec.name not in self._values]
        if not varying:
            raise ValueError(
                f"inputs: all of the model's inputs ({', '.join(spec.name for spec in inputs)}) "
                "are constant, so no input is left in which samples could differ."
            )
        first = [spec.shape[0] for spec in varying if spec.shape]
        found, axes = {}, {}
        for name, value in self._values.items():
            spec = specs[name]
            array, axis = _shaped(spec, _cast(spec, value), _batch_axis(spec, first))
            found[name] = array
            if axis is not None:
                axes[name] = axis
        return BoundInputs(found, axes)


def _cast(spec: Spec, value: NDArray[Any]) -> NDArray[Any]:
    if spec.dtype == object:
        if value.dtype.kind not in "OUS":
            raise ValueError(f"inputs: {spec.name!r} must be of strings, but got {value.dtype}.")
        return value.astype(object)
    if value.dtype.kind not in "biufV":
        hint = " A number fills the whole input: 0 for zeros." if value.ndim == 0 else ""
        raise ValueError(
            f"inputs: {spec.name!r} must be {spec.dtype.name}, but got {value.tolist()!r}.{hint}"
        )
    with np.errstate(all="ignore"):
        cast = value.astype(spec.dtype)
        # What becomes a float may be rounded, but must not become infinite.
        whole = spec.dtype.kind not in "biu"
        fits = np.isfinite(cast) == np.isfinite(value) if whole else cast == value
    if not np.all(fits):
        wrong = value[~np.asarray(fits)].ravel()[0] if value.ndim else value[()]
        raise ValueError(
            f"inputs: {spec.name!r} is {spec.dtype.name} in the model, so {wrong} does not fit."
        )
    return np.asarray(cast)


def _batch_axis(spec: Spec, first: Sequence[int | str | None]) -> int | None:
    """The axis of the samples of a constant input, if it can be told.

    Args:
        spec:
            The input.
        first:
            The sizes of the first axes of the inputs that differ from sample to sample.
    """
    if len(set(first)) != 1:
        return None
    (batch,) = set(first)
    axes = [axis for axis, size in enumerate(spec.shape or ()) if size == batch]
    if isinstance(batch, int):
        # Other axes may have the same size by chance.
        axes = [axis for axis in axes if axis == 0]
    return axes[0] if len(axes) == 1 else None


def _shaped(spec: Spec, value: NDArray[Any], axis: int | None) -> tuple[NDArray[Any], int | None]:
    """The value in the input's shape, and the axis along which it is repeated."""
    wanted = spec.shape
    if wanted is None:
        return value, None
    if value.ndim == 0 and wanted:
        sizes: list[int] = []
        for i, size in enumerate(wanted):
            if i == axis or isinstance(size, int):
                sizes.append(1 if i == axis or not isinstance(size, int) else size)
            else:
                raise ValueError(
                    f"inputs: {spec.name!r} is {spec} in the model, where axis {i} has no size, "
                    f"so {value[()]!r} cannot fill it: give an array of the shape with which "
                    "you run the model."
                )
        return np.full(sizes, value[()], dtype=value.dtype), axis
    if axis is not None and value.ndim == len(wanted) - 1:
        value = np.expand_dims(value, axis)
    fits = value.ndim == len(wanted) and all(
        i == axis or not isinstance(size, int) or size == value.shape[i]
        for i, size in enumerate(wanted)
    )
    if not fits:
        raise ValueError(
            f"inputs: {spec.name!r} has the shape {value.shape}, but the model expects {spec}."
        )
    if axis is not None and value.shape[axis] != 1:
        if value.shape[axis] == wanted[axis]:
            return value, None
        raise ValueError(
            f"inputs: {spec.name!r} is the same for all samples, so its axis {axis}, along which "
            f"the samples are in the model ({spec}), must have the size 1, but the shape is "
            f"{value.shape}."
        )
    return value, axis


def parse_inputs(texts: Sequence[str] | None) -> dict[str, Any]:
    """What ``--input NAME=VALUE`` says: JSON, ``@FILE.npy``, or else a string.

    Raises:
        ValueError:
            If there is no ``=``, a name comes twice, or a file cannot be read.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(
                f"--input must be NAME=VALUE, such as --input sr=16000, but got {text!r}."
            )
        if name in found:
            raise ValueError(f"--input gives {name!r} twice.")
        found[name] = _parsed(name, value)
    return found


def _parsed(name: str, value: str) -> Any:
    if value.startswith("@"):
        path = Path(value[1:])
        if not path.is_file():
            raise ValueError(f"--input {name}: there is no file {str(path)!r}.")
        try:
            found = np.load(path)
        except Exception as error:
            raise ValueError(f"--input {name}: {str(path)!r} cannot be read: {error}") from error
        if not isinstance(found, np.ndarray):
            raise ValueError(f"--input {name}: {str(path)!r} is not an .npy file with one array.")
        return found
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    if isinstance(parsed, dict) or parsed is None:
        raise ValueError(
            f"--input {name}: VALUE must be a number, true or false, a list, a text or @FILE.npy, "
            f"but got {value!r}."
        )
    return parsed


def files_of_inputs(texts: Sequence[str] | None) -> dict[str, Path]:
    """The files that ``--input`` reads, by what they are."""
    named = (text.partition("=") for text in texts or ())
    return {
        f"file of --input {name}": Path(value[1:]) for name, _, value in named if value[:1] == "@"
    }
