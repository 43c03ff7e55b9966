"""Keep the FP32 model's outputs for each sample, with which others are compared."""

from __future__ import annotations

from collections.abc import Callable
import copy
import threading
from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.data.sample_runs import Rows
    from optuna_quant.evaluation.metrics.sample_metrics import Keep


class ReferenceOutputs:
    """The FP32 model's outputs, in memory, or what a metric needs of them.

    They are kept from passes in the order of the data only. So they are the same in all processes
    that run batches of one size, whatever else these evaluate.

    Args:
        keep:
            Gives what is kept of an output; :obj:`None` for all of it.
        per_sample:
            Whether outputs are lists of what runs of single samples have given, and ``keep`` is
            of one of them.
    """

    def __init__(self, keep: Keep | None = None, *, per_sample: bool = False) -> None:
        self._keep = keep
        self._per_sample = per_sample
        self._lock = threading.RLock()
        self._known: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._stack: NDArray[Any] | None = None  # Where all have the same shape,
        self._rows: dict[int, Any] = {}  # and where they have not.

    def for_other_samples(self) -> ReferenceOutputs:
        """The same for other samples, of which nothing is known yet."""
        return ReferenceOutputs(self._keep, per_sample=self._per_sample)

    def take(self, chosen: NDArray[np.integer[Any]], output: Outputs, *, samples: int) -> Rows:
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

        Raises:
            ValueError:
                If there are several outputs, and nothing says what is kept of them.
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

    def _kept(self, output: Outputs) -> Rows:
        if self._per_sample:
            assert isinstance(output, list)
            return output if self._keep is None else [self._keep(each) for each in output]
        if isinstance(output, list):  # Of samples of several shapes.
            keep = self._keep
            return output if keep is None else [np.asarray(keep(each[None]))[0] for each in output]
        if self._keep is not None:
            return np.asarray(self._keep(output))
        if isinstance(output, tuple):
            raise ValueError(
                "A metric that compares several outputs with the FP32 model's needs keep=, a "
                "function that reduces them to the one array to be kept."
            )
        return output

    def _write(self, chosen: NDArray[Any], found: Rows, samples: int) -> None:
        if isinstance(found, list):
            self._write_rows(chosen, found)
            return
        if self._stack is None and not self._rows:
            self._stack = np.empty((samples, *found.shape[1:]), dtype=found.dtype)
        if self._stack is not None and (self._stack.shape[1:], self._stack.dtype) != (
            found.shape[1:],
            found.dtype,
        ):
            self._unstack()
        if self._stack is not None:
            self._stack[chosen] = found
        else:
            self._write_rows(chosen, found)

    def _write_rows(self, chosen: NDArray[Any], found: Rows) -> None:
        if self._stack is not None:
            self._unstack()
        # The metric, which gets what is found here, may write into it.
        self._rows.update(zip(chosen.tolist(), copy.deepcopy(found), strict=True))

    def _unstack(self) -> None:
        assert self._stack is not None
        known = np.flatnonzero(self._known)
        self._rows = {int(index): self._stack[index] for index in known}
        self._stack = None

    def complete(self, run: Callable[[], None]) -> None:
        """See to it that all are known; only one thread runs the FP32 model for it.

        Args:
            run:
                Runs the FP32 model on all samples, in their order, and has the outputs taken.
        """
        with self._lock:
            if not (len(self._known) and self._known.all()):
                run()

    def of(self, chosen: NDArray[np.integer[Any]]) -> Rows:
        """What others are compared with on some samples, once all are known."""
        if self._stack is not None:
            return np.asarray(self._stack[chosen])
        rows = [self._rows[index] for index in chosen.tolist()]
        shapes = {row.shape if isinstance(row, np.ndarray) else None for row in rows}
        is_stack = not self._per_sample and len(shapes) == 1 and None not in shapes
        return np.stack(rows) if is_stack else rows
