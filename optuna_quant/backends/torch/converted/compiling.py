"""A program as PyTorch's compiler makes it, where there is a C++ compiler."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
import torch

from optuna_quant.backends.torch.converted.torchao_passes import load_passes
from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from torch.fx import GraphModule


_logger = get_logger(__name__)


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

    load_passes()
    functions: list[Callable[..., Sequence[Any]]] = [torch.compile(graph, dynamic=None)]

    has_run: list[bool] = []

    def run(*args: Any) -> Sequence[Any]:
        # Warnings are of the whole process: only while it is compiled.
        quiet = nullcontext() if has_run else quiet_torchao()
        with torch.no_grad(), quiet, config.patch(freezing=True):
            try:
                found = functions[-1](*args)
                if not has_run:
                    has_run.append(True)
                return found
            except TorchDynamoException as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                _logger.warning(
                    f"PyTorch does not compile the program, which runs uncompiled: {reason}"
                )
                functions.append(graph)
                return graph(*args)  # type: ignore[no-any-return]

    return run
