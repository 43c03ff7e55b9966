"""A storage that refuses a call in mid-search: its own words, and what to do; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys

from fake_backend import FakeBackend
import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
import own_servers
from places import TESTS
import pytest

import optuna_quant
from optuna_quant import TuningCriterion
from optuna_quant.storages.errors import NotOpenedError
from optuna_quant.storages.errors import StorageError
from optuna_quant.storages.errors import storage_errors
from optuna_quant.storages.reconnection import StorageLostError


def search(storage: str, callback: Callable[[optuna.Study, FrozenTrial], None]) -> optuna.Study:
    return optuna_quant.tune(
        backend=FakeBackend(8),
        evaluate=lambda model: 0.9 - 0.1 * len(model.config.quantized_ops),
        storage=storage,
        study_name="s",
        callbacks=[callback],
        tuning_criterion=TuningCriterion(strategy="basic", timeout=None, max_trials=12),
    ).study


def nothing(study: optuna.Study, trial: FrozenTrial) -> None:
    """A callback."""


def test_right_that_is_lost_in_mid_search() -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    with own_servers.own_server("postgresql") as server:
        connection = psycopg2.connect(server.address)
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE ROLE worker LOGIN; GRANT ALL ON SCHEMA public TO worker")
        address = server.address.replace("postgres@", "worker@")

        def revoke(study: optuna.Study, trial: FrozenTrial) -> None:
            if trial.number == 2:
                cursor.execute("REVOKE INSERT, UPDATE ON ALL TABLES IN SCHEMA public FROM worker")

        with pytest.raises(StorageError, match="refused a call: permission denied .* right to"):
            search(address, revoke)
        cursor.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO worker")
        assert len(search(address, nothing).trials) >= 12
        connection.close()


FULL = """
import pathlib, resource, sys
sys.path.insert(0, sys.argv[1])
from storages.test_errors import nothing, search

def fill(study, trial):
    if trial.number == 2:
        size = max(path.stat().st_size for path in pathlib.Path(sys.argv[3]).iterdir()) + 2000
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

search(sys.argv[2], fill)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size")
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_disk_that_is_full_in_mid_search(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "study"
    address = f"sqlite:///{path}" if kind == "sqlite" else f"journal:{path}"
    here = str(TESTS)
    done = subprocess.run(
        [sys.executable, "-c", FULL, here, address, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("optuna_quant.storages.errors.StorageError: The "), done.stderr
    # SQLite has words of its own for a full disk, but not for a limit of the file's size.
    cure = "Make room on its disk" if kind == "journal" else "Check whether its disk is full"
    assert cure in last
    assert len(search(address, nothing).trials) >= 12


@pytest.mark.parametrize("hides", [AssertionError("Should not reach."), UnboundLocalError("x")])
def test_error_that_optuna_hides_is_raised(hides: Exception) -> None:
    lost = StorageLostError("lost for 300 s")
    hides.__context__ = lost
    with pytest.raises(StorageLostError) as caught, storage_errors():
        raise hides
    assert caught.value is lost


def test_error_of_somebody_else_passes() -> None:
    mine = AssertionError("of a callback")
    with pytest.raises(AssertionError) as caught, storage_errors():
        try:
            raise KeyError("earlier")
        except KeyError:
            raise mine from None
    assert caught.value is mine


def test_error_without_a_known_cure_has_the_words_of_the_storage() -> None:
    said = r"refused a call: strange things\. Fix that, then start again"
    with pytest.raises(StorageError, match=said), storage_errors():
        raise StorageInternalError("strange things.\nmore")


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("could not translate host name", NotOpenedError, "the address is wrong"),
        ("sorry, too many clients already", StorageError, "Start fewer workers"),
        ("permission denied for schema public", StorageError, "right to read and write"),
    ],
)
def test_what_was_never_opened_says_so_itself(text: str, kind: type, told: str) -> None:
    with pytest.raises(kind, match=told), storage_errors():
        try:
            raise StorageInternalError(text)
        except StorageInternalError as error:
            raise NotOpenedError("the address is wrong") from error
