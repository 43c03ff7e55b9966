"""The calibration as candidates need it: for which tensors, when, and shared between workers."""

from __future__ import annotations

from functools import cached_property
from functools import partial
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.weight_only.ops import needs_inputs


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
    from optuna_quant.backends.onnxruntime.calibration.statistics import StatisticsSource
    from optuna_quant.backends.onnxruntime.offered_ops import OfferedOps
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import FindMeans
    from optuna_quant.backends.onnxruntime.static.static import FindParams
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


class CandidateRanges:
    """Calibrates for all candidates that are likely, and gives each its parameters.

    It has no lock of its own: one thread at a time may use it.

    Args:
        statistics:
            Collects the statistics; None without calibration data.
        sizes:
            The sampling sizes that candidates may ask for; None among them stands for all samples.
        builder:
            Says which tensors an op needs the ranges of.
        offered:
            Says what can be done with each op: those quantized by default are likely.
    """

    def __init__(
        self,
        statistics: StatisticsSource | None,
        sizes: Sequence[int | None],
        builder: CandidateBuilder,
        offered: OfferedOps,
    ) -> None:
        self._statistics = statistics
        self._sizes = list(sizes)
        self._builder = builder
        self._offered = offered
        self._of_spaces: set[str] = set()

    def expect(self, space: TuningSpace) -> None:
        """From now on calibrate for the ops of this tuning space as well."""
        self._of_spaces |= self._builder.tensors(
            op
            for tunable in space.tunables
            if any(option.mode == "static" for option in tunable.options)
            for op in tunable.ops
        )
        self._builder.expect_inputs(
            op
            for tunable in space.tunables
            if any(needs_inputs(option) for option in tunable.options)
            for op in tunable.ops
        )

    @property
    def expected(self) -> tuple[set[str], list[int | None]]:
        """The tensors whose statistics candidates are likely to need, and the sampling sizes."""
        return {*self._default_tensors, *self._of_spaces}, self._sizes

    @cached_property
    def _default_tensors(self) -> frozenset[str]:
        static = [
            op.name
            for op in self._offered.capability.ops
            if op.default and any(option.mode == "static" for option in op.options)
        ]
        return frozenset(self._builder.tensors(static))

    def collect(self) -> None:
        """Collect what is expected, in one pass over the data."""
        if self._statistics is not None:
            self._statistics.collect(*self.expected)
            self._statistics.check_any(*self.expected)

    def is_collected(self) -> bool:
        """Whether :meth:`collect` has nothing to compute."""
        return self._statistics is None or self._statistics.load(*self.expected)

    def key(self) -> str:
        """A hash of all that what is expected depends on."""
        return self._existing.key(*self.expected)

    def dump(self) -> bytes:
        """What :meth:`collect` has collected, for :meth:`restore`."""
        return self._existing.dump(*self.expected)

    def restore(self, data: bytes) -> None:
        """Take what :meth:`dump` has given for the same :meth:`key`.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another model or other data.
        """
        self._existing.restore(data, *self.expected)

    def expect_means(self) -> None:
        """From now on collect the means of ops' inputs in the same pass."""
        if self._statistics is not None:
            self._statistics.expect_means(self._builder.bias_inputs)

    def means_for(self, config: QuantConfig) -> FindMeans:
        """How to find the means of ops' inputs for a configuration; calibrates if need be.

        Raises:
            ValueError:
                If there are no calibration data.
        """
        if self._statistics is None:
            raise ValueError(
                "Recipe 'fast_bias_correction' needs calibration_data, but the backend has none."
            )
        self.expect_means()
        self.params_for(config)
        return partial(self._statistics.mean, size=config.calibration_size)

    def params_for(self, config: QuantConfig) -> FindParams:
        """How to find the parameters for a configuration; calibrates if need be."""
        size = config.calibration_size
        tensors = self._builder.tensors_of(config)
        if tensors:
            if self._statistics is None:
                raise ValueError(
                    "An op in static mode needs calibration_data, but the backend has none."
                )
            expected, sizes = self.expected
            if not self._statistics.has(tensors, size):
                # In one pass with what other candidates are likely to need.
                self._statistics.collect(tensors | expected, dict.fromkeys([size, *sizes]))
            self._statistics.check_any(tensors | expected, [size])
        return lambda tensor, tensor_config: self._existing.params(tensor, tensor_config, size)

    @property
    def _existing(self) -> StatisticsSource:
        if self._statistics is None:
            raise ValueError("The backend has no calibration_data, so there are no statistics.")
        return self._statistics
