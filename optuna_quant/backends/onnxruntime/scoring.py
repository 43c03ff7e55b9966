"""What the backend offers about the sensitivities of ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.calibration.data import DEFAULT_BATCH_SIZE
from optuna_quant.backends.onnxruntime.topic import BackendTopic
from optuna_quant.backends.sensitivity.offered import factories


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from threading import RLock

    import torch

    from optuna_quant.backends.base import SensitivityFactory
    from optuna_quant.backends.base import SensitivityKind
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.parts import BackendParts
    from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.maker import SensitivityMaker
    from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.sensitivity.curvature import Loss
    from optuna_quant.backends.sensitivity.output import OutputSensitivity
    from optuna_quant.backends.sensitivity.tensors import FloatType
    from optuna_quant.space.config import QuantConfig


class ScoringBackend(BackendTopic):
    """Gives what scores ops by how much their quantization hurts.

    The samples to score on may have any form of ``calibration_data``, which they are by default.
    """

    def __init__(self, parts: BackendParts, lock: RLock) -> None:
        super().__init__(parts, lock)
        self._best: dict[tuple[int, tuple[str, ...] | None], MSESensitivity] = {}

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        """How the sensitivities that strategies ask for are made.

        See :class:`~optuna_quant.backends.base.OffersSensitivities`.
        """
        return factories(
            best=self.sensitivity,
            op_error=self.mse_sensitivity,
            output_error=self.output_sensitivity,
            curvature=self.hessian_sensitivity,
            options=("module", "parameters"),
        )

    def sensitivity(
        self, *, samples: int = 32, outputs: Sequence[str] | None = None
    ) -> MSESensitivity | None:
        """The best sensitivity of ops in their options that is available here.

        What the default strategy begins with: :meth:`gradient_sensitivity` where torch is
        installed and knows all operators of the model, otherwise :meth:`mse_sensitivity`, which
        does not know what the outputs make of an error. :obj:`None` if there are no calibration
        data to run the model on.

        Args:
            samples:
                The most samples that are used, from the start of the data.
            outputs:
                The names of the outputs that are looked at; None for all.
        """
        key = samples, None if outputs is None else tuple(outputs)
        with self._lock:
            found = self._best.get(key)
            if found is None:
                found = self._sensitivity_maker().best(samples=samples, outputs=outputs)
                if found is not None:
                    self._best[key] = found
            return found

    def mse_sensitivity(self, *, samples: int = 256, data: object = None) -> MSESensitivity:
        """A sensitivity by the error that quantization brings to each op's own output.

        What :class:`~optuna_quant.samplers.MSEQuantSampler` ranks ops by. For the arguments and
        errors see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`; ``data`` are
        the samples, the calibration data by default.
        """
        return self._sensitivity_maker().mse(data, samples=samples)

    def output_sensitivity(
        self,
        *,
        batches: int = 2,
        batch_size: int = DEFAULT_BATCH_SIZE,
        data: object = None,
        outputs: Sequence[str] | None = None,
    ) -> OutputSensitivity:
        """A sensitivity by how far the quantization of each op moves the model's outputs.

        What :class:`~optuna_quant.samplers.MSEV2QuantSampler` ranks ops by. For the arguments and
        errors see
        :class:`~optuna_quant.backends.sensitivity.output.OutputSensitivity`; ``data``
        are the samples, the calibration data by default.
        """
        return self._sensitivity_maker().output(
            data, batches=batches, batch_size=batch_size, outputs=outputs
        )

    def gradient_sensitivity(
        self,
        *,
        samples: int = 64,
        probes: int = 4,
        seed: int = 0,
        data: object = None,
        outputs: Sequence[str] | None = None,
    ) -> GradientSensitivity:
        """A sensitivity by how far the error of each op moves the model's outputs; needs torch.

        What the default strategy begins with. For the arguments and errors see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.gradient.GradientSensitivity`;
        ``data`` are the samples, the calibration data by default.
        """
        return self._sensitivity_maker().gradient(
            data, samples=samples, probes=probes, seed=seed, outputs=outputs
        )

    def hessian_sensitivity(
        self,
        *,
        loss: Loss | None = None,
        labels: object = None,
        data: object = None,
        probes: int = 32,
        tolerance: float = 0.2,
        seed: int = 0,
        max_samples: int = 64,
        batch_size: int = 16,
        dtype: FloatType = "float32",
        module: torch.nn.Module | None = None,
        parameters: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> HessianSensitivity:
        """A sensitivity by the curvature of a loss in the ops' weights; needs torch.

        What :class:`~optuna_quant.samplers.HAWQV2QuantSampler` ranks ops by. For the arguments and
        errors see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.hessian.HessianSensitivity`;
        ``data`` are the samples, the calibration data by default, and ``outputs`` the names of the
        outputs whose move counts where there is no ``loss``, None for all.
        """
        return self._sensitivity_maker().hessian(
            data,
            loss=loss,
            outputs=outputs,
            labels=labels,
            probes=probes,
            tolerance=tolerance,
            seed=seed,
            max_samples=max_samples,
            batch_size=batch_size,
            dtype=dtype,
            module=module,
            parameters=parameters,
        )

    def _sensitivity_maker(self) -> SensitivityMaker:
        with self._lock:
            return self._parts.sensitivity_maker(self.quantize, self._scored_graph)

    def _scored_graph(self, config: QuantConfig) -> tuple[Graph, Mapping[str, StaticOp]]:
        with self._lock:
            return self._parts.scored_graph(config)
