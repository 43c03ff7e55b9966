"""Walks over a space: a permutation that needs no memory, and what is given out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
import itertools
import sys

from effort import examples
from generated import steady
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
from spaces import STATIC
from spaces import STATIC_KL
from spaces import make_space

from optuna_quant.samplers._engine.enumeration import Enumeration
from optuna_quant.samplers._engine.enumeration import Permutation
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


# Permutation.


@steady
@given(st.integers(1, 400), st.integers())
def test_a_permutation_has_every_item_once(size: int, seed: int) -> None:
    order = Permutation(size, seed=seed)
    items = [order(index) for index in range(size)]
    assert sorted(items) == list(range(size))
    assert items[0] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 18, 64, 65, 66, 4096, 4097, 4098])
def test_a_permutation_at_the_borders_of_its_bits(size: int) -> None:
    order = Permutation(size, seed=3)
    assert sorted(map(order, range(size))) == list(range(size))


@settings(steady, max_examples=examples(30))
@given(st.integers(2, 3**500), st.integers(0, 100), st.data())
def test_a_permutation_of_any_size_stays_inside(size: int, seed: int, data: st.DataObject) -> None:
    order = Permutation(size, seed=seed)
    indices = data.draw(st.lists(st.integers(0, size - 1), max_size=5, unique=True))
    items = [order(index) for index in [0, *indices]]
    assert items[0] == 0
    assert all(0 <= item < size for item in items)
    assert len(set(items)) == len({0, *indices})


def test_a_permutation_of_a_huge_space() -> None:
    size = 3**500
    first = [Permutation(size, seed=0)(index) for index in range(200)]
    assert len(set(first)) == 200
    # They are spread over the whole range.
    assert {item * 4 // size for item in first[1:]} == {0, 1, 2, 3}
    assert first == [Permutation(size, seed=0)(index) for index in range(200)]


@pytest.mark.parametrize("size", [10, 1000, 3**500])
def test_seeds_give_different_orders(size: int) -> None:
    orders = {tuple(map(Permutation(size, seed=s), range(1, min(size, 20)))) for s in range(20)}
    assert len(orders) == 20


def test_every_order_of_a_few_items_comes_up() -> None:
    counts = Counter(tuple(map(Permutation(4, seed=s), range(1, 4))) for s in range(1200))
    assert set(counts) == set(itertools.permutations([1, 2, 3]))
    assert min(counts.values()) > 100


def test_every_item_is_as_likely_at_every_place() -> None:
    counts = Counter(
        (place, item)
        for seed in range(600)
        for order in [Permutation(7, seed=seed)]
        for place, item in enumerate(map(order, range(7)))
    )
    assert counts.pop((0, 0)) == 600
    # 100 are expected; five standard deviations are 46.
    assert len(counts) == 36
    assert all(54 < count < 146 for count in counts.values())


def test_the_order_is_pinned() -> None:
    # Workers of different versions share a study; they must follow the same order.
    assert list(map(Permutation(12, seed=0), range(12))) == [0, 11, 10, 8, 9, 6, 3, 4, 7, 1, 2, 5]
    assert Permutation(3**100, seed=7)(1) == 129163176073013675195419312853876791931455132379


@pytest.mark.parametrize("index", [-1, 5, 6, 100])
def test_a_permutation_has_no_place_outside(index: int) -> None:
    with pytest.raises(IndexError, match=f"no place {index} among 5 items"):
        Permutation(5, seed=0)(index)


# Enumeration.


class Settled:
    """What was evaluated in full."""

    is_partial = False


@dataclass
class FakeHistory:
    """The one attribute that an enumeration reads."""

    outcomes: dict[str, Settled] = field(default_factory=dict)

    def settle(self, *configs: QuantConfig) -> None:
        self.outcomes.update(dict.fromkeys((config.key for config in configs), Settled()))


def enumeration(
    space: TuningSpace,
    order: Callable[[int], int] = lambda place: place,
    *,
    fallback: bool = True,
) -> Enumeration:
    return Enumeration(space, order, fallback=fallback, stage="all of them")


def walk(policy: Enumeration, history: FakeHistory) -> list[QuantConfig]:
    """Evaluate what comes, one after the other."""
    configs = []
    while (proposal := policy.next(history, {})) is not None:
        assert proposal.stage == "all of them"
        assert not policy.is_over(history)
        history.settle(proposal.config)
        configs.append(proposal.config)
    assert policy.is_over(history)
    return configs


@pytest.mark.parametrize("fallback", [True, False])
def test_every_config_comes_in_order(fallback: bool) -> None:
    space = make_space(3, (STATIC, STATIC_KL, FP32))
    configs = walk(enumeration(space, fallback=fallback), FakeHistory())
    count = 27 if fallback else 8
    assert configs == [space.config_at(index, fallback=fallback) for index in range(count)]


def test_another_order() -> None:
    space = make_space(3)
    configs = walk(enumeration(space, Permutation(8, seed=1)), FakeHistory())
    assert configs[0] == space.default()
    assert len(set(configs)) == 8
    assert configs != walk(enumeration(space), FakeHistory())


def test_what_is_evaluated_already_does_not_come() -> None:
    space = make_space(2)
    history = FakeHistory()
    history.settle(space.config_at(0), space.config_at(2))
    policy = enumeration(space)
    assert not policy.is_over(history)
    assert walk(policy, history) == [space.config_at(1), space.config_at(3)]


def test_what_is_claimed_is_passed_over_and_waited_for() -> None:
    space = make_space(1, (STATIC, STATIC_KL, FP32))
    first, second, third = (space.config_at(index) for index in range(3))
    history, policy = FakeHistory(), enumeration(space)
    claimed = {first.key: 0}
    assert policy.next(history, claimed).config == second
    claimed[second.key] = 1
    assert policy.next(history, claimed).config == third
    claimed[third.key] = 2
    assert policy.next(history, claimed) is None
    history.settle(second, third)
    assert not policy.is_over(history)
    assert policy.next(history, {first.key: 0}) is None
    history.settle(first)
    assert policy.is_over(history)
    assert policy.next(history, {}) is None


def test_what_failed_comes_again_before_anything_else() -> None:
    space = make_space(2)
    history, policy = FakeHistory(), enumeration(space)
    first = policy.next(history, {}).config
    second = policy.next(history, {first.key: 0}).config
    # The first one fails: its claim is gone, and it has no outcome.
    assert policy.next(history, {second.key: 1}).config == first
    history.settle(first, second)
    assert walk(policy, history) == [space.config_at(2), space.config_at(3)]


def test_the_last_one_that_fails_comes_again() -> None:
    space = make_space(1)
    history, policy = FakeHistory(), enumeration(space)
    history.settle(space.config_at(0))
    for _ in range(3):
        assert policy.next(history, {}).config == space.config_at(1)
        assert policy.next(history, {space.config_at(1).key: 0}) is None
        assert not policy.is_over(history)
    history.settle(space.config_at(1))
    assert policy.is_over(history)


def test_what_was_not_taken_comes_again() -> None:
    policy = enumeration(make_space(2))
    history = FakeHistory()
    assert policy.next(history, {}).config == policy.next(history, {}).config


@steady
@given(st.integers(0, 5), st.data())
def test_every_config_is_settled_once_whatever_happens(seed: int, data: st.DataObject) -> None:
    """Trials start, succeed and fail in any order; another process starts from the first."""
    space = make_space(3)
    order = Permutation(8, seed=seed)
    history, policy = FakeHistory(), enumeration(space, order)
    running: dict[str, QuantConfig] = {}
    settled: Counter[str] = Counter()
    for event in data.draw(
        st.lists(st.sampled_from(["ask", "ok", "fail", "restart"]), max_size=60)
    ):
        if event == "ask":
            proposal = policy.next(history, dict.fromkeys(running, 0))
            if proposal is not None:
                assert proposal.config.key not in running
                assert proposal.config.key not in history.outcomes
                running[proposal.config.key] = proposal.config
        elif event == "restart":
            policy = enumeration(space, order)
        elif running:
            key = data.draw(st.sampled_from(sorted(running)))
            config = running.pop(key)
            if event == "ok":
                history.settle(config)
                settled[key] += 1
        assert policy.is_over(history) == (len(history.outcomes) == 8)
    for config in running.values():
        history.settle(config)
        settled[config.key] += 1
    settled.update(config.key for config in walk(policy, history))
    assert set(settled.values()) == {1}
    assert len(settled) == 8


def test_a_huge_space_needs_no_memory() -> None:
    space = make_space(500, (STATIC, STATIC_KL, FP32))
    policy = enumeration(space, Permutation(space.size, seed=0))
    history = FakeHistory()
    seen = set()
    for _ in range(30):
        proposal = policy.next(history, {})
        seen.add(proposal.config.key)
        history.settle(proposal.config)
        assert not policy.is_over(history)
    assert len(seen) == 30
    assert sum(map(sys.getsizeof, vars(policy).values())) < 2000
