"""How sensitive a model is to the quantization of each op, and which such scores a backend has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Self

    from optuna_quant.space.config import QuantConfig


class Sensitivity(Protocol):
    """Scores the ops of a configuration; any function of this form is one.

    Scores can be added: that of several ops together is about their sum, as it is with mean
    squared errors. They are finite and not negative; an op that the configuration has in FP32
    scores 0. The unit does not matter, but for scores in units of the variance of the model's
    outputs: the default strategy knows what loss to expect of those before it has seen any.
    """

    def __call__(self, config: QuantConfig, ops: Sequence[str], /) -> Mapping[str, float]:
        """A score for each op, in the option that it has: higher where that hurts more.

        Args:
            config:
                The configuration.
            ops:
                The names of the ops.
        """
        ...


@runtime_checkable
class HasKey(Protocol):
    """A sensitivity whose scores depend on more than the configuration and the signature."""

    @property
    def key(self) -> str:
        """Tells apart what changes the scores: a study keeps the scores of each key.

        The options; and the samples that are scored with, unless they are in the backend's
        signature (:class:`~optuna_quant.backends.base.HasSignature`). Otherwise scores with
        earlier samples are taken for those with new ones.
        """
        ...


@runtime_checkable
class ScoresTogether(Protocol):
    """A sensitivity that scores several configurations in one pass."""

    def score_options(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> Sequence[Mapping[str, float]]:
        """The scores of each configuration, as calling the sensitivity gives them."""
        ...


@runtime_checkable
class ScoresWeightsApart(Protocol):
    """A sensitivity that tells which part of each op's error comes from its weights."""

    def score_with_weights(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> tuple[Sequence[Mapping[str, float]], Mapping[str, float]]:
        """The scores of each configuration, and how much of it comes from weights.

        Returns:
            The scores; and by op the part of its score in the first configuration that comes from
            its weight and not from its activations, from 0 to 1. What is not known is missing.
        """
        ...

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        """How many samples that runs through models, see :class:`CountsPasses`."""
        ...


@runtime_checkable
class CountsPasses(Protocol):
    """A sensitivity that tells what it costs, for the count of evaluations in a result."""

    def passes(self, configs: int) -> float:
        """How many samples are run through models to score this number of configurations."""
        ...


@runtime_checkable
class TakesSamples(Protocol):
    """A sensitivity that can be computed from fewer samples."""

    def with_samples(self, samples: int) -> Self:
        """The same sensitivity with at most this number of samples."""
        ...


@runtime_checkable
class TakesBatches(Protocol):
    """A sensitivity that can be computed from another number of batches."""

    def with_batches(self, batches: int) -> Self:
        """The same sensitivity with this number of batches."""
        ...


class SensitivityKind(StrEnum):
    """What the scores of a sensitivity mean; strategies ask for a kind."""

    BEST = "best"
    """The best that the backend has here, for strategies that can do without as well: ``auto``,
    ``surrogate`` and ``pareto``."""

    OP_ERROR = "op_error"
    """The error that quantization brings to each op's own output; for ``mse``."""

    OUTPUT_ERROR = "output_error"
    """How far the quantization of each op moves the model's outputs; for ``mse_v2``."""

    CURVATURE = "curvature"
    """The curvature of a loss in each op's weight, times what quantization does to the weight;
    for ``hawq_v2``."""


@dataclass(frozen=True)
class SensitivityFactory:
    """Makes a sensitivity of one kind.

    Args:
        make:
            Makes it. Gets ``outputs=``, the names of the model's outputs that count (None for
            all), and those of ``options`` that the user gives. It may give :obj:`None` if there
            is nothing to score with, which is allowed for :attr:`SensitivityKind.BEST` only.
        options:
            The names of the options that a user may give (``strategy_kwargs``).
    """

    make: Callable[..., Sensitivity | None]
    options: tuple[str, ...] = ()

    def __call__(self, *, outputs: Sequence[str] | None, **options: Any) -> Sensitivity | None:
        """The sensitivity.

        Args:
            outputs:
                The names of the outputs that count; None for all.
            **options:
                Those of :attr:`options` that are given.

        Raises:
            ValueError:
                If there are no data to score with, or an option is not valid.
        """
        return self.make(outputs=outputs, **options)


@runtime_checkable
class OffersSensitivities(Protocol):
    """A backend that can score ops, so that a search need not find out op by op."""

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        """How to make each kind of sensitivity that the backend has; nothing is computed yet."""
        ...
