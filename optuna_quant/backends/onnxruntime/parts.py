"""The parts of a backend, put together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant._common.bounded_cache import CACHE_BYTES
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
from optuna_quant.backends.onnxruntime.calibration.statistics import StatisticsSource
from optuna_quant.backends.onnxruntime.candidate_ranges import CandidateRanges
from optuna_quant.backends.onnxruntime.candidates import Candidates
from optuna_quant.backends.onnxruntime.model.fp32 import FP32Model
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.offered_ops import OfferedOps
from optuna_quant.backends.onnxruntime.recipes.offered import OfferedRecipes
from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs
from optuna_quant.backends.onnxruntime.recipes.variant import Variant
from optuna_quant.backends.onnxruntime.recipes.variant_calibration import VariantCalibration
from optuna_quant.backends.onnxruntime.recipes.variants import MOST_VARIANTS
from optuna_quant.backends.onnxruntime.recipes.variants import Variants
from optuna_quant.backends.onnxruntime.recipes.variants import variant_key
from optuna_quant.backends.onnxruntime.refusals import describe_refusal
from optuna_quant.backends.onnxruntime.sensitivity.maker import SensitivityMaker
from optuna_quant.backends.onnxruntime.static.saturation import SaturationCheck
from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource
from optuna_quant.backends.onnxruntime.weight_only.kept_weights import KeptWeights
from optuna_quant.backends.onnxruntime.weight_only.ops import needs_inputs
from optuna_quant.backends.ranges.missing_ranges import MissingRanges
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import RLock

    from optuna_quant.backends.calibration.cache import CalibrationCache
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.calibration.samples import Samples
    from optuna_quant.backends.onnxruntime.costs.measure import CostSource
    from optuna_quant.backends.onnxruntime.costs.recipes import RecipeModels
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.recipes.request import RequestedRecipes
    from optuna_quant.backends.onnxruntime.sensitivity.mse import GraphOf
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.targets.target import Target


_logger = get_logger(__name__)


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
        float16_storage:
            Whether weights that stay in floats are stored in float16.
        recipes:
            The recipes that the user asks for.

    Attributes:
        model:
            As given.
        samples:
            As given.
        sessions:
            As given.
        reduce_range:
            As given.
        target:
            As given.
        float16_storage:
            As given.
        kept_weights:
            Keeps weights that take long to quantize.
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
        float16_storage: bool,
        recipes: RequestedRecipes,
    ) -> None:
        self.model = model
        self.samples = samples
        self.sessions = sessions
        self.reduce_range = reduce_range
        self.target = target
        self.float16_storage = float16_storage
        self._asked_approach = approach
        self._cache = cache
        self._requested_recipes = recipes
        self.kept_weights = KeptWeights(None if cache is None else cache.directory)
        self.fp32 = _loaded(model, sessions)
        self.missing_ranges = MissingRanges(_logger.warning)

    @cached_property
    def offered(self) -> OfferedOps:
        """What can be done with each op, and the recipes."""
        return OfferedOps(
            self.model,
            self._base_builder.static,
            self._base_builder.weight_only,
            approach=self._asked_approach,
            has_data=self.samples.calibration is not None,
            calibration_sizes=self.samples.sizes,
            target=self.target,
            recipes=lambda: self.recipes.values,
        )

    @cached_property
    def recipes(self) -> OfferedRecipes:
        """The recipes that are offered, and what they make of configurations."""
        return OfferedRecipes(self._requested_recipes, self._facts)

    @cached_property
    def variants(self) -> Variants:
        """The graphs that candidates are built from."""
        return self._variants_on(self.samples.calibration, self.samples.passes, self._cache)

    def _variants_on(
        self,
        calibration: CalibrationData | None,
        passes: list[int | None],
        cache: CalibrationCache | None,
    ) -> Variants:
        """The graphs that candidates are built from, calibrated on some data."""
        return Variants(
            self.model.graph,
            lambda graph: self._variant(graph, calibration, passes, cache),
            lambda size: RunsGraphs(calibration=calibration, sessions=self.sessions, size=size),
        )

    @property
    def default_variant(self) -> Variant:
        """The one of configurations in which each recipe has its first value."""
        return self.variants.of(self._default_config)

    @property
    def calibration(self) -> VariantCalibration:
        """The calibration of the variant in which each recipe has its first value."""
        return VariantCalibration(self.variants, self._default_config)

    def variant_calibration(self, config: QuantConfig) -> VariantCalibration | None:
        """The calibration that a configuration needs; None if it is :attr:`calibration`."""
        config = self.recipes.configured(config)
        if self.samples.calibration is None or not config.quantized_ops:
            return None
        if variant_key(config) in ((), variant_key(self._default_config)):
            return None
        return VariantCalibration(self.variants, config)

    def inputs_for(self, config: QuantConfig) -> InputMomentsSource | None:
        """What gives the inputs of ops that a configuration needs; None if it needs none."""
        if not any(map(needs_inputs, config.ops.values())):
            return None
        return self.candidates.variant(config).builder.inputs_for(config)

    @property
    def _default_config(self) -> QuantConfig:
        size = next(iter(self.samples.sizes), None)
        return self.recipes.as_scored(QuantConfig({}, {}, size))

    @cached_property
    def _base_builder(self) -> CandidateBuilder:
        return self._builder(self.model.graph)

    def _builder(self, graph: Graph) -> CandidateBuilder:
        is_base = graph is self.model.graph
        inputs = None
        if self.samples.calibration is not None:
            inputs = InputMomentsSource(
                graph, self.samples.calibration, self.sessions, self.samples.passes
            )
        return CandidateBuilder(
            graph,
            reduce_range=self.reduce_range,
            inputs=inputs,
            kept_weights=self.kept_weights,
            profile=self.target.profile,
            float16_storage=self.float16_storage,
            cache_bytes=CACHE_BYTES if is_base else CACHE_BYTES // MOST_VARIANTS,
        )

    def _variant(
        self,
        graph: Graph,
        calibration: CalibrationData | None,
        passes: list[int | None],
        cache: CalibrationCache | None,
    ) -> Variant:
        is_base = graph is self.model.graph
        builder = self._base_builder if is_base else self._builder(graph)
        statistics = None
        if calibration is not None:
            statistics = StatisticsSource(graph, calibration, self.sessions, cache)
        ranges = CandidateRanges(statistics, passes, builder, self.offered)
        if self.recipes.correct_biases:
            ranges.expect_means()
        return Variant(graph, builder, ranges)

    def _facts(self) -> ModelFacts:
        return ModelFacts(
            graph=self.model.graph,
            static=self._base_builder.static,
            approach=self.offered.approach,
            has_data=self.samples.calibration is not None,
            profile=self.target.profile,
            level=self.sessions.usual_level,
        )

    @cached_property
    def saturation(self) -> SaturationCheck:
        """Whether sums of 8-bit products saturate here."""
        # What is simulated is computed in floats.
        narrow = self.reduce_range or self.target.is_simulated
        return SaturationCheck(self.sessions, cannot_saturate=narrow)

    @cached_property
    def candidates(self) -> Candidates:
        """The models of configurations."""
        return self._candidates_from(self.variants, self.missing_ranges)

    def _candidates_from(self, variants: Variants, missing_ranges: MissingRanges) -> Candidates:
        return Candidates(
            self.model,
            fp32=self.fp32,
            recipes=self.recipes,
            variants=variants,
            sessions=self.sessions,
            saturation=self.saturation,
            missing_ranges=missing_ranges,
        )

    def calibrate(self) -> None:
        """Collect the statistics that candidates are likely to need; nothing without data."""
        if self.samples.calibration is not None:
            self.fp32.release()
            self.calibration.collect()

    def sensitivity_maker(
        self, quantize: Callable[[QuantConfig], QuantizedModel], graph_of: GraphOf
    ) -> SensitivityMaker:
        """What makes the sensitivities of ops.

        Args:
            quantize:
                Gives the model of a configuration.
            graph_of:
                Gives what :meth:`scored_graph` does.
        """
        variant = self.default_variant
        return SensitivityMaker(
            lambda config: quantize(self.recipes.as_scored(config)),
            variant.graph,
            self.model.nbytes,
            variant.builder.static,
            self.samples,
            self.sessions,
            graph_of,
        )

    def scored_graph(self, config: QuantConfig) -> tuple[Graph, Mapping[str, StaticOp]]:
        """The graph in which the ops of a configuration are scored, and its static ops."""
        found = self.variants.of(self.recipes.as_scored(config))
        return found.graph, found.builder.static

    def cost_source(
        self, quantize: Callable[[QuantConfig], QuantizedModel], data: object, lock: RLock
    ) -> CostSource:
        """What costs are measured with.

        Args:
            quantize:
                Gives the model of a configuration.
            data:
                What models are run on; None for the calibration data.
            lock:
                Is held while other models are built.

        Raises:
            ValueError:
                If there are no data.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import CostSource

        piece = self.samples.to_time(data, "Measuring costs")
        has_choice = any(len(values) > 1 for values in self.recipes.values.values())
        return CostSource(
            graph=self.default_variant.graph,
            original=self.model.proto,
            original_bytes=self.model.nbytes,
            base_dir=self.model.base_dir,
            sessions=self.candidates.sessions_of(self.recipes.as_scored(QuantConfig({}))),
            build=lambda config: quantize(config).proto,
            feed=piece.feed,
            samples=piece.samples,
            target=None if self.target.is_usual else self.target.profile.name,
            is_simulated=self.target.is_simulated,
            recipe_models=self._recipe_models(piece.feed, lock) if has_choice else None,
        )

    def _recipe_models(self, feed: Feed, lock: RLock) -> RecipeModels:
        """Models with recipes, calibrated on one batch: only their form is measured."""
        from optuna_quant.backends.onnxruntime.costs.recipes import RecipeModels

        data = CalibrationData([feed], input_specs(self.model.proto))
        # What one batch gives no range is not to be told.
        untold = MissingRanges(lambda _: None)
        candidates = self._candidates_from(self._variants_on(data, [None], None), untold)

        def quantize(config: QuantConfig) -> QuantizedModel:
            with lock:
                return candidates.quantize(config)

        def graph(config: QuantConfig) -> Graph:
            with lock:
                return candidates.variant(config).graph

        return RecipeModels(quantize, self.recipes.configured, graph)


def _loaded(model: OpenedModel, sessions: SessionMaker) -> FP32Model:
    try:
        session = sessions.make(model.compact, model.base_dir)
    except Exception as error:
        raise ValueError(describe_refusal(model.source, sessions, error)) from error
    return FP32Model(model, sessions, session)
