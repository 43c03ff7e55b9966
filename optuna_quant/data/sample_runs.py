"""Running a model on samples, whatever their shapes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import BoundInputs
from optuna_quant.data.constant_inputs import Spec


if TYPE_CHECKING:
    from numpy.typing import NDArray


Rows: TypeAlias = "NDArray[Any] | list[Any]"
"""Something of each sample: along the first axis of an array, or one by one in a list."""

Outputs: TypeAlias = "Rows | tuple[Rows, ...]"
"""An output for each sample, or of each of several outputs of the model."""


@dataclass(frozen=True, kw_only=True)
class SampleRunner:
    """Runs a model on samples.

    Samples of one shape are run together. A sample that has all axes of the model's inputs (there
    is no axis of samples in it that could be added) is run by itself.

    Args:
        run:
            Runs the model: gets an array for each input and the names of outputs, and gives an
            array for each of them.
        outputs:
            The names of the outputs to compute.
        inputs:
            The inputs that the samples have, with the sizes of their axes but for the first.
        constants:
            The others.
        fixed:
            The number of samples of a run, if the model has one.
        one_by_one:
            Whether each sample is run by itself, and what the run gives is kept as it is.
    """

    run: Callable[[Mapping[str, Any], Sequence[str]], Sequence[Any]]
    outputs: Sequence[str]
    inputs: Sequence[Spec]
    constants: BoundInputs = NO_INPUTS
    fixed: int | None = None
    one_by_one: bool = False

    def __call__(self, feed: Mapping[str, Rows], samples: int) -> Outputs:
        """The outputs for samples.

        Args:
            feed:
                The samples' inputs.
            samples:
                How many there are.

        Returns:
            The output, or a tuple of several, for each sample: an array with the samples along
            its first axis, or a list where their shapes differ. With ``one_by_one`` a list with
            what each run has given, an array or a tuple of several.

        Raises:
            ValueError:
                If an output does not have the samples along its first axis.
            RuntimeError:
                If the model fails, and constant inputs may be why.
        """
        if self.one_by_one:
            return [self._of_one(feed, i) for i in range(samples)]
        groups = self._groups(feed, samples)
        found: list[Rows]
        if len(groups) == 1:
            found = list(self._together(groups[0]))
        else:
            found = _in_order(groups, [self._together(group) for group in groups])
        return found[0] if len(found) == 1 else tuple(found)

    def _of_one(self, feed: Mapping[str, Rows], sample: int) -> Any:
        """What a run of one sample gives."""
        whole = self._is_whole(feed, sample)
        alone = {spec.name: np.asarray(feed[spec.name][sample]) for spec in self.inputs}
        if not whole:
            alone = {name: value[None] for name, value in alone.items()}
        found = self._run(alone, 1, whole=whole)
        if not whole and self.fixed not in (None, 1):
            found = [
                each[:1] if np.shape(each)[:1] == (self.fixed,) else each  # The rest is padding.
                for each in found
            ]
        return found[0] if len(found) == 1 else tuple(found)

    def _groups(self, feed: Mapping[str, Rows], samples: int) -> list[_Group]:
        """Samples that are run together."""
        if not any(isinstance(feed[spec.name], list) for spec in self.inputs):
            if not self._is_whole(feed, 0):
                arrays = {spec.name: np.asarray(feed[spec.name]) for spec in self.inputs}
                return [_Group(range(samples), arrays, is_whole=False)]
            return [self._whole(feed, i) for i in range(samples)]
        groups: list[_Group] = []
        same: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for i in range(samples):
            if self._is_whole(feed, i):
                groups.append(self._whole(feed, i))
            else:
                shapes = tuple(np.shape(feed[spec.name][i]) for spec in self.inputs)
                same.setdefault(shapes, []).append(i)
        for places in same.values():
            stacked = {
                spec.name: np.stack([np.asarray(feed[spec.name][i]) for i in places])
                for spec in self.inputs
            }
            groups.append(_Group(places, stacked, is_whole=False))
        return groups

    def _whole(self, feed: Mapping[str, Rows], sample: int) -> _Group:
        alone = {spec.name: np.asarray(feed[spec.name][sample]) for spec in self.inputs}
        return _Group([sample], alone, is_whole=True)

    def _is_whole(self, feed: Mapping[str, Rows], sample: int) -> bool:
        """Whether a sample has all axes of the model's inputs."""
        return any(
            spec.shape is not None and np.ndim(feed[spec.name][sample]) == len(spec.shape)
            for spec in self.inputs
        )

    def _together(self, group: _Group) -> list[NDArray[Any]]:
        """The outputs of a run, samples along the first axis."""
        count = len(group.positions)
        found = [np.asarray(each) for each in self._run(group.feed, count, whole=group.is_whole)]
        if group.is_whole:
            return [output[None] for output in found]
        size = count if self.fixed is None else self.fixed
        for name, output in zip(self.outputs, found, strict=True):
            if output.shape[:1] != (size,):
                raise ValueError(
                    f"The model's output {name!r} must have the samples along its first axis, "
                    f"but has the shape {output.shape} for {size} samples. If it has another "
                    "form, such as boxes or texts, use a metric with per_sample=True, which "
                    "gets the output for one sample at a time."
                )
        return [output[:count] for output in found]

    def _run(self, feed: Mapping[str, NDArray[Any]], count: int, *, whole: bool) -> list[Any]:
        given = dict(feed)
        if not whole and self.fixed is not None and count < self.fixed:
            given = {name: _padded(array, self.fixed) for name, array in feed.items()}
            count = self.fixed
        given |= self.constants.feed(1 if whole else count)
        try:
            found = self.run(given, list(self.outputs))
        except Exception as error:
            if count == 1 or self.constants.are_numbers:
                raise
            names = ", ".join(map(repr, self.constants.values))
            raise RuntimeError(
                f"The model fails on {count} samples at once: {error} The constant inputs "
                f"({names}) may fit a single sample only: try batch_size=1 (--batch-size 1)."
            ) from error
        return self._listed(found)

    def _listed(self, found: object) -> list[Any]:
        """What a run gives.

        Raises:
            TypeError:
                If it is no array for each output.
        """
        # An array could be taken apart along its first axis, and a mapping into names.
        given = type(found).__name__
        if isinstance(found, Iterable) and not isinstance(found, np.ndarray | Mapping):
            arrays = list(found)
            if len(arrays) == len(self.outputs):
                return arrays
            given += f" of {len(arrays)}"
        raise TypeError(
            f"{getattr(self.run, '__qualname__', 'run')}() must return a list with an array for "
            f"each output ({', '.join(self.outputs)}), but returned a {given}."
        )


@dataclass(frozen=True)
class _Group:
    """Samples that are run together, by their places among all; a whole one has no such axis."""

    positions: Sequence[int]
    feed: Mapping[str, NDArray[Any]]
    is_whole: bool


def _in_order(groups: Sequence[_Group], results: Sequence[list[NDArray[Any]]]) -> list[Rows]:
    """What groups have given, in the order of the samples."""
    joined: list[Rows] = []
    for output in range(len(results[0])):
        rows = {
            position: row
            for group, result in zip(groups, results, strict=True)
            for position, row in zip(group.positions, result[output], strict=True)
        }
        ordered = [np.asarray(rows[position]) for position in range(len(rows))]
        shapes = {row.shape for row in ordered}
        joined.append(np.stack(ordered) if len(shapes) == 1 else ordered)
    return joined


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with its last sample repeated; what the model gives for it is not used."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
