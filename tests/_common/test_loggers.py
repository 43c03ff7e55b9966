"""Loggers are found by the package of their modules."""

from __future__ import annotations

import logging

import optuna
import pytest

from optuna_quant._common.loggers import loggers_below


def test_loggers_below_a_package_are_found() -> None:
    names = {"found.one", "found.of.two", "foundling", "found"}
    for name in names:
        logging.getLogger(name)
    assert {logger.name for logger in loggers_below("found")} == {"found.one", "found.of.two"}


@pytest.mark.parametrize(
    ("package", "line"),
    [("optuna.storages", "A new study created"), ("optuna.study", "finished with value")],
)
def test_lines_of_optuna_come_from_there(
    package: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is held back of Optuna's log, however its modules are called."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    try:
        optuna.create_study().optimize(lambda trial: 1.0, n_trials=1)
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(verbosity)
    found = {logger.name for logger in loggers_below(package)}
    assert {entry.name for entry in caplog.records if line in entry.getMessage()} <= found
    assert any(line in entry.getMessage() for entry in caplog.records)
