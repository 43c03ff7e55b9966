"""Errors of a lost connection are told from those that would come again."""

from __future__ import annotations

import optuna
import pytest

from optuna_quant.storages.lost_connection import is_crowded
from optuna_quant.storages.lost_connection import is_lost_connection


def _database_error(text: str, code: int | None = None) -> Exception:
    from sqlalchemy import exc

    original = Exception(code, text) if code is not None else Exception(text)
    error = optuna.exceptions.StorageInternalError("commit")
    error.__cause__ = exc.OperationalError("SELECT 1", {}, original)
    return error


@pytest.mark.parametrize(
    ("text", "code", "lost"),
    [
        ('connection to server at "h", port 5432 failed: Connection refused', None, True),
        ("server closed the connection unexpectedly", None, True),
        ("FATAL:  the database system is starting up", None, True),
        ("FATAL:  terminating connection due to administrator command", None, True),
        ("FATAL:  password authentication failed for user", None, False),
        ('FATAL:  database "x" does not exist', None, False),
        ("canceling statement due to statement timeout", None, False),
        ("deadlock detected", None, False),
        ("database is locked", None, False),
        ("value too long for type character varying(512)", None, False),
        ("MySQL server has gone away", 2006, True),
        ("Lost connection to MySQL server during query", 2013, True),
        ("Can't connect to MySQL server", 2003, True),
        ("Access denied for user", 1045, False),
        ("Got a packet bigger than 'max_allowed_packet' bytes", 1153, False),
        ("Deadlock found when trying to get lock", 1213, False),
        ("Lock wait timeout exceeded", 1205, False),
    ],
)
def test_lost_connection_is_told_from_other_errors(
    text: str, code: int | None, lost: bool
) -> None:
    assert is_lost_connection(_database_error(text, code)) == lost


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FATAL:  sorry, too many clients already", None),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER", None),
        ('FATAL:  too many connections for role "optuna"', None),
        ("Too many connections", 1040),
        ("User optuna already has more than 'max_user_connections' active connections", 1203),
        ("User 'optuna' has exceeded the 'max_user_connections' resource", 1226),
    ],
)
def test_server_without_room_is_waited_for_and_told_from_a_lost_one(
    text: str, code: int | None
) -> None:
    error = _database_error(text, code)
    assert is_lost_connection(error)
    assert is_crowded(error)
    assert not is_crowded(_database_error("server closed the connection unexpectedly"))
    assert not is_crowded(ConnectionError(text))


def test_lost_connection_to_redis_is_told_from_other_errors() -> None:
    redis = pytest.importorskip("redis")
    assert is_lost_connection(redis.exceptions.BusyLoadingError("loading"))
    assert is_lost_connection(redis.exceptions.TimeoutError("x"))
    assert is_crowded(redis.exceptions.ConnectionError("max number of clients reached"))
    assert not is_lost_connection(redis.exceptions.AuthenticationError("x"))
    assert not is_lost_connection(redis.exceptions.ResponseError("MISCONF"))
    assert not is_lost_connection(ConnectionError("of the user's own evaluation"))
