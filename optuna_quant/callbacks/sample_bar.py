"""A bar that shows how many samples a trial has seen, and the bounds of its metric."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING
from typing import TextIO

from tqdm import tqdm


if TYPE_CHECKING:
    from optuna_quant.evaluation.sampled import Seen


_SECONDS_BETWEEN_BOUNDS = 0.5


class SampleBar:
    """Shows the trial that has last seen samples, on a terminal only.

    Args:
        stream:
            Where to show it. Default: ``sys.stderr`` as it is when something is shown.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._bar: tqdm[None] | None = None
        self._trial = -1
        self._bounded = 0.0

    def show(self, seen: Seen) -> None:
        """Show how far a trial is."""
        stream = self._stream or sys.stderr
        if not stream.isatty():
            return
        with self._lock:
            if self._bar is None or self._trial != seen.trial:
                self._clear()
                self._trial, self._bounded = seen.trial, 0.0
                self._bar = tqdm(
                    total=seen.of,
                    desc=f"trial {seen.trial}",
                    unit=" samples",
                    file=stream,
                    leave=False,
                    dynamic_ncols=True,
                )
            now = time.monotonic()
            if now - self._bounded >= _SECONDS_BETWEEN_BOUNDS:
                self._bar.set_postfix_str(_shown(seen), refresh=False)
                self._bounded = now
            self._bar.update(seen.samples - self._bar.n)

    def clear(self) -> None:
        """Take the bar away, so that a line can be written."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _shown(seen: Seen) -> str:
    metric = f"metric {seen.metric:.4g}"
    if seen.bounds is None:
        return metric
    low, high = seen.bounds()
    return f"{metric} ({low:.4g} to {high:.4g})"
