"""What the FP32 model gives for each sample, kept as that with which others are compared."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import copy
import threading
from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.sample_metrics import Keep
    from optuna_quant.sample_runs import Outputs
    from optuna_quant.sample_runs import Rows


class ReferenceOutputs:
    """The FP32 model's outputs, in memory, or what a metric needs of them.

    They are kept from passes in the order of the data only. So they are the same in all processes
    that run batches of one size, whatever else these evaluate.

    Args:
        keep:
            Gives what is kept of an output; :obj:`None` for all of it.
        per_sample:
            Whether samples are compared one by one. Then ``keep`` gets what the model gives for
            one of them.
    """

    def __init__(self, keep: Keep | None = None, *, per_sample: bool = False) -> None:
        self._keep = keep
        self._per_sample = per_sample
        self._lock = threading.RLock()
        self._known: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._stack: NDArray[Any] | None = None  # Where all have the same shape,
        self._rows: dict[int, Any] = {}  # and where they have not.

    def anew(self) -> ReferenceOutputs:
        """The same for other samples, of which nothing is known yet."""
        return ReferenceOutputs(self._keep, per_sample=self._per_sample)

    def take(self, chosen: NDArray[np.integer[Any]], output: Outputs, *, samples: int) -> Outputs:
        """Keep what the FP32 model gives for a batch, if the batch is in the order of the data.

        Args:
            chosen:
                Which samples the batch has.
            output:
                The FP32 model's output for them.
            samples:
                How many there are in all.

        Returns:
            What others are compared with on these samples.
        """
        found = self._kept(output)
        if not bool((np.diff(chosen) == 1).all()):
            return found
        with self._lock:
            if len(self._known) != samples:
                self._known = np.zeros(samples, dtype=bool)
            self._write(chosen, found, samples)
            self._known[chosen] = True
        return found

    def _kept(self, output: Outputs) -> Outputs:
        if self._keep is None:
            return output
        if self._per_sample:
            return list(map(self._keep, output))
        return np.asarray(self._keep(output))

    def _write(self, chosen: NDArray[Any], found: Outputs, samples: int) -> None:
        if not isinstance(found, np.ndarray):
            rows = zip(*found, strict=True) if isinstance(found, tuple) else found
            # The metric, which gets what is found here, may write into it.
            self._rows.update(zip(chosen.tolist(), map(copy.deepcopy, rows), strict=True))
            return
        if self._stack is None and not self._rows:
            self._stack = np.empty((samples, *found.shape[1:]), dtype=found.dtype)
        if self._stack is not None and (self._stack.shape[1:], self._stack.dtype) != (
            found.shape[1:],
            found.dtype,
        ):
            known = np.flatnonzero(self._known)
            self._rows = {int(index): self._stack[index] for index in known}
            self._stack = None
        if self._stack is not None:
            self._stack[chosen] = found
        else:
            self._rows.update(zip(chosen.tolist(), found.copy(), strict=True))

    def complete(self, run: Callable[[], None]) -> None:
        """See to it that all are known; only one thread runs the FP32 model for it.

        Args:
            run:
                Runs the FP32 model on all samples, in their order, and has the outputs taken.
        """
        with self._lock:
            if not (len(self._known) and self._known.all()):
                run()

    def of(self, chosen: NDArray[np.integer[Any]]) -> Outputs:
        """What others are compared with on some samples, once all are known."""
        if self._stack is not None:
            return np.asarray(self._stack[chosen])
        rows = [self._rows[index] for index in chosen.tolist()]
        if self._per_sample:
            return rows
        if isinstance(rows[0], tuple):
            return tuple(map(_stacked, zip(*rows, strict=True)))
        return _stacked(rows)


def _stacked(rows: Sequence[Any]) -> Rows:
    """Samples along the first axis of an array; a list where they have several shapes."""
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else list(rows)
