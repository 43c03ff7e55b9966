"""A table that is measured on a busy machine says so."""

from __future__ import annotations

import pytest
from spaces import STATIC
from spaces import make_space

from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs import Validation
from optuna_quant.costs.space_costs import SpaceCosts
from optuna_quant.space.config import FP32


@pytest.mark.parametrize(("noise", "is_said"), [(0.4, False), (0.6, True)])
def test_noise_that_is_larger_than_the_gain_is_said(noise: float, is_said: bool) -> None:
    space = make_space(2, (STATIC, FP32))
    ops = {f"op{i}": {STATIC.label: 0.75, FP32.label: 1.0} for i in range(2)}
    found = Costs(
        {"latency": CostTable("latency", "s", ops)},
        {},
        Validation((1.0, 2.0), (1.0, 2.0), noise, 1.0),
    )
    said = [line for line in SpaceCosts(space, found).summary() if "noise" in line]
    assert bool(said) == is_said
    if is_said:
        assert said[0].startswith(
            "the noise of the measurement, 600 ms, is larger than what can be gained, 500 ms"
        )


def test_a_time_that_is_too_short_to_be_measured_is_shown_as_such() -> None:
    space = make_space(2, (STATIC, FP32))
    ops = {
        "op0": {STATIC.label: 2e-6, FP32.label: 0.0},
        "op1": {STATIC.label: -1e-6, FP32.label: 3e-6},
    }
    found = SpaceCosts(space, Costs({"latency": CostTable("latency", "s", ops)}, {}))
    frame = found.add_to(space.to_frame(), shown=True)
    assert frame["fp32"].tolist() == ["< 0.1 us", "3 us"]
    assert frame["quantized"].tolist() == ["2 us", "< 0.1 us"]
    # Slower quantized: the gain is negative.
    assert frame["gain"].tolist() == ["-2 us", "4 us"]
