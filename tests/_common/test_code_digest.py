"""A hash of a function tells it from an edited one, and not from itself."""

from __future__ import annotations

import functools
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from optuna_quant._common.code_digest import array_digest
from optuna_quant._common.code_digest import code_digest
from optuna_quant._common.code_digest import file_digest


SOURCE = '''
import functools
import numpy as np

LABELS = np.arange(4)
TABLE = {"a": 1}
LIMIT = 0.5
calls = 0
seen = []
counts = {}

def helper(x):
    return x * 2

class Scorer:
    weight = 3

    def __init__(self, scale=1):
        self.scale = scale
        self.calls = 0
        self.log = []
        self.tally = dict.fromkeys(range(9), 0)

    def __call__(self, session):
        self.calls += 1
        self.log.append(session)
        self.tally[session + 1] += 1
        return self.scale * self.weight

    def method(self, session):
        return self(session)

def make(k):
    number = 0
    def inner(session, top=1):
        nonlocal number
        number += 1
        return k + top
    return inner

def evaluate(session):
    """Give the metric."""
    global calls
    calls += 1
    seen.append(session)
    counts[session] = calls
    # A comment.
    best = (LABELS > LIMIT).mean() + helper(session) + TABLE["a"]
    return [best + i for i in range(2)][0]

closed = make(5)
scorer = Scorer()
method = scorer.method
partial = functools.partial(evaluate, 3)
'''


def load(source: str, name: str) -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "file.py", "exec"), names)
    return names[name]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("evaluate", "LIMIT = 0.5", "LIMIT = 0.25"),
        ("evaluate", "np.arange(4)", "np.arange(4)[::-1]"),
        ("evaluate", "return x * 2", "return x * 3"),
        ("evaluate", '"a": 1', '"a": 2'),
        ("evaluate", "> LIMIT", ">= LIMIT"),
        ("evaluate", "range(2)", "range(3)"),
        ("partial", "evaluate, 3", "evaluate, 4"),
        ("partial", "LIMIT = 0.5", "LIMIT = 0.25"),
        ("closed", "make(5)", "make(6)"),
        ("closed", "top=1", "top=2"),
        ("scorer", "weight = 3", "weight = 4"),
        ("scorer", "Scorer()", "Scorer(2)"),
        ("scorer", "self.scale * self", "self.scale + self"),
        ("method", "return self(session)", "return -self(session)"),
        ("method", "Scorer()", "Scorer(2)"),
    ],
)
def test_another_function_has_another_hash(name: str, old: str, new: str) -> None:
    assert old in SOURCE
    assert code_digest(load(SOURCE, name)) != code_digest(load(SOURCE.replace(old, new), name))


@pytest.mark.parametrize("name", ["evaluate", "closed", "scorer", "method", "partial"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# A comment.", "# Another\n\n    # one."),
        ("Give the metric.", "Give it."),
        ("calls = 0\nseen", "calls = 7\nseen"),
        ("class Scorer", "unused = 3\n\nclass Scorer"),
    ],
)
def test_what_does_not_matter_leaves_the_hash(name: str, old: str, new: str) -> None:
    assert old in SOURCE
    assert code_digest(load(SOURCE, name)) == code_digest(load(SOURCE.replace(old, new), name))


@pytest.mark.parametrize("name", ["evaluate", "closed", "scorer", "method"])
def test_calls_leave_the_hash(name: str) -> None:
    function = load(SOURCE, name)
    before = code_digest(function)
    assert before is not None
    for session in (1, 2):
        function(session)
    assert code_digest(function) == before


def test_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        SOURCE + "from optuna_quant._common.code_digest import code_digest\n"
        "print([code_digest(f) for f in (evaluate, closed, scorer, method, partial)])\n"
    )
    found = {
        subprocess.run(
            [sys.executable, script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert "None" not in found.pop()


def test_files_of_the_users_own_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module, helper, data = (tmp_path / name for name in ("mine.py", "beside.py", "data.npz"))
    module.write_text(
        "import beside\nimport numpy\n"
        "def evaluate(session):\n    return beside.score(numpy.load('data.npz'))\n"
    )
    helper.write_text("def score(x):\n    return 1\n")
    np.savez(data, x=np.arange(3))

    def digest() -> str | None:
        for name in ("mine", "beside"):
            sys.modules.pop(name, None)
        import mine  # type: ignore[import-not-found]

        return code_digest(mine.evaluate)

    first = digest()
    assert digest() == first
    np.savez(data, x=np.arange(1, 4))  # Found beside the module, wherever the process runs.
    second = digest()
    assert second != first
    helper.write_text("def score(x):\n    return 2\n")
    assert digest() not in (first, second)
    for name in ("mine", "beside"):
        sys.modules.pop(name, None)


def test_what_has_no_code_has_no_hash() -> None:
    assert code_digest(len) is None

    class Odd:
        @property
        def __dict__(self) -> Any:
            raise RuntimeError

        def __call__(self, session: Any) -> float:
            return 1.0

    assert code_digest(functools.partial(Odd(), 3)) is None


def test_installed_code_counts_by_its_name() -> None:
    assert code_digest(np.mean) == code_digest(np.mean)
    assert code_digest(np.mean) != code_digest(np.median)


def test_arrays_are_told_apart() -> None:
    x = np.arange(12.0)
    different = [x, x + 1, x.astype(np.float32), x.reshape(3, 4), x[:11], x > 3]
    different += [np.array(["a", "b"]), np.array(["a", None], dtype=object), np.float64(3)]
    assert len({array_digest(np.asarray(each)) for each in different}) == len(different)
    assert array_digest(x[::2]) == array_digest(x[::2].copy())


def test_a_large_array_is_read_in_parts(tmp_path: Path) -> None:
    x = np.zeros((300_000, 64), np.float32)  # 77 MB.
    first = array_digest(x)
    x[-1, -1] = 1
    assert array_digest(x) != first
    x[-1, -1] = 0
    x[150_000:152_000] = 1
    assert array_digest(x) != first
    file = tmp_path / "large"
    file.write_bytes(x.tobytes())
    before = file_digest(file)
    x[-1] = 2
    file.write_bytes(x.tobytes())
    assert file_digest(file) != before
