"""The parts of a backend, put together."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
from optuna_quant.backends.onnxruntime.calibration.candidate_ranges import CandidateRanges
from optuna_quant.backends.onnxruntime.calibration.statistics import StatisticsSource
from optuna_quant.backends.onnxruntime.candidates import Candidates
from optuna_quant.backends.onnxruntime.executed.refusals import describe_refusal
from optuna_quant.backends.onnxruntime.model.fp32 import FP32Model
from optuna_quant.backends.onnxruntime.offered_ops import OfferedOps
from optuna_quant.backends.onnxruntime.sensitivity.maker import SensitivityMaker
from optuna_quant.backends.onnxruntime.static.saturation import SaturationCheck
from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_quant.backends.onnxruntime.calibration.calibration import CalibrationCache
    from optuna_quant.backends.onnxruntime.calibration.samples import Samples
    from optuna_quant.backends.onnxruntime.costs.measure import CostSource
    from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
    from optuna_quant.backends.onnxruntime.targets.target import Target
    from optuna_quant.space.config import QuantConfig


class BackendParts:
    """What a backend consists of. Parts that need the model in normal form are made when needed.

    It has no lock of its own: one thread at a time may use it.

    Args:
        model:
            The user's model.
        samples:
            What it is run on.
        sessions:
            Makes its sessions.
        approach:
            The approach that the user asks for; None for what is usual for the model.
        reduce_range:
            Whether weights use 7 bits only.
        cache:
            Keeps calibration statistics on disk; None to keep them in memory only.
        target:
            What candidates are made for.
        half_storage:
            Whether weights that stay in floats are stored in float16.

    Attributes:
        model:
            As given.
        samples:
            As given.
        sessions:
            As given.
        reduce_range:
            As given, or as the target asks for.
        target:
            As given.
        half_storage:
            As given.
        fp32:
            Hands out the FP32 model.

    Raises:
        ValueError:
            If the runtime does not load the model.
    """

    def __init__(
        self,
        model: OpenedModel,
        samples: Samples,
        sessions: SessionMaker,
        *,
        approach: str | None,
        reduce_range: bool,
        cache: CalibrationCache | None,
        target: Target,
        half_storage: bool,
    ) -> None:
        self.model = model
        self.samples = samples
        self.sessions = sessions
        self.reduce_range = reduce_range or target.profile.reduce_range
        self.target = target
        self.half_storage = half_storage
        self._asked_approach = approach
        self._cache = cache
        self.fp32 = _loaded(model, sessions)

    @cached_property
    def builder(self) -> CandidateBuilder:
        """Builds candidates."""
        inputs = None
        if self.samples.calibration is not None:
            inputs = InputMomentsSource(
                self.model.graph, self.samples.calibration, self.sessions, self.samples.passes
            )
        return CandidateBuilder(
            self.model.graph,
            reduce_range=self.reduce_range,
            inputs=inputs,
            cache_dir=None if self._cache is None else self._cache.directory,
            profile=self.target.profile,
            half_storage=self.half_storage,
        )

    @cached_property
    def offered(self) -> OfferedOps:
        """What can be done with each op."""
        return OfferedOps(
            self.model,
            self.builder.static,
            self.builder.weight_only,
            approach=self._asked_approach,
            has_data=self.samples.calibration is not None,
            calibration_sizes=self.samples.sizes,
            target=self.target,
        )

    @cached_property
    def ranges(self) -> CandidateRanges:
        """Calibrates for candidates."""
        statistics = None
        if self.samples.calibration is not None:
            statistics = StatisticsSource(
                self.model.graph, self.samples.calibration, self.sessions, self._cache
            )
        return CandidateRanges(statistics, self.samples.passes, self.builder, self.offered)

    @cached_property
    def saturation(self) -> SaturationCheck:
        """Whether sums of 8-bit products saturate here."""
        # What is simulated is computed in floats.
        narrow = self.reduce_range or self.target.is_simulated
        return SaturationCheck(self.sessions, cannot_saturate=narrow)

    @cached_property
    def candidates(self) -> Candidates:
        """The models of configurations."""
        return Candidates(
            self.model,
            fp32=self.fp32,
            builder=self.builder,
            ranges=self.ranges,
            sessions=self.sessions,
            saturation=self.saturation,
        )

    def calibrate(self) -> None:
        """Collect the statistics that candidates are likely to need; nothing without data."""
        if self.samples.calibration is not None:
            self.fp32.release()
            self.ranges.collect()

    def sensitivity_maker(
        self, quantize: Callable[[QuantConfig], QuantizedModel]
    ) -> SensitivityMaker:
        """What makes the sensitivities of ops.

        Args:
            quantize:
                Gives the model of a configuration.
        """
        return SensitivityMaker(
            quantize,
            self.model.graph,
            self.model.nbytes,
            self.builder.static,
            self.samples,
            self.sessions,
        )

    def cost_source(
        self, quantize: Callable[[QuantConfig], QuantizedModel], data: object
    ) -> CostSource:
        """What costs are measured with.

        Args:
            quantize:
                Gives the model of a configuration.
            data:
                What models are run on; None for the calibration data.

        Raises:
            ValueError:
                If there are no data.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import CostSource

        piece = next(iter(self.samples.to_run_on(data, "Measuring costs").pieces([1])))
        return CostSource(
            graph=self.model.graph,
            original=self.model.proto,
            original_bytes=self.model.nbytes,
            base_dir=self.model.base_dir,
            sessions=self.sessions,
            build=lambda config: quantize(config).proto,
            feed=piece.feed,
            samples=piece.samples,
            target=None if self.target.is_usual else self.target.profile.name,
            is_simulated=self.target.is_simulated,
        )


def _loaded(model: OpenedModel, sessions: SessionMaker) -> FP32Model:
    try:
        session = sessions.make(model.compact, model.base_dir)
    except Exception as error:
        raise ValueError(describe_refusal(model.source, sessions, error)) from error
    return FP32Model(model, sessions, session)
