"""Choose what shows progress: a live view on a terminal, a table in a notebook, else lines."""

from __future__ import annotations

import sys
import threading
from typing import Any
from typing import TextIO

from optuna_quant.callbacks.display import Display
from optuna_quant.callbacks.display import LineDisplay
from optuna_quant.callbacks.display import NoDisplay


def open_display(*, show: bool, stream: TextIO | None = None) -> Display:
    """The display that fits where the process runs.

    Args:
        show:
            Whether anything is shown at all.
        stream:
            Where to write. Default: ``sys.stderr``.
    """
    if not show:
        return NoDisplay()
    if stream is None and _in_notebook():
        from optuna_quant.callbacks.notebook_display import NotebookDisplay

        return NotebookDisplay()
    target = stream or sys.stderr
    if not _is_terminal(target) or threading.current_thread() is not threading.main_thread():
        return LineDisplay(stream)
    from rich.console import Console

    console = Console(file=target)
    if console.is_dumb_terminal:
        return LineDisplay(stream)
    from optuna_quant.callbacks.terminal_display import TerminalDisplay

    return TerminalDisplay(console)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # Closed, or no stream at all.
        return False


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    module: Any = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
