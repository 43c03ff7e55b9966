"""What runs for each op, read from the program that runs."""

from __future__ import annotations

from collections import defaultdict
from collections import deque
from typing import TYPE_CHECKING

from optuna_quant.backends.base import OpRuns
from optuna_quant.backends.torch.converted.exporting import ORIGIN


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping

    from torch.fx import Node

    from optuna_quant.backends.torch.converted.lowering import LoweredProgram


_INTEGER = ("qconv", "qlinear")
_FLOAT = frozenset(
    {
        "_convolution_pointwise",
        "_convolution_transpose_pointwise",
        "_linear_pointwise",
        "_mkl_linear",
        "_weight_int4pack_mm_for_cpu",
        "_weight_int8pack_mm",
        "_embedding_bag",
        "_embedding_bag_forward_only",
        "add",
        "addbmm",
        "addmm",
        "baddbmm",
        "bmm",
        "convolution",
        "embedding",
        "embedding_bag",
        "linear",
        "matmul",
        "mm",
        "sub",  # An addition that no kernel may take, see `sums`.
    }
)
_OF_FLOAT_WEIGHTS = frozenset(
    {"linear", "_linear_pointwise", "_mkl_linear", "mm", "addmm", "matmul"}
)
"""The kernels of Linear layers that take weights in floats; packed weights have their own."""


def executed_kernels(program: LoweredProgram) -> dict[str, OpRuns]:
    """What runs for each op of a program, by the op's name; ``OpRuns()`` where it is not found.

    A kernel is known by the tensors that it reads, else by the op that its node comes from.

    Args:
        program:
            The program.
    """
    modes = {op.name: op.mode for op in program.ops}
    nodes = kernel_nodes(program)
    return {
        name: _runs(str(_kernel(nodes[name])), mode) if name in nodes else _unknown(mode)
        for name, mode in modes.items()
    }


def kernel_nodes(program: LoweredProgram) -> dict[str, Node]:
    """The node that does the work of each op, by the op's name, where it is found.

    Args:
        program:
            The program.
    """
    owners: dict[str, deque[str]] = defaultdict(deque)
    for op in program.ops:
        for path in op.tensors.values():
            # Several ops may share one.
            owners[path].append(op.name)
    modes = {op.name: op.mode for op in program.ops}
    found: dict[str, Node] = {}
    for node in program.graph.graph.nodes:
        kernel = _kernel(node)
        if kernel is None:
            continue
        name = _by_tensors(node, owners, found) or _by_origin(node, modes)
        if name is not None and (name not in found or not _is_compute(str(_kernel(found[name])))):
            found[name] = node
    return found


def _runs(kernel: str, mode: str) -> OpRuns:
    is_integer = _is_integer(kernel)
    note = ""
    if mode in ("static", "dynamic") and not is_integer:
        note = "computes in floats what integers would give"
    elif mode == "bf16":
        note = "computes in bf16"
    elif mode == "weight_only" and kernel.partition(".")[2] in _OF_FLOAT_WEIGHTS:
        note = "its weight becomes floats at each run: PyTorch has no kernel for this form of it"
    return OpRuns(kernel, is_integer, note)


def _unknown(mode: str) -> OpRuns:
    # No kernel for integers is ever put in the place of these.
    return OpRuns(integer=False) if mode in ("fp32", "bf16", "weight_only") else OpRuns()


def _kernel(node: Node) -> str | None:
    """The name of the kernel of a node; None if it does no op's work."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return None
    namespace, _, name = schema.name.partition("::")
    if name.startswith(_INTEGER) or name.startswith("conv") or name in _FLOAT:
        return None if "prepack" in name else f"{namespace}.{name}"
    return None


def _is_integer(kernel: str) -> bool:
    return kernel.partition(".")[2].startswith(_INTEGER)


def _is_compute(kernel: str) -> bool:
    return not kernel.endswith((".add", ".sub", ".embedding"))


def _by_tensors(
    node: Node, owners: Mapping[str, deque[str]], found: Mapping[str, Node]
) -> str | None:
    for path in _paths_read(node):
        names = [name for name in owners.get(path, ()) if name not in found]
        if names:
            return names[0]
    return None


def _paths_read(node: Node) -> Iterator[str]:
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            yield str(source.target)


def _by_origin(node: Node, modes: Mapping[str, str]) -> str | None:
    name = (node.meta.get("custom") or {}).get(ORIGIN)
    return name if name in modes else None
