"""What the backend offers about costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.topic import BackendTopic


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.costs.measure import CostSource
    from optuna_quant.costs import Costs
    from optuna_quant.space.space import TuningSpace


class CostingBackend(BackendTopic):
    """Measures and counts what configurations cost."""

    def costs(
        self,
        space: TuningSpace,
        *,
        seed: int = 0,
        seconds: float = 3.0,
        checks: int = 6,
        data: object = None,
    ) -> Costs:
        """What the configurations of a tuning space cost on this machine.

        The latency is measured: the runtime's own profiles of a few models (the original one, one
        in which everything is quantized for each way that differs in cost, and mixtures) say how
        long each op and what is between ops takes, and random models that are measured as wholes
        say how well that predicts. Calibrates if need be. Threads, providers and options are those
        of all sessions.

        Args:
            space:
                The tuning space.
            seed:
                Of the configurations that are measured.
            seconds:
                How long models may run in total, in seconds; building and loading them is extra.
            checks:
                How many models the predictions are compared with; 0 for none.
            data:
                What the models are run on: the first ``latency_batch_size`` samples of it, or the
                first batch where samples cannot be taken apart, in any form of
                ``calibration_data``, which it is by default.

        Returns:
            The tables ``"latency"`` (seconds of one run), ``"size"`` (bytes), ``"multiply_adds"``
            (those in floats) and ``"bit_operations"`` (multiply-adds times the bits of both
            factors), the latter two for one sample. Without a latency where models are only
            simulated for their target.

        Raises:
            ValueError:
                If there are no data, or the model cannot be loaded.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import measure_costs

        if self._parts.target.is_simulated:
            return self.counted_costs(space, seed=seed, data=data)
        source = self._cost_source(data, calibrate=True)
        return measure_costs(source, space, seed=seed, seconds=seconds, checks=checks)

    def counted_costs(self, space: TuningSpace, *, seed: int = 0, data: object = None) -> Costs:
        """The part of :meth:`costs` that is counted and not measured: size and operations.

        The arguments and errors are those of :meth:`costs`.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import count_costs

        return count_costs(self._cost_source(data, calibrate=True), space, seed=seed)

    def cost_conditions(self, *, data: object = None) -> Mapping[str, str]:
        """Under which conditions :meth:`costs` would measure here: machine, threads, batch."""
        from optuna_quant.backends.onnxruntime.costs.measure import conditions

        return conditions(self._cost_source(data))

    def latency_feed(self) -> tuple[int, Feed] | None:
        """The calibration samples that models are run on where their time is measured.

        Returns:
            How many they are, ``latency_batch_size`` or more where samples cannot be taken apart,
            and an array for each input; :obj:`None` without calibration data.
        """
        return self._parts.samples.latency_feed()

    def _cost_source(self, data: object, *, calibrate: bool = False) -> CostSource:
        with self._lock:
            if calibrate:
                self._parts.calibrate()
            return self._parts.cost_source(self.quantize, data, self._lock)
