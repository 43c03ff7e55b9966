"""Building the model that a configuration describes."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import MutableMapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnx
from optuna.logging import get_logger

from optuna_quant._common.bounded_cache import CACHE_BYTES
from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant.backends.onnxruntime.config_check import ConfigCheck
from optuna_quant.backends.onnxruntime.dynamic.dynamic import apply_dynamic
from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
from optuna_quant.backends.onnxruntime.dynamic.use_pairs import use_pairs
from optuna_quant.backends.onnxruntime.lower_precision.ops import compute_in
from optuna_quant.backends.onnxruntime.lower_precision.storage import store_in
from optuna_quant.backends.onnxruntime.lower_precision.types import FLOAT16
from optuna_quant.backends.onnxruntime.lower_precision.types import FLOAT_TYPES
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import source_array
from optuna_quant.backends.onnxruntime.model.constant_folding import unfold
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import assemble
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference
from optuna_quant.backends.onnxruntime.model.weights import WeightStore
from optuna_quant.backends.onnxruntime.static.candidate_fingerprints import CandidateFingerprints
from optuna_quant.backends.onnxruntime.static.corrections.op_weights import bias_inputs
from optuna_quant.backends.onnxruntime.static.ops import StaticOp
from optuna_quant.backends.onnxruntime.static.ops import static_ops
from optuna_quant.backends.onnxruntime.static.qdq import QDQWriter
from optuna_quant.backends.onnxruntime.static.static import Plan
from optuna_quant.backends.onnxruntime.static.static import Planner
from optuna_quant.backends.onnxruntime.static.write_options import AS_USUAL
from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions
from optuna_quant.backends.onnxruntime.targets.offered import ops_of_target
from optuna_quant.backends.onnxruntime.targets.offered import write_options
from optuna_quant.backends.onnxruntime.targets.table import CPU
from optuna_quant.backends.onnxruntime.weight_only.inputs import UnusableInputsError
from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
from optuna_quant.backends.onnxruntime.weight_only.ops import needs_inputs
from optuna_quant.backends.onnxruntime.weight_only.ops import weight_only_op
from optuna_quant.backends.onnxruntime.weight_only.packing import PackedWeight
from optuna_quant.backends.onnxruntime.weight_only.weight_only import apply_weight_only
from optuna_quant.backends.onnxruntime.weight_only.weights import GroupedWeights
from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.ranges.tensor_range import MissingRangesError
from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.dynamic.rewrite import LoadTensor
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import FindMeans
    from optuna_quant.backends.onnxruntime.static.static import FindParams
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
    from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource
    from optuna_quant.backends.onnxruntime.weight_only.kept_weights import KeptWeights
    from optuna_quant.backends.ranges.missing_ranges import MissingRanges
    from optuna_quant.backends.ranges.tensor_range import NoRangeError
    from optuna_quant.space.config import QuantConfig


_logger = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class BuiltGraph:
    """A candidate.

    Args:
        model:
            The model.
        fingerprint:
            Its content hash.
    """

    model: CompactModel
    fingerprint: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.model.nbytes


class CandidateBuilder:
    """Builds candidates from one graph.

    Args:
        graph:
            The graph.
        reduce_range:
            Whether weights use 7 bits only.
        inputs:
            Gives what some weight-only algorithms need of the ops' inputs; None without
            calibration data.
        kept_weights:
            Keeps weights that take long to quantize.
        profile:
            What the target runs, and in what form it wants candidates.
        float16_storage:
            Whether weights that stay in floats are stored in float16.
        cache_bytes:
            How many bytes of quantized weights are kept in memory.

    Attributes:
        static:
            The ops that can be quantized statically, by name.
        bias_inputs:
            The tensors whose means the biases of these are corrected by, each with an axis.
        weight_only:
            The ops whose weights alone can be quantized, by name.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        reduce_range: bool = False,
        inputs: InputMomentsSource | None = None,
        kept_weights: KeptWeights | None = None,
        profile: TargetProfile = CPU,
        float16_storage: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._graph = graph
        self._reduce_range = reduce_range
        self._float16_storage = float16_storage
        self._target_options = write_options(profile)
        self._cache = BoundedCache(cache_bytes)
        self._weights = WeightStore(graph, reduce_range=reduce_range, cache=self._cache)
        self._planner = Planner(graph, fuses=profile.is_cpu)
        self._fingerprints = CandidateFingerprints(graph)
        self._left_out: dict[str, str] = {}
        self.static: Mapping[str, StaticOp] = MappingProxyType(
            {op.name: op for op in ops_of_target(static_ops(graph), profile)}
        )
        found = (
            weight_only_op(node, graph) if profile.weight_only_bits else None
            for node in graph.nodes
        )
        self.bias_inputs = frozenset(bias_inputs(self.static.values(), graph))
        self.weight_only: Mapping[str, WeightOnlyOp] = MappingProxyType(
            {op.name: op for op in found if op is not None}
        )
        self._config_check = ConfigCheck(
            {n.name: n.op_type for n in graph.nodes}
            | {name: op.op_type for name, op in self.static.items()},
            self.static,
            self.weight_only,
            profile,
        )
        self._inputs = inputs
        self._grouped = GroupedWeights(
            graph, self.weight_only.values(), self._cache, inputs, kept_weights
        )

    def check(self, config: QuantConfig) -> None:
        """Check that a configuration is one for this model and its target.

        Raises:
            ValueError:
                If it names an op that the model does not have, a mode that an op does not have or
                a form that the target does not run.
        """
        self._config_check.check(config)

    def expect_inputs(self, ops: Iterable[str]) -> None:
        """Collect what weight-only algorithms need for these ops in one pass, once any does."""
        if self._inputs is not None:
            named = [self.weight_only[name] for name in ops if name in self.weight_only]
            self._inputs.expect(each for op in named for each in self._grouped.readers(op))

    def inputs_for(self, config: QuantConfig) -> InputMomentsSource | None:
        """What gives the inputs that a configuration needs; None if it needs none."""
        return self._inputs if any(map(needs_inputs, config.ops.values())) else None

    def tensors(self, ops: Iterable[str]) -> set[str]:
        """The tensors whose ranges are needed for some ops, where they have a static mode."""
        found: set[str] = set()
        for name in ops:
            op = self.static.get(name)
            for scheme in _schemes(op) if op is not None else ():
                found |= self._tensors(self.static[name], scheme)
        return found

    def tensors_of(self, config: QuantConfig) -> set[str]:
        """The tensors whose ranges may be needed for a configuration."""
        found: set[str] = set()
        for name, op_config in config.ops.items():
            if op_config.mode == "static" and op_config.activation is not None:
                found |= self._tensors(self.static[name], op_config.activation.scheme)
        return found

    def _tensors(self, op: StaticOp, scheme: str) -> set[str]:
        node = self._graph.nodes[op.index]
        found = {
            node.input[i] for i in op.activations if not self._graph.is_constant(node.input[i])
        }
        if op.rule.owns_output and op.activations:
            found.add(op.output(node, scheme))
        return found

    def build(
        self,
        config: QuantConfig,
        find: FindParams,
        options: WriteOptions = AS_USUAL,
        means: FindMeans | None = None,
        *,
        missing_ranges: MissingRanges,
    ) -> BuiltGraph | None:
        """Build a candidate.

        Ops that would need the range of a tensor which has none stay in FP32.

        Args:
            config:
                The configuration; see :meth:`check`.
            find:
                Gives the parameters for activations.
            options:
                How it is written.
            means:
                Gives the means of ops' inputs; None if biases are not corrected.
            missing_ranges:
                Gets which ops stay in FP32 because they have no range.

        Returns:
            The candidate; None if all its ops stay in FP32.
        """
        chosen = {
            self.static[name].index: (self.static[name], op_config)
            for name, op_config in config.ops.items()
            if op_config.mode == "static"
        }
        options = options.for_target(self._target_options)
        plan = self._plan(chosen, find, options, missing_ranges)
        alone = self._weights_alone(config)
        lower = {n: FLOAT_TYPES[op.mode] for n, op in config.ops.items() if op.mode in FLOAT_TYPES}
        dynamic = any(op.mode == "dynamic" for op in config.ops.values())
        if not (chosen or alone or dynamic or lower):
            return None
        writer = QDQWriter(self._graph, plan, self._weights, options, means)
        written = writer.write()
        constants: dict[str, onnx.TensorProto | NDArray[Any]] = {}
        constants.update(self._graph.initializers)
        constants.update(written.constants)
        outside: dict[str, Source] = {}
        model = assemble(self._graph.template, written.nodes, constants, outside=outside)
        layers = {
            op.name: OpConfig("dynamic", weight=op_config.weight)
            for op, op_config in chosen.values()
            if op.rule.layer
        }
        if layers:
            self._apply_dynamic(model, layers, outside)
            use_pairs(model, written.integers)
        self._apply_dynamic(model, config.ops, outside)
        digests = {}
        if alone:
            digests = apply_weight_only(self._rewrite(model, outside), model, alone)
        if lower:
            compute_in(self._rewrite(model, outside), model, self._graph, lower)
        if self._float16_storage:
            store_in(self._rewrite(model, outside), model, self._graph, FLOAT16)
        unfold(model, self._graph, outside)
        compact = CompactModel(model, outside).pruned()
        found = self._fingerprints.of_candidate(
            compact, written, digests, repeated_pairs=writer.repeated_pairs
        )
        return BuiltGraph(compact, found)

    def _weights_alone(
        self, config: QuantConfig
    ) -> dict[str, tuple[WeightOnlyOp, PackedWeight, int | None]]:
        """The quantized weights of the ops in weight-only mode, by name."""
        found = {}
        if self.inputs_for(config) is not None:
            self.expect_inputs(name for name, op in config.ops.items() if needs_inputs(op))
        for name, op_config in config.ops.items():
            if op_config.mode == "weight_only":
                assert op_config.weight is not None
                op = self.weight_only[name]
                try:
                    weight = self._grouped.get(op, op_config.weight, config.calibration_size)
                except UnusableInputsError as error:
                    self._say_left_out(op, str(error))
                else:
                    found[name] = (op, weight, op_config.accuracy_level)
        return found

    def _plan(
        self,
        chosen: dict[int, tuple[StaticOp, OpConfig]],
        find: FindParams,
        options: WriteOptions,
        missing_ranges: MissingRanges,
    ) -> Plan:
        """The plan for the ops that can have one; the others are taken out of ``chosen``."""
        missing: dict[str, tuple[NoRangeError, str]] = {}
        while True:
            try:
                plan = self._planner.plan(
                    chosen, find, self._table_params, float_outputs=options.float_outputs
                )
            except MissingRangesError as error:
                for i, reason in error.errors.items():
                    op, _ = chosen.pop(i)
                    missing[op.name] = reason, self._origin(reason)
            else:
                missing_ranges.add(missing)
                return plan

    def _say_left_out(self, op: WeightOnlyOp, reason: str) -> None:
        if self._left_out.get(op.name) != reason:
            self._left_out[op.name] = reason
            _logger.warning(
                f"Op {op.name!r} ({op.op_type}) stays in FP32 although weight-only mode was asked "
                f"for: {reason}"
            )

    def _origin(self, reason: NoRangeError) -> str:
        """The op that a tensor without a range comes from, whose name users know."""
        maker = self._graph.producer.get(reason.tensor)
        if maker is None:
            return ""
        node = self._graph.nodes[maker]
        return f" It comes out of the {node.op_type} {node.name!r}."

    def why_left_out(self, op: str) -> str:
        """Why the weight of an op was not quantized although it was to be; empty if it was.

        Args:
            op:
                Its name.
        """
        return self._left_out.get(op, "")

    def _rewrite(self, model: onnx.ModelProto, outside: MutableMapping[str, Source]) -> Rewrite:
        return Rewrite(
            model,
            opset=self._graph.opset,
            reduce_range=self._reduce_range,
            load=self._loader(outside),
            cache=None,
            outside=outside,
        )

    def _loader(self, outside: Mapping[str, Source]) -> LoadTensor:
        def load(tensor: onnx.TensorProto) -> NDArray[Any]:
            source = outside[tensor.name] if is_reference(tensor) else tensor
            return source_array(source, self._graph.base_dir)

        return load

    def _apply_dynamic(
        self,
        model: onnx.ModelProto,
        ops: Mapping[str, OpConfig],
        outside: MutableMapping[str, Source],
    ) -> None:
        apply_dynamic(
            model,
            ops,
            reduce_range=self._reduce_range,
            load=self._loader(outside),
            cache=self._cache,
            outside=outside,
        )

    def _table_params(self, op: StaticOp, config: OpConfig) -> Params:
        assert op.weight is not None
        assert config.weight is not None
        name = self._graph.nodes[op.index].input[op.weight.position]
        weight = self._weights.get(name, config.weight, None)
        return Params(float(weight.scale), int(weight.zero_point), weight.values.dtype.name)

    def fingerprint_of(self, proto: onnx.ModelProto, base_dir: Path | None) -> str:
        """The fingerprint of the user's model, most of whose initializers candidates have too."""
        return self._fingerprints.of_original(proto, base_dir)


def _schemes(op: StaticOp) -> set[str]:
    """The schemes of the activations in the options of an op."""
    options = (*op.options(), *(each.option for each in op.on_request()))
    return {option.activation.scheme for option in options if option.activation is not None}
