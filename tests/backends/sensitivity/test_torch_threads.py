"""Torch runs in one thread where more are no quicker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


torch = pytest.importorskip("torch")

from optuna_quant.backends.sensitivity.torch_threads import QuickestThreads  # noqa: E402


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def threads_used(seconds: dict[int, float], pieces: int) -> list[int]:
    """The threads of each piece of work, where one takes so long with so many threads."""
    now = 0.0
    used: list[int] = []

    def work() -> int:
        nonlocal now
        used.append(torch.get_num_threads())
        now += seconds[used[-1]]
        return len(used)

    runs = QuickestThreads(clock=lambda: now)
    assert [runs.run(work) for _ in range(pieces)] == list(range(1, pieces + 1))
    assert torch.get_num_threads() == 4
    return used


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [({1: 1.0, 4: 0.3}, 4), ({1: 1.0, 4: 0.9}, 1), ({1: 1.0, 4: 2.0}, 1)],
)
def test_the_quicker_number_of_threads_is_found(seconds: dict[int, float], threads: int) -> None:
    used = threads_used(seconds, 10)
    assert used[:6] == [1, 1, 1, 4, 4, 4]
    assert set(used[6:]) == {threads}


def test_what_is_far_too_slow_is_tried_once() -> None:
    assert threads_used({1: 1.0, 4: 100.0}, 8) == [1, 1, 1, 4, 1, 1, 1, 1]


def test_one_thread_stays_one() -> None:
    torch.set_num_threads(1)
    runs = QuickestThreads()
    assert runs.run(torch.get_num_threads) == 1
    torch.set_num_threads(4)


def test_an_error_leaves_the_threads_as_they_were() -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        QuickestThreads().run(fail)
    assert torch.get_num_threads() == 4
