"""The candidates of a backend: each built when it is asked for, the last few kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING

from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant.backends.onnxruntime.builder import BuiltGraph
from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
from optuna_quant.backends.onnxruntime.recipes.offered import changed
from optuna_quant.backends.onnxruntime.recipes.recipe import SessionRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import WriterRecipe
from optuna_quant.backends.onnxruntime.static.write_options import AS_USUAL


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.fp32 import FP32Model
    from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.recipes.offered import OfferedRecipes
    from optuna_quant.backends.onnxruntime.recipes.variant import Variant
    from optuna_quant.backends.onnxruntime.recipes.variants import Variants
    from optuna_quant.backends.onnxruntime.static.saturation import SaturationCheck
    from optuna_quant.backends.ranges.missing_ranges import MissingRanges
    from optuna_quant.space.config import QuantConfig


_KEPT_MODELS_BYTES = 1 << 26


class Candidates:
    """Gives the model and the fingerprint of configurations.

    It has no lock of its own: one thread at a time may use it.

    Args:
        model:
            The user's model.
        fp32:
            Hands it out where nothing is quantized.
        recipes:
            Says what recipes make of configurations.
        variants:
            Gives the graphs that the others are built from.
        sessions:
            Makes their sessions.
        saturation:
            Tells the user where the processor makes them less accurate.
        missing_ranges:
            Gets which ops stay in floats because calibration gives them no range.
    """

    def __init__(
        self,
        model: OpenedModel,
        *,
        fp32: FP32Model,
        recipes: OfferedRecipes,
        variants: Variants,
        sessions: SessionMaker,
        saturation: SaturationCheck,
        missing_ranges: MissingRanges,
    ) -> None:
        self._model = model
        self._fp32 = fp32
        self._recipes = recipes
        self._variants = variants
        self._sessions = sessions
        self._saturation = saturation
        self._missing_ranges = missing_ranges
        self._models = BoundedCache(_KEPT_MODELS_BYTES)
        self._fingerprints: dict[str, str] = {}

    def quantize(self, config: QuantConfig) -> QuantizedModel:
        """The model of a configuration.

        Raises:
            ValueError:
                If it names an op that the model does not have, or that cannot run so, or a recipe
                that does not exist.
        """
        built = self._built(config)
        if built.model is self._model.compact:
            return self._fp32.get(built.fingerprint)
        self._fp32.release()
        return QuantizedModel(
            built.model,
            self.sessions_of(config),
            base_dir=self._model.base_dir,
            fingerprint=built.fingerprint,
        )

    def fingerprint(self, config: QuantConfig) -> str:
        """The content hash of the model of a configuration; see :meth:`quantize`."""
        known = self._fingerprints.get(config.key)
        return self._built(config).fingerprint if known is None else known

    @cached_property
    def unchanged(self) -> BuiltGraph:
        """The candidate of which nothing is quantized: the user's model."""
        model = self._model
        builder = self._variants.base.builder
        return BuiltGraph(model.compact, builder.fingerprint_of(model.proto, model.base_dir))

    def variant(self, config: QuantConfig) -> Variant:
        """The graph that a configuration is built from."""
        return self._variants.of(self._recipes.configured(config))

    def _built(self, config: QuantConfig) -> BuiltGraph:
        if config.key not in self._models:
            built = self._build(config)
            # Only the last few: the model is asked for soon after its fingerprint.
            self._models[config.key] = built
            self._fingerprints[config.key] = built.fingerprint
        found: BuiltGraph = self._models[config.key]
        return found

    def _build(self, config: QuantConfig) -> BuiltGraph:
        config = self._recipes.configured(config)
        changes = any(op.mode != "fp32" for op in config.ops.values())
        variant = self._variants.of(config) if changes else self._variants.base
        variant.builder.check(config)
        if not changes:
            return self.unchanged
        self._saturation.tell(config)
        options = AS_USUAL
        for recipe, value in changed(config):
            if isinstance(recipe, WriterRecipe):
                options = recipe.written(options, value)
        # The means first: the pass for the ranges gives them as well.
        means = variant.ranges.means_for(config) if options.correct_biases else None
        params = variant.ranges.params_for(config)
        built = variant.builder.build(
            config, params, options, means, missing_ranges=self._missing_ranges
        )
        return self.unchanged if built is None else self._with_session_recipes(built, config)

    def _with_session_recipes(self, built: BuiltGraph, config: QuantConfig) -> BuiltGraph:
        """A candidate that says how it is run."""
        for recipe, value in changed(config):
            if isinstance(recipe, SessionRecipe):
                text = f"{built.fingerprint} {recipe.name}={value}"
                built = replace(
                    built,
                    model=built.model.with_metadata(recipe.metadata(value)),
                    fingerprint=hashlib.sha256(text.encode()).hexdigest(),
                )
        return built

    def sessions_of(self, config: QuantConfig) -> SessionMaker:
        """What makes the sessions of a configuration's model."""
        sessions = self._sessions
        for recipe, value in changed(self._recipes.configured(config)):
            if isinstance(recipe, SessionRecipe):
                sessions = recipe.sessions(sessions, value)
        return sessions
