"""Where progress is shown."""

from __future__ import annotations

import io
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.callbacks.display import LineDisplay
from optuna_quant.callbacks.display import NoDisplay
from optuna_quant.callbacks.display import Running
from optuna_quant.callbacks.notebook_display import NotebookDisplay
from optuna_quant.callbacks.open_display import open_display
from optuna_quant.callbacks.trial_line import Mood
from optuna_quant.callbacks.trial_line import TrialLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LINE = TrialLine(
    number=3,
    stage="default",
    tries="2 of 3 ops in INT8",
    decided="not met (99.9% sure): at most 0.95 on 64 of 899 samples, needs 0.981",
    mood=Mood.BAD,
    best="trial 1, 0.65 of FP32's time (predicted)",
    left="0:08 used, at most 97 trials left",
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LINES", "40")


def shown_on(columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with open_display(show=True, stream=stream) as display:
        assert display.is_live
        display.update([Running(3, "2 of 3 ops in INT8", 64, 899, "about 0.99")])
        display.add(LINE)
    return stream.getvalue()


def words_of(text: str) -> str:
    """What is shown, without colours and line ends."""
    from rich.text import Text

    return " ".join(Text.from_ansi(text).plain.split())


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_of_any_width_shows_all_of_a_trial(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown_on(columns, monkeypatch)
    said = words_of(text)
    for word in (*LINE.tries.split(), "sure):", "0.981", "(default)"):
        assert word in said
    assert "\x1b[33m" in text  # In yellow.
    assert text.endswith("\x1b[2K") or "\x1b[2K" in text  # What was live is taken away.
    assert "\x1b[?25h" in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown_on(80, monkeypatch)


def test_what_is_no_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with open_display(show=True, stream=stream) as display:
        assert isinstance(display, LineDisplay)
        display.update([Running(3, "")])
        display.add(LINE)
    assert stream.getvalue() == f"{LINE}\n"
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_display(show=True, stream=Terminal()), LineDisplay)


def test_nothing_is_shown_unless_asked_for() -> None:
    display = open_display(show=False, stream=Terminal())
    assert isinstance(display, NoDisplay)
    assert not display.is_live


def test_control_characters_of_names_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    line = TrialLine(**(vars(LINE) | {"tries": "conv\x1b[2J <b>"}))
    with open_display(show=True, stream=stream) as display:
        display.add(line)
    assert "\x1b[2J" not in stream.getvalue()
    notebook = NotebookDisplay()
    notebook.add(line)
    assert "&lt;b&gt;" in notebook._repr_html_()
    assert "\x1b" not in notebook._repr_html_()


def test_a_search_on_a_terminal_shows_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")

    def evaluate(model: FakeModel) -> float:
        print("of the user's")
        return model.accuracy

    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
    result: Any = tune(
        backend=FakeBackend({"a": 0.0, "b": 0.5}), evaluate=evaluate, accuracy_criterion=criterion
    )
    assert result.met
    said = words_of(stream.getvalue())
    assert "trial tries decided" in said
    assert "met: metric" in said
