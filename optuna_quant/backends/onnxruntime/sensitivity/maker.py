"""Making the sensitivities of a model's ops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from typing import TypeVar

from optuna_quant._common.extras import install_hint
from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
from optuna_quant.backends.onnxruntime.sensitivity.op_weights import find_weights
from optuna_quant.backends.sensitivity.offered import tell_without_data
from optuna_quant.backends.sensitivity.offered import tell_without_gradients
from optuna_quant.backends.sensitivity.output import OutputSensitivity


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Any

    from optuna_quant.backends.calibration.samples import Samples
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.mse import GraphOf
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.sensitivity.curvature import Loss
    from optuna_quant.space.config import QuantConfig


_ByOp = TypeVar("_ByOp", bound=MSESensitivity)

# Torch has its own copy of a model's weights.
_MOST_GRADIENT_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class SensitivityMaker:
    """Makes sensitivities; their other arguments are those of their classes.

    Args:
        quantize:
            Gives the model of a configuration.
        graph:
            The model in normal form.
        model_bytes:
            Its size, external data included.
        static:
            The ops that can be quantized statically, by name.
        samples:
            The calibration data and those given in their place.
        sessions:
            Makes sessions.
        graph_of:
            The graph that a configuration is built from, and the ops of it that have a static
            mode.
    """

    quantize: Callable[[QuantConfig], QuantizedModel]
    graph: Graph
    model_bytes: int
    static: Mapping[str, StaticOp]
    samples: Samples
    sessions: SessionMaker
    graph_of: GraphOf

    def best(self, *, samples: int, outputs: Sequence[str] | None) -> MSESensitivity | None:
        """By gradients where that can be had, otherwise :meth:`mse`; None without any data."""
        if self.samples.calibration is None:
            tell_without_data()
            return None
        try:
            if self.model_bytes <= _MOST_GRADIENT_BYTES:
                return self.gradient(None, samples=samples, probes=2, outputs=outputs)
            why = f"the model is larger than {_MOST_GRADIENT_BYTES >> 30} GiB"
        except ImportError:
            why = f"torch is not installed: {install_hint('torch')}"
        except ValueError as error:
            why = str(error).split(". Pass", maxsplit=1)[0]
        tell_without_gradients(why)
        return self.mse(None, samples=samples)

    def mse(self, data: object, **options: Any) -> MSESensitivity:
        """By the error of each op's own output."""
        return self._by_op(MSESensitivity, data, options)

    def output(self, data: object, **options: Any) -> OutputSensitivity:
        """By how far the quantization of each op moves the model's outputs."""
        return OutputSensitivity(self.quantize, self.samples.to_run_on(data), **options)

    def gradient(self, data: object, **options: Any) -> GradientSensitivity:
        """By how far the error of each op moves the model's outputs."""
        from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity

        return self._by_op(GradientSensitivity, data, options)

    def _by_op(self, kind: type[_ByOp], data: object, options: Mapping[str, Any]) -> _ByOp:
        """One that runs the graph and quantized copies of its ops side by side."""
        return kind(
            self.quantize,
            self.graph,
            self.static,
            self.samples.to_run_on(data),
            self.sessions,
            graph_of=self.graph_of,
            **options,
        )

    def hessian(
        self, data: object, *, loss: Loss | None, outputs: Sequence[str] | None, **options: Any
    ) -> HessianSensitivity:
        """By the curvature of a loss, or of how far some outputs move, in the ops' weights."""
        from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
        from optuna_quant.backends.sensitivity.curvature import output_change

        if loss is None and outputs is not None:
            loss = partial(output_change, names=outputs)
        return HessianSensitivity(
            self.graph.to_model(),
            loss,
            self.samples.to_run_on(None) if data is None else data,
            weights=find_weights(self.graph),
            base_dir=self.graph.base_dir,
            constants=self.samples.reader.constants,
            **options,
        )
