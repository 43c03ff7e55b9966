"""Names for the ops of an exported module: the paths of its submodules."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx


_SCOPES = "pkg.torch.onnx.name_scopes"
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def name_by_module(model: onnx.ModelProto, modules: Collection[str]) -> dict[str, str]:
    """Rename the nodes of an exported model after the modules that they come from.

    The op that has a module's weight has the module's path: ``layer1.0.conv1``. Any other node has
    the path of the module whose ``forward`` calls it, and its operator: ``layer1.0.Add``. What is
    there more than once, such as the ops of a module that is called twice, is numbered from the
    second on: ``layer1.0.conv1#2``.

    Args:
        model:
            The model, with what the exporter has noted of each node. Nodes are renamed.
        modules:
            The paths of all submodules.

    Returns:
        The path of the module of each node, by the node's new name; ``""`` is the model itself.
    """
    known = set(modules)
    used: Counter[str] = Counter()
    found: dict[str, str] = {}
    for node in model.graph.node:
        path = _path_of_weight(node, known)
        if path is None:
            path = _path_of_call(node, known)
            # Of a Linear that becomes a MatMul and an Add, the first one has the weight.
            leaf = path if node.op_type in _WITH_WEIGHTS and _is_leaf(path, known) else None
            name = leaf or ".".join(part for part in (path, node.op_type) if part)
        else:
            name = path
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}#{used[name]}"
        found[node.name] = path
    return found


def _path_of_weight(node: onnx.NodeProto, modules: set[str]) -> str | None:
    """The module whose parameter a node with weights reads, by the parameter's name."""
    if node.op_type not in _WITH_WEIGHTS or len(node.input) < 2:
        return None
    path, _, parameter = node.input[1].rpartition(".")
    return path if parameter == "weight" and path in modules else None


def _path_of_call(node: onnx.NodeProto, modules: set[str]) -> str:
    """The module in whose ``forward`` a node was called, as the exporter has noted."""
    noted = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    try:
        scopes = ast.literal_eval(noted)
    except (SyntaxError, ValueError):  # Of a later exporter; then it counts as the model's own.
        scopes = []
    return next((each for each in reversed(scopes) if each and each in modules), "")


def _is_leaf(path: str, modules: set[str]) -> bool:
    return bool(path) and not any(each.startswith(f"{path}.") for each in modules)
