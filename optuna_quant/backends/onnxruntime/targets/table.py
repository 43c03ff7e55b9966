"""The targets that are known by name.

The tables say what the documentation of each provider says, as far as it is public. What they say
about providers other than the CPU's has not been tried on a device; where it is uncertain, the
comment at the table says so.

Sources:

- CPU: ONNX Runtime, "Quantize ONNX Models"
  (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html), and what
  :mod:`~optuna_quant.backends.onnxruntime.model.op_tables` has seen of ONNX Runtime 1.32. The same
  page says when to use ``reduce_range``: on x86 processors with AVX2 or AVX512, without VNNI.
- CUDA: ONNX Runtime, "Quantize ONNX Models", section "Quantization on GPU" (integers on GPUs come
  from the TensorRT provider), and "OperatorKernels.md"
  (https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md), which also lists
  the types of each operator: of those here, bfloat16 for Add, Gemm, MatMul and Mul from opset 13
  on, for Conv from 22 on, and not for ConvTranspose.
- TensorRT: NVIDIA, "Working with Quantized Types"
  (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html),
  and ONNX Runtime, "TensorRT Execution Provider"
  (https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html). bfloat16:
  ONNX Runtime, pull requests 24743 (the option ``trt_bf16_enable``, from ONNX Runtime 1.23 on) and
  24915 (only on GPUs of compute capability 8.0, Ampere, or newer)
  (https://github.com/microsoft/onnxruntime/pull/24743).
- OpenVINO: OpenVINO, "Basic Quantization Flow" of NNCF
  (https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html),
  and ONNX Runtime, "OpenVINO Execution Provider"
  (https://onnxruntime.ai/docs/execution-providers/OpenVINO-ExecutionProvider.html). Why it has no
  bfloat16 here: OpenVINO, "Precision Control"
  (https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html).
- QNN: ONNX Runtime, "QNN Execution Provider"
  (https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html), sections "Supported
  ONNX operators" and "Generating a quantized model".

Weights alone are written as ``MatMulNBits``, an operator of ONNX Runtime's own, which is not
among those of ONNX. "OperatorKernels.md" lists it for the CPU and CUDA. TensorRT, OpenVINO and QNN
compile subgraphs instead of having kernels, and the sources above do not say that they take it;
what they do not take runs on the CPU, between copies. So their tables have no
``weight_only_bits``; who knows more gives a profile with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.backends.onnxruntime.targets.profile import CPU_PROVIDER
from optuna_quant.backends.onnxruntime.targets.profile import IntegerForm
from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile


_PER_CHANNEL, _PER_TENSOR = "int8/sym/per_channel", "int8/sym/per_tensor"
_TABLE = "uint8/asym/per_tensor"
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ALL_PRODUCTS = (*_PRODUCTS, "MatMulActivations")
_FLOATS = ("bf16", "fp16", "fp32")

CPU = TargetProfile(
    name="cpu",
    provider=CPU_PROVIDER,
    forms=(
        IntegerForm(
            op_types=tuple(STATIC_RULES),
            activation="uint8/asym",
            weights=(_PER_CHANNEL, _PER_TENSOR, _TABLE),
        ),
        # Computed in floats, which saves no time.
        IntegerForm(
            op_types=_ALL_PRODUCTS,
            activation="uint16/asym",
            weights=(_PER_CHANNEL, _PER_TENSOR),
            on_request=True,
        ),
    ),
    dynamic=True,
    weight_only_bits=(4, 8, 2),
)

CPU_AVX2 = replace(
    CPU,
    name="cpu-avx2",
    reduce_range=True,
    note="Latencies are those of this processor, which may have VNNI instructions.",
)

# The provider has no integer kernels for Q/DQ pairs: ops compute in floats on dequantized values,
# so that files become smaller and models no faster.
CUDA = TargetProfile(
    name="cuda",
    provider="CUDAExecutionProvider",
    forms=(
        IntegerForm(
            op_types=(*_ALL_PRODUCTS, "Add", "Mul"),
            activation="int8/sym",
            weights=(_PER_CHANNEL, _PER_TENSOR),
        ),
    ),
    fallbacks=_FLOATS,
    bf16_op_types=("Conv", "Gemm", "MatMul", "MatMulActivations", "Add", "Mul"),
    weight_only_bits=(4, 8),
    integer_outputs=False,
    integer_bias=False,
    note="The CUDA provider computes Q/DQ pairs in floats: the file becomes smaller, and ops "
    "without a fallback to 16 bits no faster; for integers see target='tensorrt'.",
)

# Scales symmetric and zero points 0 on both sides; weights per channel or per tensor. Uncertain:
# which versions take integer weights behind a DequantizeLinear alone; all take them in floats
# behind a pair. Also uncertain: from which version on pooling runs on integers by itself, and
# which operators run in bfloat16: a model with one that TensorRT refuses does not load.
TENSORRT = TargetProfile(
    name="tensorrt",
    provider="TensorrtExecutionProvider",
    provider_options=(
        ("trt_int8_enable", "1"),
        ("trt_fp16_enable", "1"),
        ("trt_bf16_enable", "1"),
    ),
    forms=(
        IntegerForm(
            op_types=(*_ALL_PRODUCTS, "Add", "AveragePool", "GlobalAveragePool"),
            activation="int8/sym",
            weights=(_PER_CHANNEL, _PER_TENSOR),
        ),
    ),
    fallbacks=_FLOATS,
    integer_outputs=False,
    integer_bias=False,
    weight_pairs=True,
)

_OPENVINO_OPS = (*_ALL_PRODUCTS, "Add", "AveragePool", "GlobalAveragePool", "Mul")

# Quantized by default as NNCF does it: symmetric weights per channel, activations asymmetric or
# symmetric, at the inputs of ops only. Uncertain: which of its plugins take 16-bit activations;
# they are not in this table. No bfloat16: where a processor has it, the CPU plugin computes all
# ops in it by one setting, whatever the types in the file are.
OPENVINO = TargetProfile(
    name="openvino",
    provider="OpenVINOExecutionProvider",
    provider_options=(("device_type", "CPU"),),
    forms=(
        IntegerForm(
            op_types=_OPENVINO_OPS, activation="uint8/asym", weights=(_PER_CHANNEL, _PER_TENSOR)
        ),
        IntegerForm(
            op_types=_OPENVINO_OPS, activation="int8/sym", weights=(_PER_CHANNEL, _PER_TENSOR)
        ),
    ),
    integer_outputs=False,
    integer_bias=False,
)

OPENVINO_GPU = replace(
    OPENVINO,
    name="openvino-gpu",
    provider_options=(("device_type", "GPU"),),
    fallbacks=("fp16", "fp32"),
)

_QNN_OTHERS = (
    *("MatMulActivations", "Abs", "Add", "AveragePool", "Concat", "GlobalAveragePool"),
    *("LeakyRelu", "Mul", "Resize", "Sigmoid", "Softmax"),
)


def _htp_forms(activation: str) -> tuple[IntegerForm, ...]:
    """What the NPU runs with activations of one kind."""
    return (
        IntegerForm(
            op_types=("Conv", "ConvTranspose"),
            activation=activation,
            weights=(_PER_CHANNEL, _PER_TENSOR),
        ),
        IntegerForm(op_types=("Gemm", "MatMul"), activation=activation, weights=(_PER_TENSOR,)),
        IntegerForm(op_types=_QNN_OTHERS, activation=activation),
    )


# What the HTP backend of the NPU runs. Uncertain: which chips take weights per channel for
# other ops than convolutions, so there only one scale is offered; and which chips run float16,
# the fallback (it needs the architecture v69 or newer).
QNN = TargetProfile(
    name="qnn",
    provider="QNNExecutionProvider",
    provider_options=(("backend_type", "htp"),),
    forms=(
        *_htp_forms("uint8/asym"),
        *_htp_forms("uint16/asym"),
        IntegerForm(op_types=("Gather",), activation="uint8/asym", weights=(_TABLE,)),
    ),
    fallbacks=("fp16", "fp32"),
    default_op_types=_ALL_PRODUCTS,
    integer_outputs=True,
)

TARGETS: Mapping[str, TargetProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (CPU, CPU_AVX2, CUDA, TENSORRT, OPENVINO, OPENVINO_GPU, QNN)
    }
)
"""The targets by name."""
