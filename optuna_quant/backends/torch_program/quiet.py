"""A module while it is exported: in evaluation mode, and without the exporter's own talk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import redirect_stderr
import io
import logging
import sys
from typing import TYPE_CHECKING
import warnings


if TYPE_CHECKING:
    import torch


@contextmanager
def in_evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """A module in evaluation mode; afterwards each submodule has the mode that it had."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


@contextmanager
def without_idle_output() -> Iterator[None]:
    """Without what the exporter says of packages that it can do without, and of its own code.

    If it fails, without the graph that it prints as well: the error says what is wrong.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch.export")]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(printed):
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch|onnx")
            yield
        sys.stderr.write(printed.getvalue())
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
