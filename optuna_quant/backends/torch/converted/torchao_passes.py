"""torchao's passes that put integer kernels into a program, if torchao is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import importlib
import logging
import warnings


_X86 = "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"


def load_passes() -> bool:
    """Register torchao's passes with PyTorch; whether they are there."""
    with quiet_torchao():
        try:
            importlib.import_module(_X86)
        except ImportError:
            return False
    return True


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Without what torchao says of its libraries for other devices, and torch of its own code."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"torch(ao)?(\.|$)")
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            for module in (r"torchao(\.|$)", r"torch\._(inductor|dynamo)(\.|$)"):
                warnings.filterwarnings("ignore", category=UserWarning, module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
