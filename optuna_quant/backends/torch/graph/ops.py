"""The ops of an exported program that can be quantized."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.graph.constant_view import ConstantView
from optuna_quant.backends.torch.graph.constant_view import constant_view


if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterator

    from torch.fx import Graph
    from torch.fx import Node


_GROUPS = 6
"""The position of the number of groups among the arguments of all convolutions."""


@dataclass(frozen=True)
class WeightPlace:
    """The constant weight of an op.

    Args:
        position:
            Its position among the arguments.
        bias:
            The position of the bias; None if the op takes none.
        axis:
            The axis of its output channels; None if there is none.
        of_inputs:
            The axis of its inputs, along which groups lie; None if groups are not possible.
    """

    position: int
    bias: int | None
    axis: int | None
    of_inputs: int | None = None


@dataclass(frozen=True)
class OpForm:
    """What an operator's arguments mean.

    Args:
        op_type:
            What the op is called: the class of PyTorch's module, or a word of that form.
        activations:
            The positions of the arguments that are activations.
        weight:
            The constant weight; None if it has none.
        default:
            Whether it is worth quantizing.
        dynamic:
            Whether it can find the range of its activations at run time.
        addends:
            The positions of arguments that are added to the product of the activations.
        element:
            Which element it is of the tuple that the operator gives; None if it gives a tensor.
    """

    op_type: str
    activations: tuple[int, ...]
    weight: WeightPlace | None = None
    default: bool = True
    dynamic: bool = False
    addends: tuple[int, ...] = ()
    element: int | None = None


@dataclass(frozen=True, eq=False)
class TorchOp:
    """An op of a program that can be quantized.

    Args:
        name:
            Its name: the path of its module, numbered from the second use of the module on.
        form:
            What its arguments mean.
        node:
            The name of its node.
        sources:
            The names of the nodes that give its activations.
        weight_view:
            The parameter that is its weight; None if it has none.
        shape:
            The shape of its weight, as the op reads it; None if it has none.
        groups:
            The number of groups of a convolution, else 1.
        batch_norm:
            The name of the node of the batch normalization that follows it alone; None if none
            does.
    """

    name: str
    form: OpForm
    node: str
    sources: tuple[str, ...]
    weight_view: ConstantView | None
    shape: tuple[int, ...] | None
    groups: int
    batch_norm: str | None

    @property
    def op_type(self) -> str:
        """What the op is called."""
        return self.form.op_type

    @property
    def weight(self) -> str | None:
        """The name of its weight among the program's parameters; None if it has none."""
        return None if self.weight_view is None else self.weight_view.path

    @property
    def shared_weight(self) -> str:
        """What is the same for ops whose weights are the same once quantized; empty without."""
        # A batch normalization is folded into the weight of its own op.
        if self.weight_view is None or self.batch_norm is not None:
            return ""
        return f"{self.weight_view.key} {self.form.weight}"

    @property
    def channel_axis(self) -> int | None:
        """The axis of the weight's output channels; None if each has no scale of its own."""
        if self.form.weight is None:
            return None
        # Of several groups, the first output channels share a place on that axis.
        return None if self.is_transposed and self.groups > 1 else self.form.weight.axis

    @property
    def has_groups(self) -> bool:
        """Whether its weight alone can be quantized, in groups."""
        return self.form.weight is not None and self.form.weight.of_inputs is not None

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.op_type.startswith("ConvTranspose")

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution, transposed or not."""
        return self.op_type.startswith("Conv")


def _forms() -> dict[object, OpForm]:
    aten = torch.ops.aten
    conv = WeightPlace(1, 2, 0)
    transposed = WeightPlace(1, 2, 1)
    table = WeightPlace(0, None, 0, 1)
    forms: dict[object, OpForm] = {
        aten.linear.default: OpForm("Linear", (0,), WeightPlace(1, 2, 0, 1), dynamic=True),
        aten.add.Tensor: OpForm("Add", (0, 1), default=False),
        aten.add_.Tensor: OpForm("Add", (0, 1), default=False),
        aten.embedding.default: OpForm("Embedding", (), table, default=False),
    }
    product = OpForm("MatMul", (0, 1), default=False)
    forms.update(dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), product))
    sum_of_products = OpForm("MatMul", (1, 2), default=False, addends=(0,))
    for name in ("addmm", "baddbmm", "addbmm"):
        forms[getattr(aten, name).default] = sum_of_products
    bag = OpForm("EmbeddingBag", (), table, default=False, element=0)
    forms[aten.embedding_bag.default] = forms[aten.embedding_bag.padding_idx] = bag
    for axes in (1, 2, 3):
        plain = OpForm(f"Conv{axes}d", (0,), conv)
        forms[getattr(aten, f"conv{axes}d").default] = plain
        forms[getattr(aten, f"conv{axes}d").padding] = plain
        name = "default" if axes == 1 else "input"
        forms[getattr(getattr(aten, f"conv_transpose{axes}d"), name)] = OpForm(
            f"ConvTranspose{axes}d", (0,), transposed, default=False
        )
    return forms


def find_ops(graph: Graph, modules: Collection[str]) -> tuple[TorchOp, ...]:
    """The ops of a program that can be quantized, in its order.

    Args:
        graph:
            The graph of the program, with parameters read by ``get_attr`` nodes.
        modules:
            The paths of all submodules.
    """
    forms = _forms()
    used: Counter[str] = Counter()
    found = []
    for node in graph.nodes:
        form = forms.get(node.target) if node.op == "call_function" else None
        if form is None:
            continue
        path = _name(node, form, modules)
        used[path] += 1
        if _fits(node, form):
            name = path if used[path] == 1 else f"{path}#{used[path]}"
            found.append(_op(name, node, form))
    return tuple(found)


def form_of(node: Node) -> OpForm | None:
    """What the arguments of a node mean; None if its operator cannot be quantized.

    Args:
        node:
            A node of a program.
    """
    return _forms().get(node.target) if node.op == "call_function" else None


def why_unfit(node: Node) -> str | None:
    """Why a node of an operator that can be quantized is no op; None of all other nodes.

    Args:
        node:
            A node of the program.
    """
    form = form_of(node)
    if form is None or _fits(node, form):
        return None
    value = node.meta.get("val")
    if form.element is not None and isinstance(value, (tuple, list)):
        value = value[form.element]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None  # It handles shapes or indices.
    place = form.weight.position if form.weight else None
    if place is not None and not (len(node.args) > place and _is_parameter(node.args[place])):
        return "its weight is computed, or not of 32 bits"
    if value.dtype != torch.float32:
        return f"it computes in {str(value.dtype).removeprefix('torch.')}"
    factors = [node.args[place] for place in form.activations]
    if writes_in_place(node) and all(map(_is_computed, factors)):
        return "it works in place, and a new tensor would be another one"
    if form.op_type == "MatMul":
        return "one of its factors is a constant, and it is no Linear layer"
    return None if place is None else "its activation or its bias is a constant"


def _op(name: str, node: Node, form: OpForm) -> TorchOp:
    args: tuple[Any, ...] = node.args
    weight = args[form.weight.position] if form.weight else None
    view = constant_view(weight)
    shape = tuple(int(size) for size in weight.meta["val"].shape) if weight is not None else None
    groups = 1
    if form.op_type.startswith("Conv"):
        # Arguments from the last one on that is its default are left out.
        groups = int(args[_GROUPS]) if len(args) > _GROUPS else 1
    return TorchOp(
        name,
        form,
        node.name,
        tuple(args[place].name for place in form.activations),
        view,
        shape,
        groups,
        _batch_norm(node) if form.op_type.startswith("Conv") else None,
    )


def _fits(node: Node, form: OpForm) -> bool:
    """Whether the arguments are what can be quantized."""
    if writes_in_place(node):
        return False
    if any(len(node.args) <= place for place in (*form.activations, *form.addends)):
        return False
    if not all(_is_activation(node.args[place]) for place in form.activations):
        return False
    if not all(_is_float(node.args[place]) for place in form.addends):
        return False
    if form.weight is None:
        return bool(form.addends) or not node.kwargs
    if len(node.args) <= form.weight.position or not _is_weight(node.args[form.weight.position]):
        return False
    bias = form.weight.bias
    if bias is None or len(node.args) <= bias or node.args[bias] is None:
        return "bias" not in node.kwargs and "weight" not in node.kwargs
    return _is_parameter(node.args[bias])


def _is_float(node: object) -> bool:
    value = getattr(node, "meta", {}).get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _is_activation(node: object) -> bool:
    given = getattr(node, "op", "") in ("call_function", "placeholder")
    return given and _is_float(node) and _is_computed(node)


def _is_computed(node: object) -> bool:
    return hasattr(node, "op") and constant_view(node) is None


def _is_weight(node: object) -> bool:
    return _is_float(node) and constant_view(node) is not None


def _is_parameter(node: object) -> bool:
    return _is_float(node) and getattr(node, "op", "") == "get_attr"


def _batch_norm(node: Node) -> str | None:
    """The batch normalization with fixed statistics that alone reads what an op gives."""
    if len(node.users) != 1:
        return None
    (reader,) = node.users
    if reader.target is not torch.ops.aten.batch_norm.default or reader.args[0] is not node:
        return None
    training = reader.args[5] if len(reader.args) > 5 else True
    known = not training and all(map(_is_parameter, reader.args[3:5]))
    affine = all(each is None or _is_parameter(each) for each in reader.args[1:3])
    return reader.name if known and affine else None


def _name(node: Node, form: OpForm, modules: Collection[str]) -> str:
    """The path of the module that it is, or whose weight it has, or that calls it."""
    path = next((each for each in reversed(list(_stack(node))) if each in modules), "")
    if form.weight is not None and len(node.args) > form.weight.position:
        view = constant_view(node.args[form.weight.position])
        owner, _, parameter = ("" if view is None else view.path).rpartition(".")
        layers = parameter.split("/")[:-1]
        if layers:  # A variable of Keras: the model, its layers, and what it is.
            return ".".join(layers[1:] or layers)
        # First the module that is called: another one may have the same weight.
        if path and not any(each.startswith(f"{path}.") for each in modules):
            return path
        if parameter == "weight" and owner in modules:
            return owner
    return f"{path}.{form.op_type}" if path else form.op_type


def writes_in_place(node: Node) -> bool:
    """Whether a node writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _stack(node: Node) -> Iterator[str]:
    for path, _ in (node.meta.get("nn_module_stack") or {}).values():
        yield str(path).partition("@")[0]
