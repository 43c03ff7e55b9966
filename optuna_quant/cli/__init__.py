"""The command `optuna-quant`.

May import: `dashboard` and what is below it.
"""

from __future__ import annotations

from collections.abc import Sequence
import sys

from optuna_quant.cli.exit_codes import INTERRUPTED
from optuna_quant.cli.messages import noted_interrupts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; what takes long to import is imported here, where Ctrl-C is expected.

    Args:
        argv:
            The arguments. Default: those of the process.

    Returns:
        The exit code: 0 met, 1 not met, 2 bad input, 3 failed on the way, 4 no gain, 130
        interrupted.
    """
    interrupts: list[int] = []
    try:
        with noted_interrupts() as interrupts:
            from optuna_quant.cli.parser import main as run
        return run(argv)
    except KeyboardInterrupt:
        interrupted = True
    except ImportError:
        interrupted = bool(interrupts)  # A compiled module that was just imported.
        if not interrupted:
            raise
    print("optuna-quant: interrupted before it had started", file=sys.stderr)
    return INTERRUPTED


__all__ = ["main"]
