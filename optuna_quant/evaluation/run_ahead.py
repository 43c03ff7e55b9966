"""Run batches of samples one after the other, or several ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
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
            yield _run(run, feed, chosen), labels, chosen
        return
    ahead: deque[tuple[Future[Outputs], Rows, Indices]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="optuna_quant_data")
    try:
        for chosen in chunks:
            feed, labels = read(chosen)
            ahead.append((pool.submit(_run, run, feed, chosen), labels, chosen))
            del feed  # It is the worker's, and not kept while results are waited for.
            if len(ahead) > threads:
                yield _done(ahead.popleft())
        while ahead:
            yield _done(ahead.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _done(one: tuple[Future[Outputs], Rows, Indices]) -> BatchOutputs:
    future, labels, chosen = one
    return future.result(), labels, chosen


def _run(run: SampleRunner, feed: Mapping[str, Rows], chosen: Indices) -> Outputs:
    """Run a batch; an error of the runtime gets a note of the samples that it was given."""
    try:
        return run(feed, len(chosen))
    except Exception as error:
        error.add_note(_which_fails(run, feed, chosen))
        raise


def _which_fails(run: SampleRunner, feed: Mapping[str, Rows], chosen: Indices) -> str:
    """Which of the samples of a batch that fails is the reason, as far as that can be told."""
    if len(chosen) == 1:
        return f"It was run on {_described(run, feed, 0, chosen)}."
    for place in range(len(chosen)):
        alone = {name: rows[place : place + 1] for name, rows in feed.items()}
        try:
            run(alone, 1)
        except Exception:
            return f"It fails on {_described(run, feed, place, chosen)}."
    return (
        f"It was run on {len(chosen)} samples from {chosen.min()} to {chosen.max()} of the "
        f"evaluation data, the first with {_shapes(run, feed, 0)}, and fails on none of them "
        "alone."
    )


def _described(run: SampleRunner, feed: Mapping[str, Rows], place: int, chosen: Indices) -> str:
    return f"sample {chosen[place]} of the evaluation data, with {_shapes(run, feed, place)}"


def _shapes(run: SampleRunner, feed: Mapping[str, Rows], place: int) -> str:
    shapes = [f"{spec.name!r} {np.shape(feed[spec.name][place])}" for spec in run.inputs]
    return f"inputs of shape {', '.join(shapes)}"
