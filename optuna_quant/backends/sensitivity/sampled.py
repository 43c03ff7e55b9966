"""What sensitivities have in common that score all ops in one pass over some samples."""

from __future__ import annotations

import abc
from copy import copy
from typing import TYPE_CHECKING

from optuna_quant._common.counts import check_positive


if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from optuna_quant.space.config import QuantConfig


# What part weights have in an op's error is told on this part of the samples, of the ops that make
# up more than this part of all error.
_SAMPLES_OF_WEIGHTS = 0.15
_LEAST_PART = 0.005


class SampledSensitivity(abc.ABC):
    """Scores ops on samples, in several options each.

    Args:
        samples:
            How many samples are used, from the start of the data.
        probes:
            How many backward passes go through the model for each batch.

    Raises:
        ValueError:
            If ``samples`` is not a positive number.
    """

    def __init__(self, *, samples: int, probes: int = 0) -> None:
        check_positive("samples", samples)
        self._samples = samples
        self._probes = probes
        self.key = f"samples={samples}"

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """Score ops of a configuration.

        Args:
            config:
                The configuration.
            ops:
                Their names.

        Raises:
            ValueError:
                If an op is not in the configuration.
        """
        return self.score_options([config], ops)[0]

    @abc.abstractmethod
    def score_options(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> list[dict[str, float]]:
        """Score ops in several options each: one configuration after the other.

        Args:
            configs:
                The configurations.
            ops:
                The names of the ops.

        Returns:
            The scores of each configuration, as calling this object gives them.

        Raises:
            ValueError:
                If an op is not in a configuration.
        """

    def score_with_weights(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Score ops in several options each, and find how much of it comes from their weights.

        That is the score where only what is constant is quantized and the activations are not,
        over that where all is, both on a few of the samples.

        Args:
            configs:
                The configurations.
            ops:
                The names of the ops.

        Returns:
            The scores of each configuration; and, for the ops that matter of those that the first
            one has in static mode, the part of their error that comes from their weights, from 0
            to 1. An op for which this cannot be determined is missing.

        Raises:
            ValueError:
                If an op is not in a configuration.
        """
        scores = self.score_options(configs, ops)
        first, config = scores[0], configs[0]
        least = _LEAST_PART * sum(first.values())
        chosen = [
            op for op, score in first.items() if config.ops[op].mode == "static" and score > least
        ]
        if not chosen:
            return scores, {}
        return scores, self.with_samples(self._samples_of_weights)._parts_of_weights(
            config, chosen
        )

    @abc.abstractmethod
    def _parts_of_weights(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """The part of the error of ops in static mode that comes from their weights."""

    @property
    def _samples_of_weights(self) -> int:
        return max(1, round(_SAMPLES_OF_WEIGHTS * self._samples))

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        """How many samples are run through models to score this number of configurations.

        A backward pass counts as one.

        Args:
            configs:
                The number of configurations.
            with_weights:
                Whether the part that comes from the weights is found as well.
        """
        more = self._samples_of_weights if with_weights else 0
        gradients = (self._samples + more) * (1 + self._probes) if self._probes else 0
        return float(self._samples * configs + more + gradients)

    def with_samples(self, samples: int) -> Self:
        """The same sensitivity with at most this number of samples, and one probe.

        For the same number of passes, more samples say more than more probes.
        """
        found = copy(self)
        found._probes = min(self._probes, 1)
        found._samples = min(self._samples, samples)
        return found
