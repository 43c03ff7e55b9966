"""What a model is worth against FP32, and how far a measurement of it can be trusted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Gain
from optuna_quant.costs.gain import measure_against


class Machine:
    """Runs two models; the quantized one takes what a function says of the number of its run."""

    def __init__(self, quantized: Callable[[int], float]) -> None:
        self.now = 0.0
        self.runs = 0
        self._quantized = quantized

    def fp32(self) -> None:
        self.now += 1.0

    def quantized(self) -> None:
        self.now += self._quantized(self.runs)
        self.runs += 1

    def measure(self) -> Ratio:
        found = measure_against(self.fp32, [self.quantized], clock=lambda: self.now)
        return found.ratios[0]


def gain(seconds: float, ratio: float) -> str:
    found = Gain(
        seconds=seconds, fp32_seconds=0.289e-3, time_ratio=Ratio(ratio, ratio * 0.99, ratio * 1.01)
    )
    return str(found)


def test_a_ratio_is_the_quotient_of_the_times_beside_it_or_says_what_it_is() -> None:
    assert gain(0.1445e-3, 0.5) == "0.144 ms against FP32 0.289 ms (2 times faster)"
    assert gain(0.186e-3, 0.55) == (
        "0.186 ms against FP32 0.289 ms (1.8 times faster in the median of paired runs)"
    )


def test_the_seconds_of_a_measurement_fit_its_ratio_on_a_busy_machine() -> None:
    rounds = [(1.0, 0.5), (3.0, 3.0), (3.0, 0.6)]  # The medians are 3 and 0.6, that of ratios 0.5.
    now, runs = 0.0, 0

    def run(model: int) -> None:
        nonlocal now, runs
        now += rounds[runs // 2 % 3][model]
        runs += 1

    found = measure_against(lambda: run(0), [lambda: run(1)], clock=lambda: now)
    assert found.ratios[0].value == 0.5
    assert (found.fp32_seconds, found.seconds) == (3.0, [1.5])


def test_a_steady_measurement_is_made_once() -> None:
    machine = Machine(lambda run: 0.5)
    ratio = machine.measure()
    assert ratio.value == 0.5
    # No narrower than 1% to both sides.
    assert (ratio.low, ratio.high) == pytest.approx((0.49, 0.51))
    assert machine.runs < 500


def test_it_is_measured_again_and_longer_where_the_halves_disagree() -> None:
    # At the start something else slows the quantized model down.
    machine = Machine(lambda run: 1.7 if run < 150 else 0.95)
    ratio = machine.measure()
    assert machine.runs > 4 * 400
    assert ratio.value == pytest.approx(0.95)
    assert ratio.high < 1


def test_halves_that_disagree_still_are_both_in_the_interval() -> None:
    # 402 and 1602 runs with the warm-up: in both measurements the second half is another one.
    machine = Machine(lambda run: 0.6 if run < 202 or 402 <= run < 1204 else 1.05)
    ratio = machine.measure()
    assert ratio.low <= 0.6
    assert ratio.high >= 1.05
    gain = Gain(seconds=1.0, fp32_seconds=1.0, time_ratio=ratio)
    assert gain.is_faster is None
    assert "no difference beyond noise, 95% interval 0.6 to 1.1 of its time" in str(gain)


@pytest.mark.parametrize(
    ("low", "value", "high", "is_faster"),
    [
        (0.5, 0.6, 0.9, True),
        (1.1, 1.5, 3.0, False),
        (0.97, 1.0, 1.03, False),  # Whatever it is, it is no gain to speak of.
        (0.97, 1.0, 2.0, False),
        (0.6, 1.2, 1.7, None),
    ],
)
def test_a_model_is_faster_by_more_than_noise_or_not_or_that_is_not_known(
    low: float, value: float, high: float, is_faster: bool | None
) -> None:
    gain = Gain(seconds=value, fp32_seconds=1.0, time_ratio=Ratio(value, low, high))
    assert gain.is_faster is is_faster
