"""Each plot is drawn, with both libraries, for small and for large studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import sys
import warnings

import matplotlib as mpl
from matplotlib.axes import Axes
import matplotlib.pyplot as plt
import optuna
from optuna.exceptions import ExperimentalWarning
import plotly.graph_objects as go
import plotted_studies
from plotted_studies import GraphBackend
import pytest

from optuna_quant import visualization
from optuna_quant.tuning.outcome import Outcome
from optuna_quant.visualization._model_graph import _get_model_graph_info
from optuna_quant.visualization._op_sensitivities import without_bar
from optuna_quant.visualization._plotly import thinned
from optuna_quant.visualization._timeline import _get_timeline_info
from optuna_quant.visualization.plots import PLOTS
from optuna_quant.visualization.plots import save_plot


mpl.use("Agg")

LONG = [f"/model/{'scope/' * 70}layer.{i // 40}/op {i} <b> $x$" for i in range(500)]
NAMES = {
    "3 ops": ["op0", "op1", "op2"],
    "10 ops": [f"layer{i}/Conv" for i in range(10)],
    "500 ops": LONG,
}


@pytest.fixture(scope="module")
def studies() -> dict[str, optuna.Study]:
    """A study of each size."""
    return {size: plotted_studies.searched(names) for size, names in NAMES.items()}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No figure is left open."""
    yield
    plt.close("all")


def arguments(kind: str, size: str) -> tuple[GraphBackend, ...]:
    return (GraphBackend(NAMES[size], block=40),) if PLOTS[kind].needs_model else ()


@pytest.mark.parametrize("size", NAMES)
@pytest.mark.parametrize("kind", PLOTS)
def test_plotly(kind: str, size: str, studies: dict[str, optuna.Study]) -> None:
    figure = PLOTS[kind].draw(studies[size], *arguments(kind, size))
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text
    assert len(figure.data) > 0
    shown = figure.to_json()
    assert "<b> $x$" not in shown  # A tag of a name would vanish.


TOOLBAR = 28  # Pixels: Plotly's buttons and the blank above them.


@pytest.mark.parametrize("kind", PLOTS)
def test_the_title_is_below_the_toolbar_and_in_a_narrow_card(
    kind: str, studies: dict[str, optuna.Study]
) -> None:
    layout = PLOTS[kind].draw(studies["10 ops"], *arguments(kind, "10 ops")).layout
    title, lines = layout.title, layout.title.text.split("<br>")
    assert (title.yref, title.y, title.yanchor) == ("container", 1, "top")
    assert title.pad.t >= TOOLBAR
    assert layout.margin.t >= title.pad.t + 20 * len(lines) + 10  # Nothing else is up there.
    assert max(map(len, lines)) <= 48  # 420 pixels.


@pytest.mark.parametrize("size", NAMES)
@pytest.mark.parametrize("kind", PLOTS)
def test_matplotlib(kind: str, size: str, studies: dict[str, optuna.Study]) -> None:
    axes = PLOTS[kind].draw_with_matplotlib(studies[size], *arguments(kind, size))
    assert isinstance(axes, Axes)
    assert axes.get_title(loc="left")
    assert axes.has_data()
    axes.figure.canvas.draw()  # Names with signs of formulas would fail here.


@dataclass(frozen=True, eq=False)
class OnlyStudy(Outcome):
    """A result of which the study alone is known."""

    def __init__(self, study: optuna.Study) -> None:
        object.__setattr__(self, "study", study)
        object.__setattr__(self, "trial", None)


@pytest.mark.parametrize("kind", PLOTS)
def test_a_result_is_drawn_as_its_study_is(kind: str, studies: dict[str, optuna.Study]) -> None:
    study = studies["3 ops"]
    result = OnlyStudy(study)
    given = arguments(kind, "3 ops")
    assert PLOTS[kind].draw(result, *given).to_json() == PLOTS[kind].draw(study, *given).to_json()
    assert PLOTS[kind].draw_with_matplotlib(result, *given).has_data()


def test_a_saving_of_zero_differs_from_one_that_is_not_known() -> None:
    assert without_bar([0.5, 0.0, None, -0.1]) == ["", "0", "not known", ""]


@pytest.mark.parametrize("kind", PLOTS)
def test_an_empty_study_gives_an_empty_plot(kind: str) -> None:
    study, _ = plotted_studies.hand_made()
    given = arguments(kind, "3 ops")
    figure = PLOTS[kind].draw(study, *given)
    assert isinstance(figure, go.Figure)
    assert all(not len(trace.x or ()) for trace in figure.data)
    axes = PLOTS[kind].draw_with_matplotlib(study, *given)
    assert isinstance(axes, Axes)
    axes.figure.canvas.draw()


@pytest.mark.parametrize("kind", PLOTS)
def test_both_libraries_have_the_same_functions(kind: str) -> None:
    plot = PLOTS[kind]
    assert plot.draw is getattr(visualization, f"plot_{kind}")
    assert plot.draw_with_matplotlib is getattr(visualization.matplotlib, f"plot_{kind}")


def test_all_plots_are_known_by_name() -> None:
    public = {name for name in visualization.__all__ if name.startswith("plot_")}
    assert public == {f"plot_{kind}" for kind in PLOTS}


def test_matplotlib_is_experimental(studies: dict[str, optuna.Study]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExperimentalWarning)
        with pytest.raises(ExperimentalWarning, match="plot_timeline is experimental"):
            visualization.matplotlib.plot_timeline(studies["3 ops"])


