"""Names and sentences use the words of the field: what says the same in words of our own fails.

The words to use are in the glossary, ``docs/glossary.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import re
from types import MappingProxyType

import pytest


ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("optuna_quant", "tests", "docs", "examples", "benchmarks", "optunahub")
PAGES = ("README.md", "CONTRIBUTING.md")
ENDINGS = frozenset({".py", ".md", ".html", ".toml", ".svg"})

# Each is a regular expression without groups that count. Parts of names are words as well: there
# is ``begun`` in ``is_begun``.
USE_INSTEAD = MappingProxyType(
    {
        # Statistics.
        "[Vv]erdicts?|VERDICTS?": "decision (of a test), or outcome (of a trial or a search)",
        "PROMISED|Promised": "PROVISIONALLY_MET, provisionally met",
        "[Gg]amblers?": "a strategy, which bets",
        "[Cc]apital": "wealth",
        "[Ss]takes?|STAKES?": "bet, bet fraction",
        "most_missed": "regret_bound",
        "normal_(?:mean|sum|score)s?|normal_baseline|normal (?:mean|score)s?": "normalized",
        "[Cc]autions?": "broken promises",
        "SeesSamples": "HasPerSampleScores",
        "(?:Option)?ScoreBook": "SensitivityCache, OptionSensitivityCache",
        # Search.
        "[Ll]edger": "trial history",
        "SetAside": "abandoned",
        "[Tt]wins?": "duplicate",
        "[Bb]egun|[Uu]nbegun": "started",
        "[Bb]eginnings?": "start",
        "[Aa]new": "again, or nothing",
        # Workers and storages.
        "[Ss]igns? of life|sign_of_life": "heartbeat",
        "[Bb]ury|[Bb]uried|[Bb]urial": "reap",
        "[Tt]aken(?: |_)for(?: |_)dead": "stale",
        "PatientStorage": "RetryingStorage",
        "QuickRDBStorage": "CachingRDBStorage",
        "SharedValue": "ComputeOnce",
        "held_parameters": "write buffer",
        "let_go": "release_connection",
        "[Ww]hoever": "the worker, process or caller that",
        "(?<!//)[Nn]obody(?!@)": "no worker, no process, or an active sentence",
        # Quantization.
        "[Bb]arred": "needs_barrier",
        "[Pp]ays|[Pp]aying": "is worth it, is better than",
        "[Dd]ear(?:er|est)?": "expensive",
        # English.
        "(?:lists?|pairs?|dictionary|dictionaries) of texts|[Ss]hort texts?": "strings",
        "must be a text": "must be a string",
        "[Mm]ind that": "note that, or nothing",
        "[Bb]elong(?:s|ing)? into": "belongs in",
        "too much said": "overstated",
        r"[Ss]peaks?\s+for": "suggests",
        r"\d\.\d+ %|\d %(?=[,.;:)\n])": "no space before the sign: 0.451%",
    }
)
# All at once: a search for one of them after the other, or with a group for each, takes seconds.
_START, _END = "(?<![A-Za-z])", "(?![A-Za-z])"
_WORDS = re.compile(f"{_START}(?:{'|'.join(USE_INSTEAD)}){_END}")
_EACH = [(re.compile(f"{_START}(?:{word}){_END}"), use) for word, use in USE_INSTEAD.items()]


def found_in(text: str) -> Iterator[tuple[int, str, str]]:
    """The words in a text that have a better one: the line's number, the word and what to use."""
    for match in _WORDS.finditer(text):
        instead = next(use for word, use in _EACH if word.match(text, match.start()))
        yield 1 + text.count("\n", 0, match.start()), match[0], instead


def files() -> list[Path]:
    found = [ROOT / page for page in PAGES]
    for folder in FOLDERS:
        found += [
            path
            for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in ENDINGS and "_build" not in path.parts
        ]
    return [path for path in found if path != Path(__file__).resolve()]


def test_the_words_of_the_field_are_used() -> None:
    looked_at = files()
    assert len(looked_at) > 500
    problems = [
        f"{path.relative_to(ROOT)}:{number}: {word!r}; use: {instead}"
        for path in looked_at
        for number, word, instead in found_in(path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("A verdict, or a Verdict.", ["verdict", "Verdict"]),
        ("if study.is_begun and check_unbegun():", ["begun", "unbegun"]),
        ("Whoever has a sign of life, mind that.", ["Whoever", "sign of life", "mind that"]),
        ("a loss of 0.451 % of 12 %, and 0.5%", ["0.451 %", "2 %"]),
        ("rest = 7 % count", []),
        ("The capitals of FP32 renew the mistakes of their dearth.", []),
        ('"postgresql://nobody@"', []),
    ],
)
def test_whole_words_and_parts_of_names_are_found(line: str, words: list[str]) -> None:
    found = list(found_in(f"\n{line}\n"))
    assert {number for number, _, _ in found} <= {2}
    assert [word for _, word, _ in found] == words
