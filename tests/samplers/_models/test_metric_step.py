"""By what a metric changes with one sample, read from its values."""

from __future__ import annotations

import math

import pytest

from optuna_quant.samplers._models.metric_step import metric_step


@pytest.mark.parametrize("samples", [7, 400, 899, 2000])
def test_counts_tell_the_samples(samples: int):
    values = [(samples - lost) / samples for lost in (1, 3, 4)]
    assert metric_step(values) == pytest.approx(1 / samples)


def test_fractions_of_another_unit():
    assert metric_step([98.75, 97.5]) == pytest.approx(0.25)


def test_what_is_no_count_has_no_step():
    assert metric_step([0.5, math.pi / 4]) == 0.0
    # A perfect score is one, whatever the samples.
    assert metric_step([1.0, 0.0]) == 0.0
    assert metric_step([1 / 9973, 1 / 9967]) == 0.0
