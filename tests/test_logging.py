"""Our loggers are heard where Optuna's are."""

from __future__ import annotations

import subprocess
import sys


RUN = """
import sys
import optuna
import optuna_quant.samplers
from optuna.logging import get_logger

logger = get_logger("optuna_quant.study.foreign")
for level in sys.argv[1:]:
    optuna.logging.set_verbosity(getattr(optuna.logging, level))
    logger.info("a detail")
    logger.warning("a warning")
    logger.error("an error")
    print(level, file=sys.stderr)
"""
LETTERS = {"INFO": "IWE", "WARNING": "WE", "ERROR": "E", "CRITICAL": "", "DEBUG": "IWE"}


def said(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_verbosity_of_optuna_holds_and_lines_look_like_its_own() -> None:
    expected = []
    for level, letters in LETTERS.items():
        expected += [*(f"[{letter} " for letter in letters), level]
    lines = said(RUN, *LETTERS).splitlines()
    assert [line[:3] if line.startswith("[") else line for line in lines] == expected


def test_tune_says_what_it_warns_of_and_no_details() -> None:
    code = (
        "import logging\n"
        "import optuna_quant._optuna\n"
        "from optuna_quant.tuning.quiet import without_info\n"
        "logger = logging.getLogger('optuna_quant.tuning')\n"
        "with without_info():\n"
        "    logger.info('a detail')\n"
        "    logger.warning('a warning')\n"
        "logger.info('after it')\n"
        "logging.getLogger('optuna_quant').setLevel(logging.INFO)\n"
        "with without_info():\n"
        "    logger.info('asked for')\n"
    )
    lines = said(code).splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["a warning", "after it", "asked for"]


def test_messages_of_the_command_come_once_and_in_its_own_form() -> None:
    code = (
        "import logging\n"
        "import optuna_quant._optuna\n"
        "from optuna_quant.cli.messages import messages\n"
        "with messages('optuna-quant', verbose=False, quiet=False):\n"
        "    logging.getLogger('optuna_quant.tuning').warning('a warning')\n"
    )
    assert said(code) == "optuna-quant: a warning\n"
