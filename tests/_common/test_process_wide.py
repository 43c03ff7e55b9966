"""Changes to the process leave nothing, whatever threads do."""

from __future__ import annotations

import logging
import sys
from threading import Barrier
from threading import Thread
import warnings

import pytest

from optuna_quant._common.process_wide import Ignored
from optuna_quant._common.process_wide import SharedChange
from optuna_quant._common.process_wide import ignoring
from optuna_quant._common.process_wide import only_errors
from optuna_quant._common.process_wide import stderr_if_done


IGNORED = [Ignored(FutureWarning, ".*Leaf"), Ignored(DeprecationWarning, module=r"torch(\.|$)")]


def in_turn(change: SharedChange) -> None:
    """Two threads: the first leaves while the second is inside."""
    steps = Barrier(2, timeout=10)

    def first() -> None:
        with change:
            steps.wait()  # The second enters.
            steps.wait()
        steps.wait()

    def second() -> None:
        steps.wait()
        with change:
            steps.wait()
            steps.wait()  # The first has left.

    threads = [Thread(target=first), Thread(target=second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def test_filters_do_not_leak_from_threads_that_overlap() -> None:
    before = list(warnings.filters)
    in_turn(SharedChange(lambda: ignoring(IGNORED)))
    assert warnings.filters == before


def test_levels_do_not_leak_from_threads_that_overlap() -> None:
    logger = logging.getLogger("optuna_quant_test_levels")
    logger.setLevel(logging.INFO)
    in_turn(SharedChange(lambda: only_errors([logger.name])))
    assert logger.level == logging.INFO


def test_loggers_of_errors_that_are_raised_as_well_say_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = "optuna_quant_test_errors", "optuna_quant_test_silent"
    for _ in range(2):
        with only_errors(names[:1], silent=names[1:]):
            for name in names:
                logging.getLogger(name).warning("less")
                logging.getLogger(name).critical("most")
    logging.getLogger(names[1]).warning("afterwards")
    said = [(record.name, record.message) for record in caplog.records]
    assert said == [(names[0], "most")] * 2 + [(names[1], "afterwards")]


def test_what_a_user_sets_meanwhile_stays() -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with ignoring(IGNORED):
            warnings.filterwarnings("error", category=UserWarning, message="mine")
            with warnings.catch_warnings():
                warnings.simplefilter("always")
        assert warnings.filters[1:] == before
        assert warnings.filters[0][0] == "error"


def test_nothing_leaks_into_what_catch_warnings_restores() -> None:
    before = list(warnings.filters)
    change = ignoring(IGNORED)
    change.__enter__()
    with warnings.catch_warnings():
        change.__exit__(None, None, None)
        assert warnings.filters == before
    assert warnings.filters == before


def test_only_these_warnings_are_ignored() -> None:
    with warnings.catch_warnings(record=True) as seen, ignoring(IGNORED):
        warnings.warn("a Leaf", FutureWarning, stacklevel=1)
        warnings.warn("other", FutureWarning, stacklevel=1)
        warnings.warn("a Leaf", UserWarning, stacklevel=1)
    assert [str(each.message) for each in seen] == ["other", "a Leaf"]


def test_what_fails_prints_nothing_and_other_threads_print(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = sys.stderr

    def other() -> None:
        print("of another thread", file=sys.stderr)

    with pytest.raises(KeyError), stderr_if_done():
        print("the graph", file=sys.stderr)
        thread = Thread(target=other)
        thread.start()
        thread.join()
        raise KeyError
    with stderr_if_done():
        print("outer", file=sys.stderr)
        with pytest.raises(KeyError), stderr_if_done():
            print("inner", file=sys.stderr)
            raise KeyError
    assert sys.stderr is stream
    assert capsys.readouterr().err == "of another thread\nouter\n"
