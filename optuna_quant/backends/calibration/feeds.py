"""One calibration batch, checked against the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.data.constant_inputs import cure_of_missing
from optuna_quant.data.loaders import without_device
from optuna_quant.data.sample_checks import cure_of_texts
from optuna_quant.data.sample_checks import cure_of_wide
from optuna_quant.data.sample_checks import loses_nothing
from optuna_quant.data.shape_cures import cure_of_shape


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.data.inputs import InputSpec

    Feed = dict[str, NDArray[Any]]


def to_feed(
    batch: object,
    inputs: Sequence[InputSpec],
    where: str,
    *,
    on_cast: Callable[[InputSpec, np.dtype[Any]], None],
    on_others: Callable[[Iterable[str]], None],
) -> Feed:
    """Return a batch as arrays by input name, in the order of the inputs.

    Args:
        batch:
            A dict from input names to arrays, an array (for a model with one input), or a list or
            tuple of arrays in input order.
        inputs:
            The model's inputs.
        where:
            What the batch is, for error messages.
        on_cast:
            Called with the input and the given dtype if an array is cast between float types.
        on_others:
            Called with the names that are no inputs.

    Raises:
        TypeError:
            If the batch is none of these.
        ValueError:
            If it does not fit the inputs.
    """
    names = [spec.name for spec in inputs]
    if isinstance(batch, Mapping):
        check_names(batch, inputs, where, on_others=on_others)
        named = dict(batch)
    elif is_array(batch):
        if len(inputs) != 1:
            raise ValueError(
                f"{where} is one array, but the model has {len(inputs)} inputs: pass a dict with "
                f"the keys {names}, or a tuple of arrays in that order."
                f"{cure_of_missing(names[-1], names)}"
            )
        named = {names[0]: batch}
    elif isinstance(batch, (list, tuple)):
        if len(batch) != len(inputs):
            raise ValueError(
                f"{where} is a {type(batch).__name__} of {len(batch)} items, but the model has "
                f"{len(inputs)} input(s), {names}: pass one array for each, and no labels."
            )
        named = dict(zip(names, batch, strict=True))
    else:
        raise TypeError(
            f"{where} is of type {type(batch).__name__}; pass a dict from input names to arrays, "
            "an array (for a model with one input), or a tuple of arrays in input order."
            f"{cure_of_texts(batch)}"
        )
    return {spec.name: _fitting(spec, named[spec.name], where, on_cast) for spec in inputs}


def check_names(
    named: Mapping[Any, Any],
    inputs: Sequence[InputSpec],
    where: str,
    *,
    on_others: Callable[[Iterable[str]], None],
) -> None:
    """Check that there is a value for each input.

    Args:
        named:
            The values.
        inputs:
            The model's inputs.
        where:
            What they are, for messages.
        on_others:
            Called with the names that are no inputs.

    Raises:
        ValueError:
            Naming the first input that is missing.
    """
    names = [spec.name for spec in inputs]
    missing = [name for name in names if name not in named]
    unknown = [name for name in named if name not in names]
    if missing:
        raise ValueError(
            f"Input {missing[0]!r} is missing in {where}: the model's inputs are {names}, but "
            f"there are arrays for {list(named)}."
            f"{cure_of_missing(missing[0], names)}"
        )
    # Batches of a loader have more, such as the indices of the samples.
    on_others(map(str, unknown))


def is_array(value: object) -> bool:
    """Tell whether numpy takes the value as an array; tensors of other libraries count."""
    return hasattr(value, "__array__")


def to_array(spec: InputSpec, value: object, where: str) -> NDArray[Any]:
    """Return a value as a numpy array.

    Raises:
        ValueError:
            If it is none, such as a ragged list.
    """
    try:
        return np.asarray(without_device(value))
    except ValueError as error:
        raise ValueError(f"Input {spec.name!r}: {where} is not an array: {error}") from error


def _fitting(
    spec: InputSpec,
    value: object,
    where: str,
    on_cast: Callable[[InputSpec, np.dtype[Any]], None],
) -> NDArray[Any]:
    array = to_array(spec, value, where)
    if spec.dtype == object:
        if array.dtype.kind not in "OUS":
            raise _mismatch(spec, array, where)
        array = array.astype(object)
    elif array.dtype != spec.dtype:
        if spec.dtype.kind == "f" and array.dtype.kind == "f":
            on_cast(spec, array.dtype)
        elif not loses_nothing(array.dtype, spec.dtype):
            raise _mismatch(spec, array, where)
        array = array.astype(spec.dtype)
    if spec.shape is not None:
        fits = array.ndim == len(spec.shape) and all(
            not isinstance(wanted, int) or wanted == size
            for wanted, size in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise _mismatch(spec, array, where)
    # The past of a first token has no length, which is no mistake.
    if array.size == 0 and not (array.shape[0] and _is_free(spec, array)):
        raise ValueError(
            f"Input {spec.name!r}: {where} is empty, with shape {array.shape}; the model expects "
            f"{spec}."
        )
    return array


def _is_free(spec: InputSpec, array: NDArray[Any]) -> bool:
    """Whether the model leaves open how long each empty axis of an array is, by a name."""
    return spec.shape is not None and all(
        size or isinstance(wanted, str)
        for wanted, size in zip(spec.shape, array.shape, strict=True)
    )


def _mismatch(spec: InputSpec, array: NDArray[Any], where: str) -> ValueError:
    return ValueError(
        f"Input {spec.name!r}: {where} is {array.dtype} of shape {array.shape}, but the model "
        f"expects {spec}.{cure_of_wide(array.dtype, spec.dtype)}"
        f"{cure_of_shape(spec.shape, array.shape)} Prepare the calibration data exactly as for "
        "inference; transform= (--transform) can do that."
    )
