"""What all tests share."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
import gc
import logging
from pathlib import Path
import signal
import sys

from hypothesis import HealthCheck
from hypothesis import settings
import optuna
import pytest


# Helper modules of the tests (spaces.py, onnx_models.py, ...) are imported by their plain names.
sys.path.insert(0, str(Path(__file__).parent))

from kept import keep_what_exports_read
from kept import keep_what_stays_the_same
from no_spinning import sessions_do_not_spin
from zygote import Zygote
from zygote import zygote as zygotes

from optuna_quant._common import steps


# No time is promised for an example, and the machine may be busy.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI asks for the other with --hypothesis-profile.
settings.register_profile("fast", parent=settings.get_profile("thorough"), max_examples=30)
settings.load_profile("fast")

keep_what_stays_the_same()
sessions_do_not_spin()

# A shell ignores Ctrl-C for what it runs in the background, and nohup a hang-up; processes inherit
# that, also those that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # What is imported and collected stays: to look for garbage among it takes seconds.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    # Ten thousand tests stay until the end; the garbage collector need not look at them again.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    if "services" in sys.modules:
        sys.modules["services"].drop_databases()


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Pytest listens at the root, which Optuna's loggers do not reach.
    logging.getLogger("optuna_quant").parent = logging.getLogger()
    # Pytest would listen at it as well, and PyTorch writes down each graph where one listens.
    logging.getLogger("torch.__trace").propagate = True


@pytest.fixture(autouse=True)
def no_lines_of_slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown does not depend on how fast the machine is."""
    monkeypatch.setattr(steps, "TOLD_AFTER_SECONDS", 3600.0)


@pytest.fixture(autouse=True)
def quick_exports() -> None:
    keep_what_exports_read()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts processes that need not import anything; it starts itself for the first."""
    with zygotes() as found:
        yield found
