"""The recipes that keep the ends of a model in FP32.

neural-compressor counts Conv, MatMul and Attention, and turns a Gemm into a MatMul before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.ends.ops import first_product
from optuna_quant.backends.onnxruntime.recipes.ends.ops import last_product
from optuna_quant.backends.onnxruntime.recipes.ends.ops import outside_backbone
from optuna_quant.backends.onnxruntime.recipes.labels import ON
from optuna_quant.backends.onnxruntime.recipes.recipe import ConfigRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import Switch
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.space.config import QuantConfig


class _KeepsFloats(Switch, ConfigRecipe):
    """A recipe that, switched off, keeps some ops in FP32."""

    default = ON

    def configured(self, config: QuantConfig, value: str, graph: Graph) -> QuantConfig:
        kept = self.float_ops(graph)
        quantized = (name for name in config.quantized_ops if name in kept)
        return config.with_ops(dict.fromkeys(quantized, FP32))


class FirstProduct(_KeepsFloats):
    """Quantize the first convolution or matrix product, or keep it in FP32."""

    name = "first_conv_or_matmul_quantization"

    def float_ops(self, graph: Graph) -> frozenset[str]:
        name = first_product(graph)
        return frozenset() if name is None else frozenset({name})

    def reason_against(self, facts: ModelFacts) -> str | None:
        if first_product(facts.graph) is None:
            return "the model has no convolution and no matrix product"
        return None


class LastProduct(_KeepsFloats):
    """Quantize the last convolution or matrix product, or keep it in FP32."""

    name = "last_conv_or_matmul_quantization"

    def float_ops(self, graph: Graph) -> frozenset[str]:
        name = last_product(graph)
        return frozenset() if name is None else frozenset({name})

    def reason_against(self, facts: ModelFacts) -> str | None:
        name = last_product(facts.graph)
        if name is None:
            return "the model has no convolution and no matrix product"
        if name == first_product(facts.graph):
            return f"the last convolution or matrix product, {name!r}, is also the first"
        return None


class PrePostProcess(_KeepsFloats):
    """Quantize what prepares the inputs and makes answers of the results, or keep it in FP32."""

    name = "pre_post_process_quantization"

    def float_ops(self, graph: Graph) -> frozenset[str]:
        return outside_backbone(graph)

    def reason_against(self, facts: ModelFacts) -> str | None:
        if not outside_backbone(facts.graph):
            return "the model has no op before or behind its convolutions and matrix products"
        return None
