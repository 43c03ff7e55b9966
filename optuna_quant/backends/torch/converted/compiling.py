"""A program as PyTorch's compiler makes it, where there is a C++ compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
import torch

from optuna_quant._common.steps import doing
from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from torch.fx import GraphModule


_logger = get_logger(__name__)

_REMEMBERED = 4096
"""Of how many kinds of calls is remembered that the program is compiled for them."""


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which PyTorch's compiler needs on the CPU."""
    from torch._inductor import cpp_builder
    from torch._inductor import exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, RuntimeError, OSError):
        return False
    return True


def compiled(graph: GraphModule) -> Callable[..., Sequence[Any]]:
    """Compile a program in reference form; it happens at the first call.

    Integer kernels are found if torchao's passes are loaded.

    Without a C++ compiler, or where PyTorch's compiler fails, the program runs as it is, which is
    said.

    Args:
        graph:
            The program.
    """
    if not has_compiler():
        _logger.warning(
            "There is no C++ compiler, so the program is not compiled: install g++ or clang for "
            "torch.compile."
        )
        return graph
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config

    check = _input_check(graph)
    functions: list[Callable[..., Sequence[Any]]] = [torch.compile(graph, dynamic=None)]
    seen: set[tuple[Any, ...]] = set()

    def run(*args: Any) -> Sequence[Any]:
        kind = (*_circumstances(), *map(_kind, args))
        with torch.no_grad():
            if kind in seen:
                return functions[-1](*args)
            check(args)
            # Warnings and the setting are of the whole process: only while it may compile.
            step = doing("Compiling the model (torch.compile)")
            with step, quiet_torchao(), config.patch(freezing=True):
                try:
                    found = functions[-1](*args)
                except TorchDynamoException as error:
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    _logger.warning(
                        f"PyTorch does not compile the program, which runs uncompiled: {reason}"
                    )
                    functions.append(graph)
                    found = graph(*args)
            if len(seen) >= _REMEMBERED:
                seen.clear()
            seen.add(kind)
            return found

    return run


def _circumstances() -> tuple[Any, ...]:
    """What a program is compiled for, beside its inputs."""
    return (
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.is_autocast_enabled("cpu"),
    )


def _kind(value: Any) -> Any:
    """For what kind of input a program is compiled: all that makes PyTorch compile it again."""
    if isinstance(value, torch.Tensor):
        return (
            value.shape,
            value.stride(),
            value.dtype,
            value.device,
            value.requires_grad,
            value.is_inference(),
        )
    return type(value), value


def _input_check(graph: GraphModule) -> Callable[[tuple[Any, ...]], None]:
    """Take out of an exported program what looks at the shapes of inputs at each call.

    That takes as long as a small model; for shapes that passed once it is needed no more.

    Returns:
        The check; it raises for inputs that the program does not take.
    """
    hooks = [graph._forward_pre_hooks[number] for number in graph._forward_pre_hooks_with_kwargs]
    for each in (
        graph._forward_pre_hooks,
        graph._forward_pre_hooks_with_kwargs,
        graph._forward_hooks,
        graph._forward_hooks_with_kwargs,
        graph._forward_hooks_always_called,
    ):
        each.clear()

    def check(args: tuple[Any, ...]) -> None:
        for hook in hooks:
            hook(graph, args, {})

    return check
