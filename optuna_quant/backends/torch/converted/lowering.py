"""From the reference form of a program to this machine's kernels, without a compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
import torch

from optuna_quant.backends.torch.converted.contiguous import make_inputs_contiguous
from optuna_quant.backends.torch.converted.decomposing import decomposed
from optuna_quant.backends.torch.converted.integer_moves import move_integers
from optuna_quant.backends.torch.converted.late_biases import take_in_biases
from optuna_quant.backends.torch.converted.lifting import lift_quantizers
from optuna_quant.backends.torch.converted.packed_weights import pack_weights
from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.sums import keep_addends
from optuna_quant.backends.torch.converted.torchao_passes import load_passes
from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao
from optuna_quant.backends.torch.graph.ops import writes_in_place
from optuna_quant.backends.torch_program.quiet import without_idle_output


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from optuna_quant.backends.torch.converted.writing import WrittenOp


_logger = get_logger(__name__)
_ON_INTEGERS = ("static", "dynamic")


@dataclass(frozen=True, eq=False)
class LoweredProgram:
    """A program as it runs here.

    Args:
        graph:
            Takes the inputs in their order and gives the outputs as a tuple.
        ops:
            What became of the ops, in their order.
    """

    graph: GraphModule
    ops: tuple[WrittenOp, ...]


def run_as_it_is(program: ExportedProgram, ops: Sequence[WrittenOp]) -> LoweredProgram:
    """A program in its reference form, which computes in floats."""
    return LoweredProgram(_module(program), tuple(ops))


def lower_program(program: ExportedProgram, ops: Sequence[WrittenOp]) -> LoweredProgram:
    """Put in the kernels that this machine has.

    Integer kernels of convolutions and Linear layers come with torchao; without it, these ops
    compute in floats, which is said. Kernels for weights of 8 and 4 bits come with PyTorch.

    Args:
        program:
            The program in reference form; it is not changed.
        ops:
            What became of the ops.
    """
    has_passes = passes_for(ops)
    graph = packed_program(program, ops)
    if not has_passes:
        return LoweredProgram(graph, tuple(ops))
    # Decomposed operators are what the passes look for.
    with torch.no_grad(), quiet_torchao(), without_idle_output():
        graph = decomposed(graph, program)
        for node in graph.graph.nodes:
            if node.target is ATEN.t.default:
                node.target, node.args = ATEN.permute.default, (node.args[0], [1, 0])
            elif node.target in (ATEN.view.default, ATEN._unsafe_view.default):
                node.target = ATEN.reshape.default
        _put_in_kernels(graph)
        move_integers(graph)
    _drop_unread(graph)
    return LoweredProgram(graph, tuple(ops))


def passes_for(ops: Sequence[WrittenOp]) -> bool:
    """Have torchao's passes ready if a program needs them; a warning if they are not there.

    Args:
        ops:
            What became of the ops.

    Returns:
        False if they are needed and not there.
    """
    if not runs_on_integers(ops) or load_passes():
        return True
    _logger.warning(
        "torchao is not installed, so quantized ops run in floats, which takes longer than "
        "FP32: pip install torchao for integer kernels."
    )
    return False


def _put_in_kernels(graph: GraphModule) -> None:
    # The compiler takes seconds to import.
    from torch._inductor.constant_folding import constant_fold
    from torch._inductor.fx_passes.freezing_patterns import freezing_passes

    freezing_passes(
        graph, [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    )
    constant_fold(graph)


def packed_program(program: ExportedProgram, ops: Sequence[WrittenOp]) -> GraphModule:
    """A program in reference form, with this machine's kernels for weights of few bits.

    Linear layers get inputs that are contiguous, which others would not find a kernel for, and
    what is added to them is safe from kernels that write into it.
    """
    graph = _module(program)
    take_in_biases(graph)
    if not any(map(writes_in_place, graph.graph.nodes)):
        lift_quantizers(graph.graph)
    pack_weights(graph, ops)
    make_inputs_contiguous(graph)
    if runs_on_integers(ops):
        keep_addends(graph)
    return graph


def runs_on_integers(ops: Sequence[WrittenOp]) -> bool:
    """Whether any op has activations in integers, for which torchao has the kernels."""
    return any(op.mode in _ON_INTEGERS for op in ops)


def _module(program: ExportedProgram) -> GraphModule:
    found: Any = program.module(check_guards=False)
    return found  # type: ignore[no-any-return]


def _drop_unread(graph: GraphModule) -> None:
    """Remove tensors that no node reads: integers that a kernel has in another form."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for path, _ in list(graph.named_buffers()) + list(graph.named_parameters()):
        if path not in read:
            owner, _, name = path.rpartition(".")
            delattr(graph.get_submodule(owner), name)
