from __future__ import annotations

import os
from pathlib import Path

import pytest

from optuna_quant.workers import cores
from optuna_quant.workers.cores import available_cores


def of_machine(monkeypatch: pytest.MonkeyPatch, siblings: dict[int, str], mine: set[int]) -> None:
    def read(path: Path) -> str:
        cpu = int(path.parts[5].removeprefix("cpu"))
        if cpu not in siblings:
            raise FileNotFoundError(path)
        return siblings[cpu]

    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda process: mine, raising=False)
    monkeypatch.setattr(cores.Path, "read_text", read)


def test_hyper_threads_of_a_core_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    of_machine(monkeypatch, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, {0, 1, 2, 3})
    assert available_cores() == 2


def test_cores_of_others_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    of_machine(monkeypatch, {0: "0", 1: "1", 2: "2"}, {0, 2})
    assert available_cores() == 2


def test_where_hyper_threads_are_not_known_each_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    of_machine(monkeypatch, {}, {0, 1, 5})
    assert available_cores() == 3


def test_elsewhere_all_of_the_machine_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    assert available_cores() == (os.cpu_count() or 1)
