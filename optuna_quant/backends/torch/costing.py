"""What the backend offers about costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.torch.costs.count import CostSource
from optuna_quant.backends.torch.costs.count import conditions
from optuna_quant.backends.torch.costs.count import count_costs
from optuna_quant.backends.torch.costs.count import measure_costs
from optuna_quant.backends.torch.topic import BackendTopic


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.costs import Costs
    from optuna_quant.space.space import TuningSpace


class CostingBackend(BackendTopic):
    """Measures and counts what configurations cost."""

    def costs(
        self,
        space: TuningSpace,
        *,
        seconds: float = 3.0,
        data: object = None,
    ) -> Costs:
        """What the configurations of a tuning space cost on this machine.

        The latency is measured on one program for each form that ops can have, compiled where
        there is a C++ compiler: see
        :func:`~optuna_quant.backends.torch.costs.latency.latency_table`. Calibrates if need be.

        Args:
            space:
                The tuning space.
            seconds:
                How long programs may run in total, in seconds; compiling them is extra.
            data:
                What programs are run on, as for :meth:`counted_costs`.

        Returns:
            The table ``"latency"`` (seconds of one run), if there are data, and those of
            :meth:`counted_costs`.
        """
        return measure_costs(self._cost_source(data), space, self.untrained, seconds=seconds)

    def counted_costs(self, space: TuningSpace, *, data: object = None) -> Costs:
        """What the configurations of a tuning space cost, as far as it is counted.

        Args:
            space:
                The tuning space.
            data:
                What the model is run on once: the first ``latency_batch_size`` samples of it, or
                the first batch where samples cannot be taken apart, in any form of
                ``calibration_data``, which it is by default.

        Returns:
            The tables ``"size"`` (bytes of weights as they are saved), ``"multiply_adds"`` (those
            in floats) and ``"bit_operations"`` (multiply-adds times the bits of both factors), the
            latter two for one sample, and only if there are data.
        """
        return count_costs(self._cost_source(data), space)

    def cost_conditions(self, *, data: object = None) -> Mapping[str, str]:
        """Under which conditions costs hold here: machine, threads, batch."""
        return conditions(self._cost_source(data))

    def latency_feed(self) -> tuple[int, Feed] | None:
        """The calibration samples that models are run on where their time is measured.

        Returns:
            How many they are, ``latency_batch_size`` or more where samples cannot be taken apart,
            and an array for each input; :obj:`None` without calibration data.
        """
        return self._parts.samples.latency_feed()

    def _cost_source(self, data: object) -> CostSource:
        with self._lock:
            samples = self._parts.samples
            piece = None
            if data is not None or samples.calibration is not None:
                piece = samples.to_time(data, "Counting costs")
            return CostSource(self._parts.program, self._parts.float_bytes, piece)
