"""A page is whole by itself, escapes everything, and stays usable with many or long names."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
import re
import sys

import optuna
import pytest
from report.kinds import KINDS
from report.kinds import sampled
from report.kinds import search

from optuna_quant.costs.comparison import Ratio
from optuna_quant.report import collect
from optuna_quant.tuning.outcome import ResultKind


EVIL = "</script><b>bold</b><img src=x onerror=alert(1)>"
VOID = {"meta", "br", "input"}


class Parsed(HTMLParser):
    """The elements of a page, and its visible text; it notices what is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.mark.parametrize("kind", ResultKind)
def test_a_page_says_its_kind_first(kind: ResultKind) -> None:
    report = collect(KINDS[kind]())
    page = Parsed(report.to_html())
    assert page.open == []
    label = report.outcome.label
    assert f"{label[0].upper()}{label[1:]}" in page.text
    # What is about a model that meets the criterion is not said of others.
    assert ("The model that was found" in page.text) == report.outcome.met
    assert "None" not in page.text and "nan" not in page.text.split()


@pytest.mark.parametrize(
    ("ratio", "words"), [(1.024, "2% slower"), (2.0, "2 times slower"), (0.5, "2 times faster")]
)
def test_a_ratio_of_times_is_said_as_in_the_summary(ratio: float, words: str) -> None:
    result = KINDS[ResultKind.MET_WITHOUT_GAIN]()
    assert result.gain is not None
    gain = replace(result.gain, time_ratio=Ratio(ratio, ratio * 0.99, ratio * 1.01))
    page = Parsed(collect(replace(result, gain=gain)).to_html())
    assert f"time of a run\n        {words}\n" in re.sub(r"\n\s*", "\n        ", page.text)


def test_a_name_that_optuna_has_made_up_is_not_shown() -> None:
    unnamed = collect(search())
    assert unnamed.search.study.startswith("no-name-")
    assert unnamed.title == "Quantization search"
    assert "no-name-" not in Parsed(unnamed.to_html()).text
    named = collect(search(storage=optuna.storages.InMemoryStorage(), study_name="no-name-yet"))
    assert named.title == "no-name-yet"
    assert "study no-name-yet" in Parsed(named.to_html()).text


def test_a_page_tells_what_the_second_evaluation_has_cost() -> None:
    report = collect(sampled())
    assert 0 < report.effort.second_evaluations < report.effort.full_evaluations
    assert "of that for the second evaluation of the answer" in Parsed(report.to_html()).text


def test_a_page_loads_nothing() -> None:
    page = Parsed(_page())
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "onclick", "onerror"} & names
    assert "url(" not in _page() and "@import" not in _page() and "://" not in _page()


def _page() -> str:
    return collect(sampled()).to_html()


def test_names_are_escaped() -> None:
    result = sampled({EVIL: 0.2, "line\nend\u202e{{7*7}}": 0.05, "c": 0.3})
    page = collect(result).to_html()
    parsed = Parsed(page)
    assert parsed.open == []
    assert "img" not in parsed.tags
    assert parsed.tags.count("b") == 1  # The outcome's.
    assert EVIL not in page
    assert EVIL in parsed.text
    assert "line\\nend\\u202e{{7*7}}" in parsed.text
    assert page.count("<script>") == page.count("</script>") == 1


def test_long_names_are_whole_and_may_be_broken() -> None:
    name = "x" * 459
    page = collect(search({name: 0.05, "b": 0.3})).to_html()
    assert name in Parsed(page).text
    assert f'<td class="name"><div>{name}' in page  # Not the class whose names are not broken.
    assert re.search(r"td\.name \{[^}]*overflow-wrap: anywhere", page)


def test_many_ops_are_a_table_without_scripts() -> None:
    report = collect(sampled({f"op{i}": 0.0 for i in range(500)}))
    page = report.to_html()
    rows = re.findall(r'<tr data-state="(\w+)">', page)
    assert len(rows) == 500
    assert len(page) < 500_000
    # What needs a script is only shown where one runs.
    assert re.search(r"\.tools \{ display: none", page)
    assert " hidden" not in page.partition("<script>")[0]


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    report = collect(search())
    assert report.to_json()
    with pytest.raises(ImportError, match=r"optuna_quant\[report\]"):
        report.to_html()


def test_the_table_of_trials_has_the_users_own_parameters() -> None:
    report = collect(search())
    first, *others = report.search.trials
    trials = (
        replace(first, other_params={"temperature": 0.25, EVIL: "a<b"}),
        *(replace(each, other_params={"epochs": 3}) for each in others),
    )
    page = replace(report, search=replace(report.search, trials=trials)).to_html()
    assert EVIL not in page
    assert "a<b" not in page
    text = Parsed(page).text
    table = text[text.index("In fallback", text.index("All ")) :]
    assert table.index("temperature") < table.index("epochs") < table.index("Notes")
    assert "0.25" in table
    assert "a<b" in table
    assert "temperature" not in Parsed(report.to_html()).text
