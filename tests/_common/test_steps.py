from __future__ import annotations

from threading import Event
from threading import Thread

import pytest

from optuna_quant._common import steps
from optuna_quant._common.steps import LateTeller
from optuna_quant._common.steps import doing
from optuna_quant._common.steps import listening


def test_the_step_that_began_last_is_told_and_then_the_one_around_it() -> None:
    told: list[str] = []
    with listening(told.append), doing("measuring"), doing("compiling"):
        pass
    assert told == ["measuring", "compiling", "measuring", "", ""]


def test_a_step_can_stand_for_those_within_it() -> None:
    told: list[str] = []
    with listening(told.append), doing("measuring", hides=True), doing("compiling"):
        pass
    assert set(told) == {"measuring", ""}


def test_a_step_that_fails_is_over() -> None:
    told: list[str] = []
    with listening(told.append):
        with pytest.raises(KeyboardInterrupt), doing("compiling"):
            raise KeyboardInterrupt
        assert told[-1] == ""


def test_the_step_of_another_thread_goes_on_when_one_ends() -> None:
    told: list[str] = []
    started, ends = Event(), Event()

    def convert() -> None:
        with doing("converting"):
            started.set()
            ends.wait()

    with listening(told.append), doing("training"):
        thread = Thread(target=convert)
        thread.start()
        started.wait()
        assert told[-1] == "converting"
        ends.set()
        thread.join()
        assert told[-1] == "training"


def test_the_inner_listener_alone_is_told() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with listening(outer.append):
        with listening(inner.append), doing("compiling"):
            pass
        with doing("evaluating"):
            pass
    assert "compiling" in inner and "compiling" not in outer
    assert "evaluating" in outer and "evaluating" not in inner


def test_a_log_has_what_takes_long_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TOLD_AFTER_SECONDS", 0.0)
    told: list[str] = []
    came = Event()

    def tell(line: str) -> None:
        told.append(line)
        came.set()

    late = LateTeller(tell)
    late("compiling")
    assert came.wait(60)
    late("")
    late("compiling")
    came.clear()
    late("converting")
    assert came.wait(60)
    assert told == ["compiling ...", "converting ..."]


def test_a_log_has_nothing_of_what_is_over_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TOLD_AFTER_SECONDS", 3600.0)
    told: list[str] = []
    late = LateTeller(told.append)
    late("compiling")
    timer = late._timer
    late("")
    assert timer is not None
    timer.join()  # It was cancelled.
    assert told == []


def test_a_step_whose_listener_fails_is_over() -> None:
    def fails(what: str) -> None:
        if what == "compiling":
            raise ValueError("closed")

    with listening(fails), pytest.raises(ValueError, match="closed"), doing("compiling"):
        pass
    told: list[str] = []
    with listening(told.append), doing("measuring"):
        pass
    assert "compiling" not in told
