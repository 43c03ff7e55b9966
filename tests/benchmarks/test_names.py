"""The benchmarks name what there is: they are run by hand, and seldom."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
import sys
from typing import Any

import pytest


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.__main__ import NAMES
from benchmarks.trial_overhead import PARTS


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_can_be_run(name: str) -> None:
    module = importlib.import_module(
        "benchmarks.peers" if name == "peers" else f"benchmarks.{name}"
    )
    assert callable(module.run)
    assert module.__doc__


@pytest.mark.parametrize("place", [place for places in PARTS.values() for place in places])
def test_what_is_timed_is_there(place: tuple[str, str]) -> None:
    module, path = place
    found: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    assert callable(found)
