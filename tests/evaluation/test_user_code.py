"""Functions of the user's that try to end the process."""

from __future__ import annotations

import os
import sys

import pytest

from optuna_quant.evaluation.user_code import ExitedError
from optuna_quant.evaluation.user_code import exits_are_errors


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (SystemExit(0), "sys.exit(0)"),
        (SystemExit(None), "sys.exit(None)"),
        (SystemExit("enough"), "sys.exit('enough')"),
        (GeneratorExit(), "GeneratorExit"),
        (BaseException("own"), "BaseException: own"),
    ],
)
def test_what_would_end_the_process_is_an_error(error: BaseException, shown: str) -> None:
    with pytest.raises(ExitedError) as caught, exits_are_errors("A metric"):
        raise error
    assert str(caught.value) == f"A metric tried to end the process ({shown})."
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, RecursionError, ValueError])
def test_other_exceptions_are_left_as_they_are(kind: type[BaseException]) -> None:
    with pytest.raises(kind), exits_are_errors("A metric"):
        raise kind


def test_child_process_may_exit() -> None:
    try:
        with exits_are_errors("A metric"):
            child = os.fork()
            if child == 0:
                sys.exit(7)
    except SystemExit as error:
        os._exit(int(str(error.code)))
    except BaseException:
        if child == 0:
            os._exit(1)
        raise
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
