"""Times of several things, measured in turn; by clocks that tests wind."""

from __future__ import annotations

import collections
from collections.abc import Callable
import functools
import itertools
import random

import pytest

from optuna_quant.costs.comparison import time_ratio
from optuna_quant.costs.timing import Timing
from optuna_quant.costs.timing import summarize
from optuna_quant.costs.timing import time_interleaved


class Clock:
    """A clock that goes on when something runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(name)
            self.now += seconds()

        return run


def test_things_run_in_turn_after_a_warmup() -> None:
    clock = Clock()
    runs = [clock.run("a", lambda: 1.0), clock.run("b", lambda: 2.0)]
    a, b = time_interleaved(runs, rounds=3, warmup=1, clock=clock)
    assert clock.ran == ["a", "b"] * 4
    assert (a.seconds, b.seconds) == (1.0, 2.0)
    assert a.runs == (1.0, 1.0, 1.0)
    assert a.noise == b.noise == 0.0


def test_two_things_run_in_turn_and_more_in_an_order_that_differs() -> None:
    def orders(count: int) -> list[int]:
        ran: list[int] = []
        runs = [functools.partial(ran.append, number) for number in range(count)]
        time_interleaved(runs, rounds=200, warmup=0)
        return ran

    assert orders(2) == [0, 1] * 200
    ran = orders(4)
    assert ran == orders(4)
    rounds = [ran[k : k + 4] for k in range(0, 800, 4)]
    assert all(sorted(each) == [0, 1, 2, 3] for each in rounds)
    followed = collections.Counter(itertools.pairwise(ran))
    # Each follows each other one about as often (67 times), and never itself.
    assert set(followed) == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert min(followed.values()) > 40


def test_a_limit_of_time_leaves_the_fewest_rounds() -> None:
    (timing,) = time_interleaved([lambda: None], rounds=50, seconds=0.0, fewest=4)
    assert len(timing.runs) == 4


def test_what_slows_all_down_is_no_noise() -> None:
    rng = random.Random(0)
    pace = [rng.uniform(1, 3) for _ in range(40)]
    timings = summarize([[p * s for p in pace] for s in (1.0, 1.1, 1.2)])
    assert all(timing.spread > 0.1 for timing in timings)
    assert all(timing.noise < 1e-6 for timing in timings)


def test_noise_shrinks_with_the_rounds() -> None:
    rng = random.Random(0)

    def noise(rounds: int) -> float:
        return summarize([[rng.gauss(1, 0.1) for _ in range(rounds)] for _ in range(3)])[0].noise

    assert noise(1000) < 0.5 * noise(20)


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 1), (1, -1)])
def test_numbers_out_of_range_are_refused(rounds: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="must"):
        time_interleaved([], rounds=rounds, warmup=warmup)


def of(runs: list[float]) -> Timing:
    return summarize([runs])[0]


def test_the_ratio_is_that_of_rounds() -> None:
    # The machine is ten times as slow in every second round.
    first, second = [1.0, 10.0] * 20, [2.0, 20.0] * 20
    ratio = time_ratio(of(first), of(second))
    assert (ratio.low, ratio.value, ratio.high) == (2.0, 2.0, 2.0)
    assert ratio.is_clear


def test_the_interval_of_the_ratio_covers_as_often_as_it_says() -> None:
    rng = random.Random(1)
    covered = 0
    for _ in range(400):
        a = [rng.lognormvariate(0, 0.1) for _ in range(30)]
        b = [1.05 * rng.lognormvariate(0, 0.1) for _ in range(30)]
        ratio = time_ratio(of(a), of(b))
        covered += ratio.low <= 1.05 <= ratio.high
    # 95% of 400 is 380, with a standard deviation of 4.4.
    assert covered >= 365


def test_equal_times_are_no_clear_difference() -> None:
    rng = random.Random(2)
    a, b = ([rng.gauss(1, 0.1) for _ in range(50)] for _ in range(2))
    assert not time_ratio(of(a), of(b)).is_clear


def test_times_of_different_rounds_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="1 and 2 rounds"):
        time_ratio(of([1.0]), of([1.0, 2.0]))
