"""Journals in files: their lock, what holds if its process dies, and lines that are damaged."""

from __future__ import annotations

from collections import Counter
import json
import os
from pathlib import Path
import pickle
import subprocess
import sys
import threading
import time
from typing import Any

from forked_scripts import ForkedScript
import optuna
from optuna.storages.journal import JournalFileOpenLock
from optuna.storages.journal import JournalFileSymlinkLock
import pytest
from storages.storage_scripts import Start
from storages.storage_scripts import go
from storages.storage_scripts import run
from storages.storage_scripts import said
from storages.storage_scripts import starter
from zygote import Zygote

from optuna_quant.storages import journal_file
from optuna_quant.storages.journal_file import JournalFileFlock
from optuna_quant.storages.open import open_storage


GRACE_SECONDS = 30
"""What a lock of which nothing is known would cost."""


HOLD = """
lock = JournalFileFlock(address)
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


WRITE = """
if sys.argv[2] == "ours":
    storage = open_storage(address)
else:
    storage = JournalStorage(JournalFileBackend(address))
study = optuna.load_study(storage=storage, study_name="s")
for i in range(int(sys.argv[4])):
    study.set_user_attr(f"{sys.argv[3]}/{i}", i)
"""


@pytest.fixture
def start(zygote: Zygote) -> Start:
    return starter(zygote)


def holder(start: Start, path: Path | str, cwd: Path | None = None) -> ForkedScript:
    process = start(HOLD, path, cwd=cwd)
    go([process])
    said(process, "held")
    return process


def kill(process: ForkedScript) -> None:
    process.kill()
    process.wait()


def write_one(path: Path) -> float:
    """The seconds that opening the journal and one write take."""
    before = time.monotonic()
    optuna.create_study(storage=open_storage(path), study_name=f"s{before}")
    return time.monotonic() - before


def test_lock_of_a_killed_process_is_free_at_once(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    write_one(path)
    kill(holder(start, path))
    assert path.with_name("study.journal.lock").is_symlink()
    assert write_one(path) < GRACE_SECONDS
    assert sorted(tmp_path.iterdir()) == [path]


def test_lock_of_a_killed_process_is_free_at_once_for_a_relative_path(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    path = Path("sub/study.journal")
    kill(holder(start, path, cwd=tmp_path))
    monkeypatch.chdir(tmp_path)
    assert os.path.samefile("sub/study.journal.lock", path)  # What Optuna's own lock looks at.
    assert write_one(path) < GRACE_SECONDS


def test_journal_opened_by_a_relative_path_stays_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(storage=open_storage("a.journal"))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    study.set_user_attr("k", 1)
    assert list((tmp_path / "sub").iterdir()) == []
    assert study.user_attrs == {"k": 1}


def test_living_holder_is_waited_for(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "study.journal"
    write_one(path)
    process = holder(start, path)
    timer = threading.Timer(0.3, process.kill)
    timer.start()
    assert 0.25 < write_one(path) < GRACE_SECONDS
    process.wait()


@pytest.mark.parametrize("dangling", [False, True])
def test_link_that_another_program_left_costs_the_grace_period(
    dangling: bool, tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    path.touch()
    os.symlink("sub/nowhere" if dangling else str(path), f"{path}.lock")
    before = time.monotonic()
    lock = JournalFileFlock(path, grace_period=0.2)
    lock.acquire()
    assert time.monotonic() - before > 0.2
    lock.release()
    assert not os.path.lexists(f"{path}.lock")


def test_link_of_another_machine_is_not_taken_for_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.journal"
    here = JournalFileFlock(path, grace_period=0.2)
    monkeypatch.setattr(Path, "read_text", lambda self: "another boot id")
    there = JournalFileFlock(path, grace_period=0.2)
    os.symlink(there._mark, f"{path}.lock")
    path.touch()
    assert os.path.samefile(f"{path}.lock", path)
    before = time.monotonic()
    here.acquire()
    assert time.monotonic() - before > 0.2
    here.release()


@pytest.mark.parametrize("other", [JournalFileSymlinkLock, JournalFileOpenLock])
def test_lock_excludes_the_locks_of_optuna(other: Any, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    ours = JournalFileFlock(path)
    theirs = other(str(path))
    for first, second in ((ours, theirs), (theirs, ours)):
        first.acquire()
        got = threading.Event()

        def wait(second: Any = second, got: threading.Event = got) -> None:
            second.acquire()
            got.set()
            second.release()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.15)
        first.release()
        assert got.wait(5)
        thread.join()


@pytest.mark.parametrize("shared", [False, True])
def test_lock_excludes_threads(shared: bool, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    one = JournalFileFlock(path)
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        lock = one if shared else JournalFileFlock(path)
        for _ in range(20):
            lock.acquire()
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.0005)
            inside.pop()
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert set(most) == {1}


def test_lock_that_is_not_held_cannot_be_released(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="is not held"):
        JournalFileFlock(tmp_path / "x").release()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    lock = JournalFileFlock(tmp_path / "x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        lock.acquire()
        lock.release()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("locks", [["ours"] * 4, ["ours", "ours", "optuna", "optuna"]])
def test_no_write_of_several_processes_is_lost(
    start: Start, locks: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    optuna.create_study(storage=open_storage(path), study_name="s")
    run([start(WRITE, path, lock, number, 100) for number, lock in enumerate(locks)])
    attributes = optuna.load_study(storage=open_storage(path), study_name="s").user_attrs
    assert Counter(key.split("/")[0] for key in attributes) == {
        str(number): 100 for number in range(len(locks))
    }
    assert all(isinstance(json.loads(line), dict) for line in path.read_bytes().splitlines())
    assert not os.path.lexists(f"{path}.lock")


def test_half_a_line_of_a_dead_process_is_cut_off_while_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_storage(path))
    with path.open("ab") as file:
        file.write(b'{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"a')
    study.set_user_attr("k", 1)
    assert study.user_attrs == {"k": 1}


def test_journal_storage_can_be_pickled(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "study.journal")
    optuna.create_study(storage=pickle.loads(pickle.dumps(storage)), study_name="s")
    assert optuna.get_all_study_names(storage) == ["s"]


def test_lock_of_optuna_is_used_without_fcntl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert isinstance(journal_file._mended(tmp_path / "study.journal"), JournalFileOpenLock)
    write_one(tmp_path / "study.journal")


def test_lock_of_optuna_is_used_where_the_file_system_knows_no_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = journal_file._mended(tmp_path / "study.journal")
    assert type(lock) is JournalFileSymlinkLock
    write_one(tmp_path / "study.journal")


@pytest.mark.parametrize(
    "garbage",
    [b'{"\x00\x01\x02\n', b"\xff\xfe\n", b"hello\n", b"[1]\n", b'{"a":1}\n', b"\n"],
)
@pytest.mark.parametrize("last", [False, True])
def test_damaged_journal_is_named_with_what_to_do(
    garbage: bytes, last: bool, tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_storage(path), study_name="s")
    study.set_user_attr("k", 1)
    study.set_user_attr("l", 1)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    path.write_bytes(b"".join([*lines[:2], garbage, *(() if last else lines[2:])]))
    before = path.read_bytes()
    with pytest.raises(ValueError) as caught:
        open_storage(path)
    assert "\n" not in str(caught.value)
    assert f"line 3 of the journal {str(path)!r} is damaged" in str(caught.value)
    command = str(caught.value).split("'head")[1].split("'")[0].replace("NEW", f"{path}.new")
    subprocess.run(f"head{command}", shell=True, check=True)
    mended = optuna.load_study(storage=open_storage(f"{path}.new"), study_name="s")
    assert mended.user_attrs == {"k": 1}
    assert path.read_bytes() == before


def test_damage_during_a_study_is_named_as_well(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_storage(path))
    with path.open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(ValueError, match="line 2 of the journal"):
        for _ in range(2):
            study.set_user_attr("k", 1)


def test_entries_that_do_not_fit_together_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(b'{"op_code":4,"worker_id":"x"}\n')
    with pytest.raises(ValueError, match="contradict each other"):
        open_storage(path)
