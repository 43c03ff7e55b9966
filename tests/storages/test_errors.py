"""A storage that refuses a call in mid-search: its own words, and what to do; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import random
import sys

from fake_backend import FakeBackend
import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
import own_servers
import pytest
from zygote import Zygote

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


def optuna_pauses_for(seconds: float) -> Callable[[], float]:
    """Instead of ``random.random``: Optuna takes twice that before it tries again."""
    return lambda: seconds / 2


def test_right_that_is_lost_in_mid_search(monkeypatch: pytest.MonkeyPatch) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    monkeypatch.setattr(random, "random", optuna_pauses_for(0.01))
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


def fill(storage: str, folder: str) -> None:
    """Search until the disk is full; of a process of its own, which it ends."""
    import resource

    def full(study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.number == 2:
            size = max(path.stat().st_size for path in Path(folder).iterdir()) + 2000
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    random.random = optuna_pauses_for(0.01)
    search(storage, full)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size")
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_disk_that_is_full_in_mid_search(zygote: Zygote, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "study"
    address = f"sqlite:///{path}" if kind == "sqlite" else f"journal:{path}"
    worker = zygote.start("storages.test_errors:fill", storage=address, folder=str(tmp_path))
    status, errors = zygote.wait(worker)
    assert status == 1
    last = errors.splitlines()[-1]
    assert last.startswith("optuna_quant.storages.errors.StorageError: The "), errors
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
