"""The calibration sample that is at fault, found by running its batch one by one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.calibration.faulty_samples import FaultySamples
from optuna_quant.backends.calibration.faulty_samples import OutputCheck
from optuna_quant.data.inputs import InputSpec


X = InputSpec("x", np.dtype(np.float32), ("n", 2))
FIXED = InputSpec("x", np.dtype(np.float32), (4, 2))


def roots(feed: dict[str, NDArray[Any]], tensors: Collection[str]) -> dict[str, NDArray[Any]]:
    with np.errstate(invalid="ignore"):
        return {name: np.sqrt(feed["x"]) for name in tensors}


def found(x: NDArray[np.float32], spec: InputSpec = X) -> list[str]:
    data = CalibrationData(x, [spec], batch_size=4)
    faults = FaultySamples(data, roots)
    places, seen = [], 0
    for piece in data.pieces([len(x)]):
        places.append(faults.find(["root"], piece, seen)["root"])
        seen += piece.samples
    return places


def test_a_sample_is_named_and_where_batches_are_fixed_the_batch() -> None:
    x = np.ones((8, 2), np.float32)
    x[2], x[5] = -1, -1
    assert found(x) == ["calibration sample 2", "calibration sample 5"]
    assert found(x, FIXED) == ["calibration samples 0 to 3", "calibration samples 4 to 7"]


def test_a_model_that_fails_on_one_sample_leaves_the_batch() -> None:
    def fails(feed: dict[str, NDArray[Any]], tensors: Collection[str]) -> dict[str, Any]:
        raise RuntimeError("at least two samples")

    data = CalibrationData(np.ones((4, 2), np.float32), [X])
    (piece,) = data.pieces([4])
    places = FaultySamples(data, fails).find(["root"], piece, 10)
    assert places == {"root": "calibration samples 10 to 13"}


@pytest.mark.parametrize(
    "bad, refused", [([], ""), ([6], "sample 6,"), ([6, 7], "sample 6,"), ([*range(8)], "")]
)
def test_the_output_may_be_nan_for_all_samples_or_none(bad: list[int], refused: str) -> None:
    x = np.ones((8, 2), np.float32)
    x[bad] = -1
    data = CalibrationData(x, [X], batch_size=4)
    check, seen = OutputCheck(FaultySamples(data, roots)), 0
    for piece in data.pieces([8]):
        check.see("root", roots(piece.feed, ["root"])["root"], piece, seen)
        seen += piece.samples
    if refused:
        with pytest.raises(ValueError, match=f"output is NaN for calibration {refused}"):
            check.check()
    else:
        check.check()
