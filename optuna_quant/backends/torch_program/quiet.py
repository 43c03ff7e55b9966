"""A module while it is exported: in evaluation mode, and without the exporter's own talk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna_quant._common.process_wide import Ignored
from optuna_quant._common.process_wide import SharedChange
from optuna_quant._common.process_wide import ignoring
from optuna_quant._common.process_wide import only_errors
from optuna_quant._common.process_wide import stderr_if_done


if TYPE_CHECKING:
    import torch


_IDLE = (
    Ignored(FutureWarning, ".*LeafSpec.*"),
    Ignored(DeprecationWarning, module=r"torch|onnx"),
    # An LSTM keeps its weights in a list of its own, which the exporter takes for state.
    Ignored(UserWarning, r".*_flat_weights.* were assigned during export"),
)


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


_TALKATIVE = ("torch.onnx", "torch.fx", "torch.export")
_RAISED_AS_WELL = ("torch._subclasses.fake_tensor",)


@contextmanager
def _without_idle_lines() -> Iterator[None]:
    with only_errors(_TALKATIVE, silent=_RAISED_AS_WELL), ignoring(_IDLE):
        yield


_IDLE_LINES = SharedChange(_without_idle_lines)


@contextmanager
def without_idle_output() -> Iterator[None]:
    """Without what the exporter says of packages that it can do without, and of its own code.

    If it fails, without the graph that it prints as well: the error says what is wrong. Until the
    last of the threads that are inside has left, the loggers and the filters of these warnings
    are those of the process; what else is set meanwhile stays.
    """
    with _IDLE_LINES, stderr_if_done():
        yield
