"""What ONNX Runtime's CPU provider can do with each op type, as data.

"Kernel" says what runs where the operator stands between quantized tensors; seen with ONNX Runtime
1.32 in the optimized graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from optuna_quant.backends.onnxruntime.model.graph import CONTRIB
from optuna_quant.space.config import TensorConfig


_ALGORITHMS = ("minmax", "percentile", "kl", "mse")
_ON_REQUEST = ("mean_minmax",)

PER_CHANNEL = TensorConfig("int8", "sym", "per_channel", "minmax")
PER_TENSOR = TensorConfig("int8", "sym", "per_tensor", "minmax")
UNSIGNED = TensorConfig("uint8", "asym", "per_tensor", "minmax")


@dataclass(frozen=True)
class StaticRule:
    """What static quantization of an op type is.

    Args:
        algorithms:
            The range algorithms that are offered for the activations.
        owns_output:
            Whether the op's integer kernel writes integers, so that its output is quantized with
            it, for every reader. The others write floats.
        kernel:
            The integer kernels that may run it. Empty if there is none: then the op computes in
            floats on quantized values, which saves no time.
        default:
            Whether it is worth quantizing, so that it is tuned unless the user asks otherwise.
        layer:
            Whether the op is a whole layer, for which the runtime has a quantized operator and
            does not make it of Q/DQ pairs.
    """

    algorithms: tuple[str, ...] = ("minmax",)
    owns_output: bool = True
    kernel: tuple[str, ...] = ()
    default: bool = False
    layer: bool = False

    @property
    def activations(self) -> tuple[TensorConfig, ...]:
        """The settings that are offered for the activations, the default first."""
        # Signed activations are slower and no more accurate on this provider.
        return tuple(
            TensorConfig("uint8", "asym", "per_tensor", algorithm) for algorithm in self.algorithms
        )

    @property
    def activations_on_request(self) -> tuple[TensorConfig, ...]:
        """The settings that are offered only to those who name them."""
        return tuple(
            TensorConfig("uint8", "asym", "per_tensor", algorithm) for algorithm in _ON_REQUEST
        )


STATIC_RULES: Mapping[str, StaticRule] = MappingProxyType(
    {
        "Conv": StaticRule(_ALGORITHMS, kernel=("QLinearConv",), default=True),
        "MatMul": StaticRule(
            _ALGORITHMS,
            owns_output=False,
            kernel=("QLinearMatMul", "MatMulIntegerToFloat", "QGemm"),
            default=True,
        ),
        "Gemm": StaticRule(_ALGORITHMS, owns_output=False, kernel=("QGemm",), default=True),
        # The product of two activations. A type of its own, because it has no weight, and because
        # quantizing it costs more accuracy than a product with a weight and saves less time.
        "MatMulActivations": StaticRule(
            _ALGORITHMS,
            owns_output=False,
            kernel=("QLinearMatMul", "MatMulIntegerToFloat", "QGemm"),
        ),
        "Attention": StaticRule(
            _ALGORITHMS, owns_output=False, kernel=("QAttention",), default=True, layer=True
        ),
        "EmbedLayerNormalization": StaticRule(
            owns_output=False, kernel=("QEmbedLayerNormalization",), default=True, layer=True
        ),
        "Add": StaticRule(kernel=("QLinearAdd",)),
        "ArgMax": StaticRule(owns_output=False, kernel=("ArgMax",)),
        "AveragePool": StaticRule(kernel=("QLinearAveragePool",)),
        "Concat": StaticRule(kernel=("QLinearConcat",)),
        "Gather": StaticRule(kernel=("Gather",)),
        "GatherElements": StaticRule(kernel=("GatherElements",)),
        "GlobalAveragePool": StaticRule(kernel=("QLinearGlobalAveragePool",)),
        "LeakyRelu": StaticRule(kernel=("QLinearLeakyRelu",)),
        "Mul": StaticRule(kernel=("QLinearMul",)),
        "Sigmoid": StaticRule(kernel=("QLinearSigmoid",)),
        "Softmax": StaticRule(kernel=("QLinearSoftmax",)),
        "Where": StaticRule(kernel=("QLinearWhere",)),
        # No integer kernel.
        "Abs": StaticRule(),
        "ConvTranspose": StaticRule(),
        "Mod": StaticRule(),
        "Resize": StaticRule(),
        "Shrink": StaticRule(),
        "Sign": StaticRule(),
    }
)
"""By the op type of the tuning space, which is the operator's but for ``MatMulActivations``."""


@dataclass(frozen=True)
class DynamicRule:
    """What dynamic quantization of an op type is.

    Args:
        constants:
            The inputs that must be constants, the weights before others.
        weights:
            The settings that are offered for the weights, the default first.
        default:
            Whether that is worth it, so that the op is tuned unless the user asks otherwise.
        beside_static:
            Whether it is also offered where the op has a static mode.
        constants_if_given:
            The optional inputs that must be constants.
    """

    constants: tuple[int, ...]
    weights: tuple[TensorConfig, ...]
    default: bool = True
    beside_static: bool = True
    constants_if_given: tuple[int, ...] = ()


DYNAMIC_RULES: Mapping[tuple[str, str], DynamicRule] = MappingProxyType(
    {
        ("", "MatMul"): DynamicRule((1,), (PER_CHANNEL, PER_TENSOR)),
        ("", "Gemm"): DynamicRule((1,), (PER_CHANNEL, PER_TENSOR)),
        ("", "LSTM"): DynamicRule((1, 2), (PER_CHANNEL, PER_TENSOR)),
        (CONTRIB, "Attention"): DynamicRule((1,), (PER_CHANNEL, PER_TENSOR)),
        (CONTRIB, "EmbedLayerNormalization"): DynamicRule(
            (2, 3, 5, 6), (UNSIGNED,), constants_if_given=(4,)
        ),
        # A smaller model, but no faster. Unsigned, because from opset 21 on ONNX Runtime 1.32
        # moves signed values past a Transpose in a way that it then refuses.
        ("", "Gather"): DynamicRule((0,), (UNSIGNED,), default=False),
        # Five to eleven times slower than in floats.
        ("", "Conv"): DynamicRule(
            (1,), (UNSIGNED,), default=False, beside_static=False, constants_if_given=(2,)
        ),
    }
)
"""By domain and op type."""

FUSED_ACTIVATIONS = frozenset({"Relu", "Clip"})
"""Operators that the runtime fuses into the quantization of what comes before them."""

PASS_THROUGH = frozenset(
    {
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "Identity",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that give values of their first input on, and that the runtime runs on integers.

They follow the op before them and are not tuned. Resize only in mode "nearest"; Gather and
GatherElements if they read an activation and not a table.
"""

PASS_INTEGERS = frozenset({"GatherND", "Pad"})
"""As :data:`PASS_THROUGH`, but the runtime has to be given them on integers."""

PASS_FLOATS = frozenset({"CenterCropPad", "Compress", "Relu", "ReverseSequence", "SpaceToDepth"})
"""Operators whose results are values of their first input, or zero, and that run in floats."""
