"""Data for a loss: batches of model inputs, with labels and whatever else the loss reads."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import BoundInputs
from optuna_quant.data.constant_inputs import cure_of_missing


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.inputs import InputSpec

    Batch: TypeAlias = dict[str, NDArray[Any]]


LABELS = "labels"


def read_batches(
    data: object,
    inputs: Sequence[InputSpec],
    *,
    labels: object = None,
    max_samples: int,
    batch_size: int,
    constants: BoundInputs = NO_INPUTS,
) -> list[Batch]:
    """Read the first samples of data.

    A sample is one entry of the first axis of the model's first input. Batches are cut where the
    first axis of every input is dynamic and every array is of the same length.

    Args:
        data:
            A dict of arrays that hold the whole set, samples along the first axis; or an iterable
            over batches, each a dict of arrays. Arrays beside the model's inputs are kept.
        inputs:
            The model's inputs.
        labels:
            Labels of the samples, in their order; they become the array ``"labels"`` of a batch.
        max_samples:
            How many samples are read. Rounded up where a batch cannot be cut.
        batch_size:
            The most samples of a batch that can be cut.
        constants:
            Inputs that are the same for all samples; they are added to each batch.

    Raises:
        TypeError:
            If ``data`` is neither, or an array holds something else than numbers.
        ValueError:
            If an input is missing or does not fit the model, there are too few labels, or
            there is no sample.
    """
    found: list[Batch] = []
    seen = 0
    targets = None if labels is None else np.asarray(labels)
    inputs = constants.varying(inputs)
    if isinstance(data, Mapping):
        data = {name: value for name, value in data.items() if name not in constants.values}
    for number, raw in enumerate(_batches(data, inputs, batch_size)):
        if isinstance(raw, Mapping):
            raw = {name: value for name, value in raw.items() if name not in constants.values}
        batch = _checked(raw, inputs, f"batch {number} of the data")
        samples = count_samples(batch, inputs)
        if targets is not None:
            batch = _labelled(batch, targets, seen, samples)
        for part in _cut(batch, inputs, samples, batch_size):
            if seen < max_samples:
                left = max_samples - seen
                part = next(_cut(part, inputs, count_samples(part, inputs), left))
                found.append(part)
                samples = count_samples(part, inputs)
                found[-1] = {**part, **constants.feed(samples)}
                seen += samples
        if seen >= max_samples:
            break
    if seen == 0:
        raise ValueError("The data for the loss are empty: there is no sample.")
    return found


def count_samples(batch: Mapping[str, NDArray[Any]], inputs: Sequence[InputSpec]) -> int:
    """How many samples a batch has; one if its first input is a scalar."""
    first = batch[inputs[0].name]
    return int(first.shape[0]) if first.ndim else 1


def _batches(data: object, inputs: Sequence[InputSpec], batch_size: int) -> Iterable[object]:
    if isinstance(data, Mapping):
        whole = {name: np.asarray(array) for name, array in data.items()}
        _check_names(whole, inputs, "the data")
        fixed = [s.shape[0] for s in inputs if s.shape and isinstance(s.shape[0], int)]
        size = int(fixed[0]) if fixed else batch_size
        lengths = {array.shape[0] if array.ndim else -1 for array in whole.values()}
        if len(lengths) != 1:
            sizes = {name: array.shape for name, array in whole.items()}
            raise ValueError(
                f"The data for the loss have arrays of different lengths, {sizes}: pass an "
                "iterable over batches (dicts) if not all have the samples along their first axis."
            )
        length = lengths.pop()
        stop = length - length % size if fixed else length
        return (
            {name: array[i : i + size] for name, array in whole.items()}
            for i in range(0, stop, size)
        )
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return data
    raise TypeError(
        f"The data for the loss are of type {type(data).__name__}; pass a dict of arrays, or an "
        "iterable over batches (dicts of arrays)."
    )


def _checked(raw: object, inputs: Sequence[InputSpec], where: str) -> Batch:
    if not isinstance(raw, Mapping):
        raise TypeError(
            f"{where} is of type {type(raw).__name__}; pass a dict with an array for each of the "
            f"inputs {[spec.name for spec in inputs]}."
        )
    batch = {str(name): np.asarray(value) for name, value in raw.items()}
    _check_names(batch, inputs, where)
    for spec in inputs:
        array = batch[spec.name]
        fits = spec.shape is None or len(array.shape) == len(spec.shape)
        if spec.shape is not None and fits:
            pairs = zip(spec.shape, array.shape, strict=True)
            fits = all(not isinstance(want, int) or want == size for want, size in pairs)
        if not fits or (array.dtype.kind == "f") != (spec.dtype.kind == "f"):
            raise ValueError(
                f"Input {spec.name!r}: {where} has {array.dtype} of shape {array.shape}, but the "
                f"model expects {spec}."
            )
    for name, array in batch.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name!r} in {where} must hold numbers, but is of {array.dtype}.")
    return batch


def _check_names(batch: Batch, inputs: Sequence[InputSpec], where: str) -> None:
    for spec in inputs:
        if spec.name not in batch:
            raise ValueError(
                f"Input {spec.name!r} is missing in {where}: there are arrays for {list(batch)}."
                f"{cure_of_missing(spec.name, [each.name for each in inputs])}"
            )


def _labelled(batch: Batch, labels: NDArray[Any], start: int, samples: int) -> Batch:
    if LABELS in batch:
        raise ValueError(f"The data hold {LABELS!r} already, so leave out labels=.")
    if labels.ndim == 0 or len(labels) < start + samples:
        raise ValueError(
            f"There are {labels.shape[0] if labels.ndim else 0} labels, but at least "
            f"{start + samples} samples."
        )
    return {**batch, LABELS: labels[start : start + samples]}


def _cut(batch: Batch, inputs: Sequence[InputSpec], samples: int, size: int) -> Iterator[Batch]:
    """The batch in parts of a size, or as it is if it cannot be cut."""
    dynamic = not any(spec.shape and isinstance(spec.shape[0], int) for spec in inputs)
    lengths = {array.shape[0] if array.ndim else -1 for array in batch.values()}
    if samples <= size or not dynamic or lengths != {samples}:
        yield batch
        return
    for start in range(0, samples, size):
        yield {name: array[start : start + size] for name, array in batch.items()}
