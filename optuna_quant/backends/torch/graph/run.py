"""Running a graph module node by node, such that what it gives can be differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.fx.interpreter import Interpreter
from torch.fx.node import map_aggregate
from torch.nn.attention import SDPBackend
from torch.nn.attention import sdpa_kernel


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.fx import GraphModule


_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_ONE_THREAD = RLock()
"""PyTorch's flags are of the process: threads that overlap would restore what others have set."""


class GraphRun(Interpreter):
    """Runs a graph module on tensors of one floating-point type.

    Gradients also pass where the program stops them: quantization errors pass there as well.

    Args:
        graph:
            The graph module.
        dtype:
            The type that stands for float32 in it; its buffers must be of that type.
    """

    def __init__(self, graph: GraphModule, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(graph)
        self._dtype = dtype

    def call_function(
        self, target: Callable[..., object] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> object:
        """What a node of an operator gives."""
        aten = torch.ops.aten
        if target in (aten.detach.default, aten.detach_.default):
            return args[0]
        if target is torch.ops.higher_order.wrap_with_set_grad_enabled:
            _, inner, *inputs = args
            return GraphRun(inner, self._dtype).run(*inputs)
        if self._dtype != torch.float32:
            if target is aten._assert_tensor_metadata.default:
                return None
            args, kwargs = map_aggregate((args, kwargs), self._own_type)
        return super().call_function(target, args, kwargs)

    def _own_type(self, value: Any) -> Any:
        return self._dtype if value is torch.float32 else value


@contextmanager
def plain_kernels(graph: GraphModule) -> Iterator[None]:
    """With the attention and the recurrent layers of a graph module made of plain operators.

    Those can be differentiated twice, and their multiply-adds can be counted. Until the end this
    holds for the whole process, so one thread at a time is inside.

    Args:
        graph:
            The graph module.
    """
    called = {str(node.target).removeprefix("aten.").split(".")[0] for node in graph.graph.nodes}
    with _ONE_THREAD, ExitStack() as stack:
        if "scaled_dot_product_attention" in called:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if called & _RECURRENT:
            unchanged: Any = None
            others = dict.fromkeys(("deterministic", "allow_tf32", "fp32_precision"), unchanged)
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False, **others))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
