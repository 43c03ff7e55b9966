"""The candidates of a backend: each built when it is asked for, the last few kept."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.builder import Built
from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
from optuna_quant.backends.onnxruntime.model.weights import BoundedCache


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
    from optuna_quant.backends.onnxruntime.calibration.candidate_ranges import CandidateRanges
    from optuna_quant.backends.onnxruntime.model.fp32 import FP32Model
    from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
    from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
    from optuna_quant.backends.onnxruntime.static.saturation import SaturationCheck
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
        builder:
            Builds the others.
        ranges:
            Calibrates for them.
        sessions:
            Makes their sessions.
        saturation:
            Tells the user where the processor makes them less accurate.
    """

    def __init__(
        self,
        model: OpenedModel,
        *,
        fp32: FP32Model,
        builder: CandidateBuilder,
        ranges: CandidateRanges,
        sessions: SessionMaker,
        saturation: SaturationCheck,
    ) -> None:
        self._model = model
        self._fp32 = fp32
        self._builder = builder
        self._ranges = ranges
        self._sessions = sessions
        self._saturation = saturation
        self._models = BoundedCache(_KEPT_MODELS_BYTES)
        self._fingerprints: dict[str, str] = {}

    def quantize(self, config: QuantConfig) -> QuantizedModel:
        """The model of a configuration.

        Raises:
            ValueError:
                If it names an op that the model does not have, or that cannot run so.
        """
        built = self._built(config)
        if built.model is self._model.compact:
            return self._fp32.get(built.fingerprint)
        self._fp32.release()
        return QuantizedModel(
            built.model,
            self._sessions,
            base_dir=self._model.base_dir,
            fingerprint=built.fingerprint,
        )

    def fingerprint(self, config: QuantConfig) -> str:
        """The content hash of the model of a configuration; see :meth:`quantize`."""
        known = self._fingerprints.get(config.key)
        return self._built(config).fingerprint if known is None else known

    @cached_property
    def unchanged(self) -> Built:
        """The candidate of which nothing is quantized: the user's model."""
        model = self._model
        return Built(model.compact, self._builder.fingerprint_of(model.proto, model.base_dir))

    def _built(self, config: QuantConfig) -> Built:
        if config.key not in self._models:
            built = self._build(config)
            # Only the last few: the model is asked for soon after its fingerprint.
            self._models[config.key] = built
            self._fingerprints[config.key] = built.fingerprint
        found: Built = self._models[config.key]
        return found

    def _build(self, config: QuantConfig) -> Built:
        self._builder.check(config)
        if all(op.mode == "fp32" for op in config.ops.values()):
            return self.unchanged
        self._saturation.tell(config)
        return self._builder.build(config, self._ranges.params_for(config)) or self.unchanged
