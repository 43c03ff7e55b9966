"""Calibration data that are given as a whole, cut into batches that fit the model."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.calibration.feeds import check_names
from optuna_quant.backends.calibration.feeds import to_array


if TYPE_CHECKING:
    from typing import Any

    from optuna_quant.data.inputs import InputSpec


def batches_of_set(
    data: Mapping[Any, Any],
    inputs: Sequence[InputSpec],
    batch_size: int,
    *,
    check: Callable[[object, str], object],
    on_others: Callable[[Iterable[str]], None],
) -> Callable[[], Iterable[object]]:
    """A function that gives the batches of a set, as often as it is called.

    Args:
        data:
            An array of the whole set for each input, by name, samples along the first axis.
        inputs:
            The inputs of the model.
        batch_size:
            How many samples are in a batch, where the model has no fixed batch size.
        check:
            Refuses a batch that does not fit the model; the second argument says where it is from.
        on_others:
            Called with the names that are no inputs.

    Raises:
        ValueError:
            If the arrays do not fit the model or each other.
    """
    where = "the calibration data"
    check_names(data, inputs, where, on_others=on_others)
    arrays = {spec.name: to_array(spec, data[spec.name], where) for spec in inputs}
    axes = [spec for spec in inputs if spec.shape is not None]
    is_whole = bool(axes) and all(
        _fits(spec.shape, arrays[spec.name].shape[1:]) for spec in inputs
    )
    if is_whole and all(array.shape[1:2] == (1,) for array in arrays.values()):
        # Samples with an axis of one sample each.
        arrays, is_whole = {name: array[:, 0] for name, array in arrays.items()}, False
    for spec in inputs:
        if arrays[spec.name].ndim == 0:
            raise ValueError(
                f"Input {spec.name!r}: {where} has a scalar, but an array with the samples "
                f"along its first axis is needed (expected: {spec})."
            )
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"The inputs have different numbers of samples: {lengths}. If not every input has "
            "its samples along the first axis, pass a list of batches (dicts) instead."
        )
    samples = lengths[inputs[0].name]
    if samples == 0:
        raise ValueError("The calibration data are empty: they hold 0 samples.")
    if is_whole:
        check({name: array[0] for name, array in arrays.items()}, where)
        return lambda: ({name: array[i] for name, array in arrays.items()} for i in range(samples))
    fixed = {
        spec.name: spec.shape[0]
        for spec in inputs
        if spec.shape and isinstance(spec.shape[0], int)
    }
    if len(set(fixed.values())) > 1:
        raise ValueError(
            f"The model's inputs have different fixed batch sizes, {fixed}, so the set cannot "
            "be cut into batches: pass a list of batches (dicts) instead."
        )
    size = next(iter(fixed.values()), batch_size)
    if fixed:
        if samples < size:
            raise ValueError(
                f"The model has the fixed batch size {size}, but there are only {samples} "
                "calibration samples."
            )
        if samples % size:
            warn_user(
                f"The model has the fixed batch size {size}: the last {samples % size} of "
                f"{samples} calibration samples are left out."
            )
            samples -= samples % size
    starts = range(0, samples, size)
    # Checking one batch tells at once, before any work, what is wrong with all of them.
    part = where if samples <= size else f"{where} (the first {size} of {samples} samples)"
    check({name: array[:size] for name, array in arrays.items()}, part)
    return lambda: ({name: array[i : i + size] for name, array in arrays.items()} for i in starts)


def _fits(wanted: tuple[int | str | None, ...] | None, shape: tuple[int, ...]) -> bool:
    return wanted is None or (
        len(wanted) == len(shape)
        and all(
            not isinstance(size, int) or size == have
            for size, have in zip(wanted, shape, strict=True)
        )
    )
