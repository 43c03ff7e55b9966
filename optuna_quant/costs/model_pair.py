"""Two models that are run on the same inputs, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import TypeAlias

import numpy as np

from optuna_quant.backends.base import HasOptionalInputs
from optuna_quant.costs.comparison import RANDOM_INPUTS
from optuna_quant.costs.comparison import OutputAgreement
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.data.random_inputs import random_feed


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.base import Model
    from optuna_quant.backends.base import RunnableModel
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.data.sample_runs import Rows


Preview: TypeAlias = "Callable[[RunnableModel, int], Sequence[Mapping[str, Rows]]]"
"""Gives so many samples of labelled data for a model: its inputs, in batches."""


@dataclass(frozen=True, eq=False)
class FeedOf:
    """Inputs of a run.

    Args:
        feed:
            An array for each input.
        samples:
            How many samples these are.
    """

    feed: Feed
    samples: int


class Pair(Protocol):
    """Two models with the same inputs, and what to run them on."""

    @property
    def models(self) -> Sequence[RunnableModel]:
        """The models."""
        ...

    @property
    def nbytes(self) -> Sequence[int]:
        """The size of each."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """What they are called."""
        ...

    def runs(self, feed: Feed) -> Sequence[Callable[[], object]]:
        """A run of each."""
        ...

    def feeds(
        self,
        *,
        calibration_data: object,
        preview: Preview | None,
        inputs: InputValues | None,
        transform: Transform | None,
        batch: int,
        samples: int,
        seed: int,
    ) -> tuple[list[FeedOf], str]:
        """What to run the models on: at least one feed, and where they come from."""
        ...

    def agreement(self, feeds: Sequence[Feed]) -> tuple[OutputAgreement, ...]:
        """How far the outputs agree on some inputs."""
        ...


class BuiltPair:
    """Two models that backends have built, with the same inputs.

    Args:
        first:
            The first model.
        second:
            The second one.

    Attributes:
        models:
            The models.
        nbytes:
            The size of each.
        names:
            What they are called.

    Raises:
        ValueError:
            If the inputs differ.
    """

    names = ("the first model", "the second model")

    def __init__(self, first: Model, second: Model) -> None:
        self.models = (first, second)
        self.nbytes = (first.nbytes, second.nbytes)
        check_same_inputs([model.inputs for model in self.models], self.names)

    def runs(self, feed: Feed) -> list[Callable[[], object]]:
        """A run of each."""
        return [partial(model.run, feed) for model in self.models]

    def feeds(
        self,
        *,
        calibration_data: object = None,
        preview: Preview | None,
        inputs: InputValues | None,
        transform: Transform | None = None,
        batch: int,
        samples: int,
        seed: int,
    ) -> tuple[list[FeedOf], str]:
        """What to run the models on.

        Args:
            calibration_data:
                None: there are no other data.
            preview:
                Gives a few samples of labelled data for a model; None if there are none.
            inputs:
                Inputs that are the same for all samples.
            transform:
                Not used: what the preview gives are inputs.
            batch:
                How many samples a run has, unless the models say it.
            samples:
                How many are enough.
            seed:
                Of random inputs.

        Returns:
            At least one feed, and where they come from.

        Raises:
            ValueError:
                If the constant inputs do not fit, or random inputs cannot be made.
        """
        model = self.models[0]
        specs = list(model.inputs)
        optional = list(model.optional_inputs) if isinstance(model, HasOptionalInputs) else []
        bound = ConstantInputs(inputs).bind(specs, optional)
        fixed = [spec.shape[0] for spec in specs if spec.shape]
        batch = next((size for size in fixed if isinstance(size, int)), batch)
        found = [] if preview is None else preview(model, max(batch, samples))
        if not found:
            random = random_feed(bound.varying(specs), batch, seed)
            return [FeedOf({**random, **bound.feed(batch)}, batch)], RANDOM_INPUTS
        rows, feeds = found[0], []
        count = min(len(values) for values in rows.values())
        if any(isinstance(values, list) for values in rows.values()):
            batch = 1  # Samples of several shapes do not go into one array.
        for start in range(0, max(count - batch, 0) + 1, batch):
            piece = {
                name: np.asarray(values[start : start + batch]) for name, values in rows.items()
            }
            size = min(batch, count)
            feeds.append(FeedOf({**piece, **bound.feed(size)}, size))
        return feeds, "evaluation data"

    def agreement(self, feeds: Sequence[Feed]) -> tuple[OutputAgreement, ...]:
        """How far the outputs agree on some inputs, see :func:`agreement`."""
        return agreement(self.models, feeds)


def check_same_inputs(specs: Sequence[Sequence[InputSpec]], names: Sequence[str]) -> None:
    """Refuse two models with different inputs.

    Args:
        specs:
            The inputs of each.
        names:
            What the models are called.

    Raises:
        ValueError:
            Naming the first input that differs.
    """
    first, second = ({spec.name: spec for spec in each} for each in specs)
    for name in {**first, **second}:
        if name not in first or name not in second:
            have, lack = names if name in first else (names[1], names[0])
            raise ValueError(
                f"The models have different inputs: only {have} has {name!r}; the inputs of "
                f"{lack} are {list(second if name in first else first)}."
            )
        a, b = first[name], second[name]
        shapes_differ = (
            a.shape is not None
            and b.shape is not None
            and (
                len(a.shape) != len(b.shape)
                or any(
                    isinstance(x, int) and isinstance(y, int) and x != y
                    for x, y in zip(a.shape, b.shape, strict=True)
                )
            )
        )
        if a.dtype != b.dtype or shapes_differ:
            raise ValueError(
                f"The models have different inputs: {name!r} is {a} in {names[0]} and {b} in "
                f"{names[1]}."
            )


def agreement(
    models: Sequence[RunnableModel], feeds: Sequence[Feed]
) -> tuple[OutputAgreement, ...]:
    """How far the outputs of two models agree on some inputs.

    Outputs are the same by name, or by position where no name is in both models.

    Args:
        models:
            The models.
        feeds:
            The inputs.
    """
    names = [model.outputs for model in models]
    pairs = [(name, name) for name in names[0] if name in names[1]]
    pairs = pairs or list(zip(*names, strict=False))
    found: dict[str, list[_Difference]] = {}
    for feed in feeds:
        a, b = (model.run(feed, [pair[i] for pair in pairs]) for i, model in enumerate(models))
        for (name, _), x, y in zip(pairs, a, b, strict=True):
            found.setdefault(name, []).append(_difference(x, y))
    return tuple(_agreement(name, parts) for name, parts in found.items())


@dataclass(frozen=True)
class _Difference:
    """Sums over the values of an output: its own squares, those of the difference, classes."""

    comparable: bool
    squares: float = 0.0
    difference: float = 0.0
    positions: int = 0
    same: int = 0


def _difference(x: NDArray[Any], y: NDArray[Any]) -> _Difference:
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape or x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        return _Difference(False)
    a, b = x.astype(np.float64), y.astype(np.float64)
    positions = same = 0
    if x.dtype.kind != "f":
        positions, same = x.size, int(np.sum(x == y))
    elif x.ndim >= 2 and x.shape[_class_axis(x)] >= 2:
        axis = _class_axis(x)
        equal = a.argmax(axis) == b.argmax(axis)
        positions, same = equal.size, int(equal.sum())
    return _Difference(True, float((a**2).sum()), float(((a - b) ** 2).sum()), positions, same)


def _class_axis(output: NDArray[Any]) -> int:
    """The axis of the classes: the last one, or the second one of images."""
    return 1 if output.ndim >= 4 and output.shape[1] <= output.shape[-1] else -1


def _agreement(name: str, parts: Sequence[_Difference]) -> OutputAgreement:
    if not all(part.comparable for part in parts):
        return OutputAgreement(name, None, None)
    squares = sum(part.squares for part in parts)
    difference = sum(part.difference for part in parts)
    error = float(np.sqrt(difference / squares)) if squares > 0 else float(difference > 0)
    positions = sum(part.positions for part in parts)
    same = sum(part.same for part in parts)
    return OutputAgreement(name, error, same / positions if positions else None)
