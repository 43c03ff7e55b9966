"""Run batches of samples one after the other, or several ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.data.labelled_data import Batch
    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.data.sample_runs import Rows
    from optuna_quant.data.sample_runs import SampleRunner


Indices: TypeAlias = "NDArray[np.integer[Any]]"
BatchOutputs: TypeAlias = "tuple[Outputs, Outputs, Indices]"
"""The outputs, the labels and the numbers of the samples of one batch."""


def run_batches(
    run: SampleRunner,
    read: Callable[[Indices], Batch],
    chunks: Iterable[Indices],
    *,
    threads: int,
) -> Generator[BatchOutputs, None, None]:
    """Run a model on batches, in order.

    Args:
        run:
            Runs the model.
        read:
            Reads the inputs and labels of some samples, in the calling thread.
        chunks:
            The samples of each batch.
        threads:
            How many batches are run at the same time. With several, as many are run ahead of what
            was asked for.
    """
    if threads == 1:
        for chosen in chunks:
            feed, labels = read(chosen)
            with _told_samples(chosen):
                outputs = run(feed, len(chosen))
            yield outputs, labels, chosen
        return
    ahead: deque[tuple[Future[Outputs], Rows, Indices]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="optuna_quant_data")
    try:
        for chosen in chunks:
            feed, labels = read(chosen)
            ahead.append((pool.submit(run, feed, len(chosen)), labels, chosen))
            del feed  # It is the worker's, and not kept while results are waited for.
            if len(ahead) > threads:
                yield _done(ahead.popleft())
        while ahead:
            yield _done(ahead.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _done(one: tuple[Future[Outputs], Rows, Indices]) -> BatchOutputs:
    future, labels, chosen = one
    with _told_samples(chosen):
        outputs = future.result()
    return outputs, labels, chosen


@contextmanager
def _told_samples(chosen: Indices) -> Iterator[None]:
    """Note in an error of the runtime which samples it was given."""
    try:
        yield
    except Exception as error:
        first, last = int(chosen.min()), int(chosen.max())
        which = f"sample {first}"
        if first != last:
            which = f"{len(chosen)} samples from {first} to {last}"
        error.add_note(f"It was run on {which} of the evaluation data.")
        raise
