"""Counting the samples that run through models."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime


class Counter:
    """Counts the samples that run through models, those of evaluations apart from others."""

    def __init__(self) -> None:
        self.evaluation_rows = 0
        self.other_rows = 0
        self._depth = 0

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """What runs in here is an evaluation."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def count(self, rows: int) -> None:
        if self._depth:
            self.evaluation_rows += rows
        else:
            self.other_rows += rows


def count_runs(counter: Counter) -> None:
    """Have every run of every session from now on counted, and give sessions one thread.

    To be called before anything is imported that imports names of onnxruntime. One thread each
    makes processor times comparable; a session whose options say otherwise keeps them.
    """
    real = onnxruntime.InferenceSession

    class Session(real):  # type: ignore[misc, valid-type]
        def __init__(
            self, model: Any, sess_options: Any = None, *args: Any, **kwargs: Any
        ) -> None:
            options = onnxruntime.SessionOptions() if sess_options is None else sess_options
            if options.intra_op_num_threads == 0:
                options.intra_op_num_threads = 1
            super().__init__(model, options, *args, **kwargs)

        def run(self, names: Any, feed: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
            counter.count(max(_rows(value) for value in feed.values()))
            return super().run(names, feed, *args, **kwargs)

    onnxruntime.InferenceSession = Session
    onnxruntime.capi.onnxruntime_inference_collection.InferenceSession = Session


def _rows(value: Any) -> int:
    shape = np.shape(value)
    return int(shape[0]) if shape else 1
