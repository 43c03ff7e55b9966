"""What a model's output and the labels are read as, for metrics of the whole set."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_quant.evaluation.metrics.output_forms import class_pair
from optuna_quant.evaluation.metrics.output_forms import probability_pair
from optuna_quant.evaluation.metrics.output_forms import ranking_pair
from optuna_quant.evaluation.metrics.output_forms import tabled_ranking_pair
from optuna_quant.evaluation.metrics.output_forms import value_pair


SCORES = np.log([[0.2, 0.8, 1.0], [0.5, 0.25, 0.25]])
CLASSES = np.array([2, 1])
YES = np.array([[3.0], [-1.0], [0.5]])
TABLE = np.array([[0.9, 0.8], [0.1, 0.6]])


def lists(pair: tuple[np.ndarray, np.ndarray]) -> tuple[object, object]:
    right, predicted = pair
    return right.tolist(), predicted.round(9).tolist()


def test_classes() -> None:
    assert lists(class_pair("mine", SCORES, CLASSES)) == ([2, 1], [2, 0])
    assert lists(class_pair("mine", YES, np.array([1, 1, 0]))) == ([1, 1, 0], [1, 0, 1])
    several = np.array([[1, 1], [0, 0]])
    assert lists(class_pair("mine", TABLE, several)) == ([[1, 1], [0, 0]], [[1, 1], [0, 1]])


def test_how_probable_classes_are() -> None:
    shares = [[0.1, 0.4, 0.5], [0.5, 0.25, 0.25]]
    for pair in (ranking_pair, probability_pair):
        assert lists(pair("mine", SCORES, CLASSES)) == ([2, 1], shares)
    assert lists(tabled_ranking_pair("mine", SCORES, CLASSES)) == ([[0, 0, 1], [0, 1, 0]], shares)
    # Of two classes the second one; a probability of yes stays one.
    two = np.array([[0.25, 0.75]])
    assert lists(ranking_pair("mine", two, np.array([1]))) == ([1], [0.75])
    assert lists(probability_pair("mine", two[:, 1:], np.array([1]))) == ([1], [0.75])


def test_values() -> None:
    right, predicted = value_pair("mine", np.ones((2, 2, 2), np.float32), np.zeros((2, 4), int))
    assert right.shape == predicted.shape == (2, 4)
    assert right.dtype == predicted.dtype == np.float64


def test_what_does_not_fit_names_the_metric() -> None:
    with pytest.raises(ValueError, match="^mine needs the labels as class numbers.*fractions"):
        class_pair("mine", SCORES, CLASSES + 0.5)
    with pytest.raises(ValueError, match="^mine needs labels from 0 to 2, .* but one is 3"):
        ranking_pair("mine", SCORES, CLASSES + 1)
    with pytest.raises(ValueError, match="^mine needs as many values as the model gives"):
        value_pair("mine", SCORES, CLASSES)
