"""What a function returned: scores, a number, or what is neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_quant.evaluation.function_scores import as_scores
from optuna_quant.evaluation.function_scores import margins_in


class Tensor:
    """As a tensor of PyTorch that is part of a graph and lies on another device."""

    def __init__(self, values: Any, *, known: bool = True) -> None:
        self._values = np.asarray(values)
        self._known = known
        self._detached = self._on_cpu = False

    def detach(self) -> Tensor:
        self._detached = True
        return self

    def cpu(self) -> Tensor:
        self._on_cpu = True
        return self

    def float(self) -> Tensor:
        self._known = True
        return self

    def numpy(self) -> Any:
        assert self._detached and self._on_cpu
        if not self._known:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self._values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1.0, 0.5]), [1.0, 0.5]),
        (np.array([True, False]), [1, 0]),
        ([1, 0, 1], [1, 0, 1]),
        ([0.5, np.float32(0.25)], [0.5, 0.25]),
        ([np.bool_(True), False], [1, 0]),
        (Tensor([0.5, 1.0]), [0.5, 1.0]),
        (Tensor([0.5, 1.0], known=False), [0.5, 1.0]),
        ([Tensor(0.5), Tensor(1.0)], [0.5, 1.0]),
        ((np.array([1.0, 0.5]), np.array([3.0, 4.0])), [1.0, 0.5]),
    ],
)
def test_scores_are_taken_from_what_holds_numbers(value: Any, expected: list[float]) -> None:
    found = as_scores(value)
    assert found is not None
    assert found.tolist() == expected


def test_booleans_stay_booleans() -> None:
    for value in ([True, False], np.array([True, False]), Tensor([True, False])):
        found = as_scores(value)
        assert found is not None and found.dtype == np.bool_


@pytest.mark.parametrize(
    "value",
    [0.5, 1, np.float32(0.5), np.array(0.5), np.array([0.5]), np.array([[0.5]]), Tensor(0.5)],
)
def test_one_number_is_the_metric(value: Any) -> None:
    assert as_scores(value) is None


@pytest.mark.parametrize("value", [None, "0.9", {"accuracy": 0.9}, (0.9, 0.1), iter([0.5])])
def test_what_is_no_array_is_left_to_those_who_want_a_number(value: Any) -> None:
    assert as_scores(value) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.zeros((3, 2)), r"an array of shape \(3, 2\) and type float64"),
        (np.zeros(0), r"shape \(0,\)"),
        ([], r"shape \(0,\)"),
        (np.array([1.0, None]), "type object"),
        (["a", "b"], "type <U1"),
        (np.array([1j, 2j]), "type complex128"),
        ([np.zeros(64), np.zeros(35)], r"several batches are joined by numpy.concatenate"),
        (Tensor(np.zeros((2, 2))), r"shape \(2, 2\)"),
    ],
)
def test_arrays_that_are_no_scores_are_refused(value: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=shown) as caught:
        as_scores(value)
    assert "one number, the metric, or one score for each sample" in str(caught.value)


def test_where_scores_are_asked_for_one_is_a_score() -> None:
    found = as_scores(np.array([0.5]), in_parts=True)
    assert found is not None and found.tolist() == [0.5]
    for value in (0.5, None, np.array(0.5), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="must return one score for each sample"):
            as_scores(value, in_parts=True)


def test_margins_are_the_second_of_a_pair() -> None:
    scores = np.array([True, False])
    found = margins_in((scores, [0.5, 2]), 2)
    assert found is not None and found.tolist() == [0.5, 2.0]
    assert margins_in(scores, 2) is None
    assert margins_in((0.9, 0.1), 2) is None
    for wrong in ([0.5], None, np.zeros((2, 2)), ["a", "b"]):
        with pytest.raises(ValueError, match="a pair of 2 scores and .*the margin of each sample"):
            margins_in((scores, wrong), 2)