def test_the_timeline_of_matplotlib_marks_what_came_of_each_trial(
    studies: dict[str, optuna.Study],
) -> None:
    axes = visualization.matplotlib.plot_timeline(studies["3 ops"])
    bars = _get_timeline_info(studies["3 ops"]).bars
    marked = {c.get_label(): len(c.get_offsets()) for c in axes.collections if c.get_label()}
    assert marked == dict(Counter(str(bar.outcome) for bar in bars))
    shown = axes.get_legend()
    assert shown is not None
    assert marked.keys() <= {text.get_text() for text in shown.get_texts()}


def test_axes_have_names_and_units(studies: dict[str, optuna.Study]) -> None:
    figure = visualization.plot_tradeoff(studies["3 ops"])
    assert figure.layout.xaxis.title.text == "Size of the model (kB)"
    assert figure.layout.yaxis.title.text == "accuracy"
    axes = visualization.matplotlib.plot_tradeoff(studies["3 ops"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Size of the model (kB)", "accuracy")


def test_a_precision_has_one_colour_in_all_plots(studies: dict[str, optuna.Study]) -> None:
    study = studies["3 ops"]
    names = ("FP32", "8 bits")
    graph = visualization.plot_model_graph(study, *arguments("model_graph", "3 ops"))
    heat_map = visualization.plot_precisions(study)
    found = [
        {trace.name: trace.marker.color for trace in figure.data if trace.name in names}
        for figure in (graph, heat_map)
    ]
    assert found[0] == found[1]
    assert found[0].keys() == set(names)


def test_cells_of_the_heat_map(studies: dict[str, optuna.Study]) -> None:
    heat_map = visualization.plot_precisions(studies["3 ops"]).data[0]
    assert heat_map.text[1][3].startswith("op: op1<br>trial: 3<br>precision: 4 bits<br>option: ")
    assert [len(row) for row in heat_map.z] == [5, 5, 5]


def test_no_label_of_500_ops_is_longer_than_its_axis_has_room_for(
    studies: dict[str, optuna.Study],
) -> None:
    figure = visualization.plot_precisions(studies["500 ops"])
    labels = figure.layout.yaxis.ticktext
    assert len(labels) <= 60
    assert max(map(len, labels)) <= 60  # With escapes of signs.
    bars = visualization.plot_op_sensitivities(studies["500 ops"])
    assert len(bars.layout.yaxis.ticktext) == 31
    assert bars.layout.yaxis.ticktext[-1] == "470 other ops"
    assert LONG[-1].replace("<b>", "&lt;b&gt;") in bars.data[0].hovertext[0]


def test_blocks_of_500_ops_are_drawn_as_rows(studies: dict[str, optuna.Study]) -> None:
    info = _get_model_graph_info(studies["500 ops"], GraphBackend(LONG, block=40))
    assert len(info.cells) == 500
    assert [label.text for label in info.labels[:2]] == ["block0: 40 ops", "block1: 40 ops"]
    places = [(cell.x, cell.y) for cell in info.cells]
    assert len(set(places)) == 500
    assert max(y for _, y in places) < 40
    single = _get_model_graph_info(
        studies["500 ops"], GraphBackend(LONG, block=40), collapse=False
    )
    assert len({(cell.x, cell.y) for cell in single.cells}) == 500
    assert single.labels == []  # There is no room for 500 names.


@pytest.mark.parametrize("suffix", [".html", ".png", ".svg", ".PDF"])
def test_save(suffix: str, studies: dict[str, optuna.Study], tmp_path: Path) -> None:
    path = tmp_path / f"plot{suffix}"
    save_plot(studies["3 ops"], "confidence_sequence", path, trial=1)
    start = {".html": b"<html>", ".png": b"\x89PNG", ".svg": b"<?xml", ".PDF": b"%PDF"}
    assert start[suffix] in path.read_bytes()[:100]
    assert plt.get_fignums() == []


def test_bad_saving(studies: dict[str, optuna.Study], tmp_path: Path) -> None:
    study = studies["3 ops"]
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'tradeof'.*'tradeoff'"):
        save_plot(study, "tradeof", tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"path must end with one of \.html, .*'a\.gif'"):
        save_plot(study, "tradeoff", "a.gif")
    with pytest.raises(ValueError, match="model: a study does not hold the model"):
        save_plot(study, "model_graph", tmp_path / "a.png")
    with pytest.raises(ValueError, match="trial: the plot 'timeline' is of all trials"):
        save_plot(study, "timeline", tmp_path / "a.png", trial=1)
    assert list(tmp_path.iterdir()) == []


def unavailable(package: str, monkeypatch: pytest.MonkeyPatch, draw: Callable[[], object]) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf'package {package}: pip install "optuna_quant\[plot]"'
    ):
        draw()


@pytest.mark.parametrize("kind", PLOTS)
def test_without_the_libraries_the_extra_is_named(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = plotted_studies.hand_made()
    plot, given = PLOTS[kind], arguments(kind, "3 ops")
    unavailable("plotly", monkeypatch, lambda: plot.draw(study, *given))
    assert not visualization.is_available()
    unavailable("matplotlib", monkeypatch, lambda: plot.draw_with_matplotlib(study, *given))
    assert not visualization.matplotlib.is_available()


def test_available() -> None:
    assert visualization.is_available()
    assert visualization.matplotlib.is_available()


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(0, 5, []), (5, 5, [0, 1, 2, 3, 4]), (6, 5, [0, 2, 4]), (100, 3, [0, 34, 68])],
)
def test_thinned(count: int, most: int, places: list[int]) -> None:
    assert thinned(range(count), most) == places


def test_titles_of_two_narrow_axes_stay_apart(studies: dict[str, optuna.Study]) -> None:
    layout = visualization.plot_op_sensitivities(studies["500 ops"]).layout
    titles = [axis.title.text for axis in (layout.xaxis, layout.xaxis2) if axis.title.text]
    assert titles
    assert all(len(line) < 30 for title in titles for line in title.split("<br>"))
