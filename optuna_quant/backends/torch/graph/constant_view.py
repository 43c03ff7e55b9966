"""Parameters that a program rearranges before an op reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import torch


_ATEN: Any = torch.ops.aten

# Each value has one place afterwards.
_REARRANGING = frozenset(
    {
        _ATEN.permute.default,
        _ATEN.transpose.int,
        _ATEN.t.default,
        _ATEN.numpy_T.default,
        _ATEN.mT.default,
        _ATEN.swapaxes.default,
        _ATEN.movedim.int,
        _ATEN.movedim.intlist,
        _ATEN.reshape.default,
        _ATEN.view.default,
        _ATEN.flatten.using_ints,
        _ATEN.squeeze.default,
        _ATEN.squeeze.dim,
        _ATEN.squeeze.dims,
        _ATEN.unsqueeze.default,
        _ATEN.contiguous.default,
        _ATEN.clone.default,
        _ATEN.alias.default,
        _ATEN.detach.default,
    }
)


@dataclass(frozen=True, eq=False)
class Step:
    """An operator on a tensor.

    Args:
        target:
            The operator.
        args:
            Its arguments behind the tensor.
        kwargs:
            Its arguments by name.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ConstantView:
    """A parameter as an op reads it.

    Args:
        path:
            The name of the parameter.
        steps:
            What rearranges its values, in order.
    """

    path: str
    steps: tuple[Step, ...] = ()

    @property
    def key(self) -> str:
        """The same for parameters that are read in the same way."""
        return f"{self.path} {[(str(s.target), s.args, dict(s.kwargs)) for s in self.steps]}"

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, rearranged; gradients flow through."""
        for step in self.steps:
            tensor = step.target(tensor, *step.args, **step.kwargs)
        return tensor


def constant_view(node: object) -> ConstantView | None:
    """The parameter that a node gives, perhaps rearranged; None if it computes anything else.

    Args:
        node:
            An argument of a node.
    """
    steps: list[Step] = []
    current: Any = node
    while getattr(current, "op", "") == "call_function":
        if current.target not in _REARRANGING or len(current.all_input_nodes) != 1:
            return None
        steps.append(Step(current.target, tuple(current.args[1:]), dict(current.kwargs)))
        current = current.args[0]
    if getattr(current, "op", "") != "get_attr":
        return None
    return ConstantView(str(current.target), tuple(reversed(steps)))
