"""What all tests share."""

from __future__ import annotations

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

# No time is promised for an example, and the machine may be busy.
settings.register_profile(
    "without clocks", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("without clocks")


# A shell ignores Ctrl-C for what it runs in the background, and nohup a hang-up; processes inherit
# that, also those that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Pytest listens at the root, which Optuna's loggers do not reach.
    logging.getLogger("optuna_quant").parent = logging.getLogger()
