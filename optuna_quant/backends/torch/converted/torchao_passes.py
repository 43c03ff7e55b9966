"""torchao's passes that put integer kernels into a program, if torchao is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import importlib

from optuna_quant._common.process_wide import Ignored
from optuna_quant._common.process_wide import SharedChange
from optuna_quant._common.process_wide import ignoring
from optuna_quant._common.process_wide import only_errors


_X86 = "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"
_IDLE = (
    Ignored(UserWarning, module=r"torchao(\.|$)"),
    Ignored(UserWarning, module=r"torch\._(inductor|dynamo)(\.|$)"),
    Ignored(FutureWarning, ".*LeafSpec.*"),
    Ignored(FutureWarning, module=r"torch(ao)?(\.|$)"),
    Ignored(DeprecationWarning, module=r"torch(ao)?(\.|$)"),
)


def load_passes() -> bool:
    """Register torchao's passes with PyTorch; whether they are there."""
    with quiet_torchao():
        try:
            importlib.import_module(_X86)
        except ImportError:
            return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    with only_errors(["torchao", "torch.utils._pytree"]), ignoring(_IDLE):
        yield


_QUIET = SharedChange(_quiet)


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Without what torchao says of its libraries for other devices, and torch of its own code.

    This holds for the process until the last of the threads that are inside has left.
    """
    with _QUIET:
        yield
