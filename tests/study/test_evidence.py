"""On what part of the samples a trial was evaluated, as its record keeps it."""

from __future__ import annotations

import math

import pytest

from optuna_quant.study.evidence import COMPLETE
from optuna_quant.study.evidence import Evidence


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(decision=COMPLETE, samples=10, of=10, evaluated=4),
        Evidence(
            decision="fails",
            samples=4,
            of=10,
            estimate=0.5,
            bounds=(-math.inf, 0.75),
            error_probability=0.0,
            method="exact",
            reason="Cannot meet the criterion.",
        ),
    ],
)
def test_evidence_is_read_as_it_was_written(evidence: Evidence) -> None:
    stored = evidence.to_attr()
    assert None not in stored.values()
    assert math.inf not in stored.get("bounds", [])
    assert Evidence.from_attr(stored) == evidence


def test_the_cost_of_a_trial_is_what_it_has_evaluated_itself() -> None:
    assert Evidence(decision="open", samples=8, of=10, evaluated=3).cost == 0.3
    assert Evidence(decision="open", samples=8, of=10).cost == 0.8
