"""Tell a lost connection from an error that would happen again."""

from __future__ import annotations

from collections.abc import Iterator
import re
import sys


# What the drivers of PostgreSQL say, which has no codes for most of it. A refusal, as of a wrong
# password, also begins with "connection to server ... failed", and is none of these.
_LOST = re.compile(
    r"connection refused|connection reset|broken pipe|timed? ?out|timeout expired|no route to host"
    r"|network is unreachable|temporary failure in name resolution|could not translate host name"
    r"|name or service not known|server closed the connection|terminating connection"
    r"|connection (is|already|was|has been) (closed|lost|broken|terminated)"
    r"|no connection to the server|is the server running|starting up|shutting down"
    r"|in recovery mode|not yet accepting connections"
    r"|could not receive data|could not send data|eof detected|ssl syscall|unexpected eof"
    r"|lost connection|gone away|can't connect|server shutdown|connection was killed"
    r"|consuming input failed|sending query failed",
    re.IGNORECASE,
)
# The server was reached and has no room for another connection: others have to end theirs.
_CROWDED = re.compile(
    r"too many clients|remaining connection slots|too many connections|max_user_connections"
    r"|max number of clients",
    re.IGNORECASE,
)
# A server that answers with one of these was reached and has said no.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|access denied|no pg_hba.conf entry"
    r"|(role|database|user) \S+ does not exist|unknown database|statement timeout|lock timeout"
    r"|lock wait timeout|max_allowed_packet",
    re.IGNORECASE,
)
# Shutdown, network errors, no connection, gone away, lost, killed.
_MYSQL = {1053, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2005, 2006, 2013, 2055, 4031}


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a server could not be reached.

    That is so for the errors of SQLAlchemy, redis and gRPC. A server that has no room for another
    connection counts as well: it has as soon as another process ends one.
    """
    return is_crowded(error) or any(
        _of_database(cause) or _of_redis(cause) or _of_grpc(cause) for cause in _causes(error)
    )


def is_crowded(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a server has as many connections as it takes.

    That is so for the errors of SQLAlchemy and redis.
    """
    return any(_is_of_a_server(e) and _CROWDED.search(str(e)) for e in _causes(error))


def _is_of_a_server(error: BaseException) -> bool:
    database, redis = (sys.modules.get(name) for name in ("sqlalchemy.exc", "redis.exceptions"))
    return bool(
        (database and isinstance(error, database.DBAPIError))
        or (redis and isinstance(error, redis.ConnectionError))
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 20:
        yield error
        error, seen = error.__cause__, seen + 1


def _of_database(error: BaseException) -> bool:
    exc = sys.modules.get("sqlalchemy.exc")  # Without it, this is none of its errors.
    if exc is None or not isinstance(error, exc.SQLAlchemyError):
        return False
    if isinstance(error, exc.PendingRollbackError):  # What follows a loss in the same session.
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    text = str(error.orig)
    if _REFUSED.search(text):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return False
    arguments = getattr(error.orig, "args", ())
    if arguments and isinstance(arguments[0], int):
        return arguments[0] in _MYSQL or (arguments[0] == 0 and len(arguments) > 1)
    return _LOST.search(text) is not None


def _of_redis(error: BaseException) -> bool:
    exc = sys.modules.get("redis.exceptions")
    if exc is None or isinstance(error, exc.AuthenticationError | exc.AuthorizationError):
        return False
    # A server that is starting up is a ConnectionError as well.
    return isinstance(error, exc.ConnectionError | exc.TimeoutError)


def _of_grpc(error: BaseException) -> bool:
    grpc = sys.modules.get("grpc")
    if grpc is None or not isinstance(error, grpc.RpcError):
        return False
    code = getattr(error, "code", None)
    return callable(code) and code() == grpc.StatusCode.UNAVAILABLE
