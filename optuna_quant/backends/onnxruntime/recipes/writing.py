"""The recipes that change how Q/DQ pairs, weights and biases of candidates are written.

The first three are options of ONNX Runtime's ``quantize_static`` as well, which some providers
need: ``AddQDQPairToWeight``, ``DedicatedQDQPair`` and ``OpTypesToExcludeOutputQuantization``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from optuna_quant._common.nearest import did_you_mean_inside
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.backends.onnxruntime.recipes.labels import OFF
from optuna_quant.backends.onnxruntime.recipes.recipe import Switch
from optuna_quant.backends.onnxruntime.recipes.recipe import WriterRecipe
from optuna_quant.backends.onnxruntime.static.corrections.op_weights import bias_inputs


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions


_CONTRIB = frozenset({"Attention", "EmbedLayerNormalization", "FusedConv", "FusedGemm"})
"""Operators of ONNX Runtime's own that users of other tools name here."""


class _OfStaticOps(WriterRecipe):
    """A recipe for what runs in static mode."""

    def reason_against(self, facts: ModelFacts) -> str | None:
        if facts.approach not in ("static", "auto") or not facts.static:
            return "no op can run in static mode"
        return None


class _OfStaticWeights(Switch, _OfStaticOps):
    """A recipe for the weights of what runs in static mode."""

    def reason_against(self, facts: ModelFacts) -> str | None:
        reason = super().reason_against(facts)
        if reason is None and not any(op.weight for op in facts.static.values()):
            return "no op that can run in static mode has a weight"
        return reason


class WeightCorrection(_OfStaticWeights):
    """Give quantized weights the means and the deviation of those in floats."""

    name = "weight_correction"
    lowers_errors = True

    def written(self, options: WriteOptions, value: str) -> WriteOptions:
        return replace(options, correct_weights=True)


class FastBiasCorrection(_OfStaticWeights):
    """Take back by the biases what the rounding of weights adds to the mean of an output."""

    name = "fast_bias_correction"
    lowers_errors = True

    def written(self, options: WriteOptions, value: str) -> WriteOptions:
        return replace(options, correct_biases=True)

    def reason_against(self, facts: ModelFacts) -> str | None:
        reason = super().reason_against(facts)
        if reason is None and not bias_inputs(facts.static.values(), facts.graph):
            return "no op that can run in static mode has an output with channels"
        return reason


class WeightPairs(_OfStaticWeights):
    """Keep weights in floats, with a QuantizeLinear and a DequantizeLinear behind them."""

    name = "add_qdq_pair_to_weight"
    in_all = False

    def written(self, options: WriteOptions, value: str) -> WriteOptions:
        return replace(options, weight_pairs=True)

    def reason_against(self, facts: ModelFacts) -> str | None:
        reason = super().reason_against(facts)
        if reason is None and facts.profile.weight_pairs:
            return f"for the target {facts.profile.name!r} weights are always written so"
        return reason


class DedicatedPairs(Switch, _OfStaticOps):
    """Give each reader of a quantized activation a pair of its own."""

    name = "dedicated_qdq_pair"
    in_all = False

    def written(self, options: WriteOptions, value: str) -> WriteOptions:
        return replace(options, dedicated_pairs=True)

    def reason_against(self, facts: ModelFacts) -> str | None:
        reason = super().reason_against(facts)
        if reason is None and not _has_shared_pair(facts):
            return "no tensor that can be quantized has two readers"
        return reason


class FloatOutputs(_OfStaticOps):
    """Leave the outputs of ops of some types unquantized, as far as these ops are concerned.

    A value is ``"off"`` or op types, joined by ``+`` and sorted. A list of strings is one value if
    all of them are op types, and several if one of them can be only a value.
    """

    name = "optypes_to_exclude_output_quant"
    in_all = False

    def offered(self, args: Mapping[str, object]) -> tuple[str, ...]:
        # By itself each of the types whose outputs are quantized with them would be a choice.
        owners = [n for n, rule in STATIC_RULES.items() if rule.owns_output and rule.kernel]
        return (OFF, "+".join(sorted(owners)))

    def reason_against(self, facts: ModelFacts) -> str | None:
        reason = super().reason_against(facts)
        if reason is None and not _owners(facts):
            return "no op has an output that is quantized with it"
        return reason

    def distinct(self, values: tuple[str, ...], facts: ModelFacts) -> tuple[str, ...]:
        # Types that the model lacks, or whose outputs are not quantized, make no difference.
        owners = _owners(facts)
        return tuple(
            dict.fromkeys(self._label(owners.intersection(value.split("+"))) for value in values)
        )

    def choices(self, given: object) -> Sequence[object]:
        if isinstance(given, str) or not isinstance(given, Iterable):
            return [given]
        items = list(given)
        is_value = any(item == OFF or "+" in item for item in items if isinstance(item, str))
        if not is_value and all(isinstance(item, str) for item in items):
            return [self._label(items)]
        return [item if isinstance(item, (str, bool)) else self._label(item) for item in items]

    def _label(self, op_types: object) -> str:
        if not isinstance(op_types, Iterable):
            raise ValueError(f"expected a list of op types, but got {op_types!r}")
        names = sorted({str(name) for name in op_types})
        return "+".join(names) if names else OFF

    def check(self, value: str) -> None:
        if value == OFF:
            return
        names = value.split("+")
        known = {schema.name for schema in onnx.defs.get_all_schemas()} | _CONTRIB
        for name in names:
            if name not in known:
                hint = did_you_mean_inside(name, sorted(known))
                raise ValueError(f"there is no op type {name!r}{hint}")
        if names != sorted(set(names)):
            label = "+".join(sorted(set(names)))
            raise ValueError(f"its op types must be different and sorted: {label!r}")

    def written(self, options: WriteOptions, value: str) -> WriteOptions:
        return replace(options, float_outputs=frozenset(value.split("+")))


def _owners(facts: ModelFacts) -> set[str]:
    """The types, in the graph, of the ops whose outputs are quantized with them."""
    return {
        facts.graph.nodes[op.index].op_type for op in facts.static.values() if op.rule.owns_output
    }


def _has_shared_pair(facts: ModelFacts) -> bool:
    """Whether a tensor may be quantized that has two readers, of which the model is one.

    A tensor that is quantized where it is made is so for all of its readers; another one for ops
    in static mode alone.
    """
    graph = facts.graph
    if _owners(facts):
        readers = Counter(name for node in graph.nodes for name in {*node.input})
        readers.update((*graph.outputs, *graph.captured))
    else:
        readers = Counter(
            name
            for op in facts.static.values()
            for name in {graph.nodes[op.index].input[i] for i in op.activations}
        )
    return any(n > 1 and name and not graph.is_constant(name) for name, n in readers.items())
