"""The graph of a model, coloured by the precision of its ops."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.backends.base import HasBlocks
from optuna_quant.backends.base import HasGraph
from optuna_quant.backends.default import make_backend
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.trial_view import views
from optuna_quant.tuning.outcome import Outcome
from optuna_quant.tuning.recorded_outcome import is_recorded
from optuna_quant.visualization._facts import answer_of
from optuna_quant.visualization._facts import config_of
from optuna_quant.visualization._facts import has_quantized
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import trial_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._graph_layout import Part
from optuna_quant.visualization._graph_layout import Placed
from optuna_quant.visualization._graph_layout import parts_of
from optuna_quant.visualization._graph_layout import placed
from optuna_quant.visualization._graph_layout import text_width
from optuna_quant.visualization._names import for_plotly
from optuna_quant.visualization._names import shortened
from optuna_quant.visualization._options import Precision
from optuna_quant.visualization._options import precision_of
from optuna_quant.visualization._options import present
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import hover
from optuna_quant.visualization._plotly import new_figure


if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna
    import plotly.graph_objects as go

    from optuna_quant.backends.default import ModelLike
    from optuna_quant.study.trial_view import TrialView
    from optuna_quant.visualization._facts import Searched


EDGE_COLOR = "#BBBBBB"
JOIN_COLOR = "#888888"
JOIN = "not quantizable"

_MOST_SINGLE_OPS = 60
_MOST_NAMES = 80
_NAME_LENGTH = 26


class _Cell(NamedTuple):
    op: str
    op_type: str
    precision: Precision
    option: str
    x: float
    y: float


class _Join(NamedTuple):
    name: str
    op_type: str
    x: float
    y: float


class _Label(NamedTuple):
    text: str
    x: float
    y: float


class _ModelGraphInfo(NamedTuple):
    trial: int | None
    cells: list[_Cell]
    joins: list[_Join]
    edges: list[tuple[float, float, float, float]]
    labels: list[_Label]
    quantized: int
    total: int


def _get_model_graph_info(
    study: Searched,
    model: ModelLike | HasGraph | None = None,
    *,
    trial: int | None = None,
    collapse: bool | None = None,
    prefix: str = "quant",
) -> _ModelGraphInfo:
    model = model_of(study, model)
    if trial is None and isinstance(study, Outcome) and study.trial is not None:
        trial = study.trial.number
    study = study_of(study)
    view = _view(study, trial)
    if view is None:
        warn_of_nothing(study, "no trial of a quantized model")
        return _ModelGraphInfo(None, [], [], [], [], 0, 0)
    config = config_of(recorded_space(study, prefix), view)
    if config is None:
        raise ValueError(
            f"trial: the record does not say how the model of trial {view.number} of the study "
            f"{study.study_name!r} is quantized. Give another trial."
        )
    backend = _backend(model)
    nodes = backend.graph_nodes()
    names = {node.name for node in nodes}
    missing = [op for op in config.ops if op not in names]
    if missing:
        raise ValueError(
            f"model: it does not have {len(missing)} of the {len(config.ops)} ops of the study "
            f"{study.study_name!r}, such as "
            f"{missing[0]!r}. Give the model that the study has searched."
        )
    if collapse is None:
        collapse = len(config.ops) > _MOST_SINGLE_OPS
    blocks = backend.blocks() if collapse and isinstance(backend, HasBlocks) else ()
    parts = parts_of(nodes, list(config.ops), blocks)
    texts = _texts(parts)
    places = placed(parts, texts)
    types = {node.name: node.op_type for node in nodes}
    cells = []
    for place in places:
        for position, op in enumerate(place.part.ops):
            option = config.ops[op]
            x, y = place.place(position)
            cells.append(_Cell(op, types[op], precision_of(option), option.label, x, y))
    return _ModelGraphInfo(
        view.number,
        cells,
        [_Join(p.part.name, p.part.op_type, p.x, p.y) for p in places if not p.part.ops],
        [edge for place in places for edge in _edges(place, places)],
        _labels(places, texts),
        len(config.quantized_ops),
        len(config.ops) + len(recorded_left_out(study, prefix)),
    )


def model_of(study: Searched, model: ModelLike | HasGraph | None) -> ModelLike | HasGraph:
    """The model that is drawn: what is given, or else that of the result.

    Args:
        study:
            A study, or the result of a search.
        model:
            The model; None for that of the result.

    Raises:
        ValueError:
            If none is given, and no result knows it.
    """
    if model is not None:
        return model
    if isinstance(study, Outcome) and not is_recorded(study):
        return study.backend  # type: ignore[return-value]  # Whether it knows a graph is asked.
    raise ValueError(
        "model: a study does not hold the model that it has searched. Give it, as a path or a "
        "backend, or the result of tune() in place of the study."
    )


def _view(study: optuna.Study, trial: int | None) -> TrialView | None:
    """The trial whose configuration is drawn."""
    if trial is not None:
        return trial_of(study, trial)
    if not has_quantized(study):
        return None
    number = answer_of(study)
    if number is not None:
        return trial_of(study, number)
    found = [view for view in views(study) if view.is_finished and view.is_quantized]
    return max(found, key=lambda view: (view.samples or 0, -view.number))


def _backend(model: ModelLike | HasGraph) -> HasGraph:
    if isinstance(model, HasGraph):
        return model
    if hasattr(model, "tuning_space"):
        raise ValueError(
            f"model: the backend {type(model).__name__} does not know the graph of its "
            "model: it has no graph_nodes(), see optuna_quant.backends.base.HasGraph."
        )
    if isinstance(model, str | os.PathLike) and not os.path.exists(model):
        raise FileNotFoundError(f"model: there is no file {os.fspath(model)!r}.")
    return make_backend(model, inspect_only=True)


def _edges(place: Placed, places: list[Placed]) -> list[tuple[float, float, float, float]]:
    """The lines to a part from those before it; from column to column there is none."""
    found = []
    for source in place.part.sources:
        other = places[source]
        if other.column == place.column:
            found.append((*other.last, place.x, place.y))
    return found


def _texts(parts: list[Part]) -> dict[str, str]:
    """What stands beside each part, by its name; nothing if they are too many."""
    shown = [part for part in parts if part.ops]
    if len(shown) > _MOST_NAMES:
        return {}
    single = [part.name for part in shown if len(part.ops) == 1]
    texts = dict(zip(single, shortened(single, _NAME_LENGTH), strict=True))
    return {
        part.name: texts.get(part.name) or f"{part.name}: {len(part.ops)} ops" for part in shown
    }


def _labels(places: list[Placed], texts: Mapping[str, str]) -> list[_Label]:
    found = []
    for place in places:
        text = texts.get(place.part.name)
        if text:
            last = max(place.place(position)[0] for position in range(len(place.part.ops)))
            found.append(_Label(text, last + 0.7, place.y))
    return found


def title_of(info: _ModelGraphInfo) -> str:
    """The title.

    Args:
        info:
            What is drawn.
    """
    if info.trial is None:
        return "Precision of each op in the model"
    return f"Model of trial {info.trial}: {info.quantized} of {info.total} ops quantized"


def size_of(info: _ModelGraphInfo) -> tuple[float, float]:
    """The width and the height of the picture, in widths of an op.

    Args:
        info:
            What is drawn.
    """
    places = [(cell.x, cell.y) for cell in info.cells]
    places += [(join.x, join.y) for join in info.joins]
    xs, ys = [x for x, _ in places], [y for _, y in places]
    xs += [label.x - 0.7 + text_width(label.text) for label in info.labels]
    return max(xs, default=0.0) + 2.0, max(ys, default=0.0) + 2.0


def plot_model_graph(
    study: Searched,
    model: ModelLike | HasGraph | None = None,
    *,
    trial: int | None = None,
    collapse: bool | None = None,
    prefix: str = "quant",
) -> go.Figure:
    """Plot the graph of the model, each op in the colour of its precision in a trial.

    Data flow from top to bottom, and on to the next column. Only the ops of the tuning space are
    drawn, and nodes where paths join. Of a large model the parts that repeat are drawn as a row
    of their ops.

    Example:
        .. code-block:: python

            figure = optuna_quant.visualization.plot_model_graph(result)
            figure.show()

    Args:
        study:
            A study that a strategy of this library has searched, or the result of a search.
        model:
            The model that it has searched: a path, or a backend. Default: that of the result; a
            study does not hold it.
        trial:
            The number of the trial. Default: that of the result, the answer of the study, or the
            trial that comes closest.
        collapse:
            Whether repeated blocks are drawn as a row of ops. Default: if there are more than 60
            ops.
        prefix:
            What the names of the study's parameters begin with.

    Returns:
        The figure.

    Raises:
        ValueError:
            If there is no such trial, its configuration is not recorded, or the model is another
            one, has a backend without a graph, or is not given with a study.
        FileNotFoundError:
            If there is no such file.
        ImportError:
            If Plotly, or the runtime that reads the model, is not installed.
    """
    graph_objects()
    info = _get_model_graph_info(study, model, trial=trial, collapse=collapse, prefix=prefix)
    return _get_model_graph_plot(info)


def _get_model_graph_plot(info: _ModelGraphInfo) -> go.Figure:
    go = graph_objects()
    width, height = size_of(info)
    pixels = 28 if info.labels or len(info.cells) < 300 else 22
    figure = new_figure(
        title_of(info),
        width=max(420, 130 + pixels * width),
        height=max(320, 110 + pixels * 1.15 * height),
        legend={"itemclick": False},
        margin={"l": 20, "r": 20, "b": 20},
    )
    line = {"color": EDGE_COLOR, "width": 1.5}
    if info.edges:
        figure.add_trace(
            go.Scatter(
                x=[x for x0, _, x1, _ in info.edges for x in (x0, x1, None)],
                y=[y for _, y0, _, y1 in info.edges for y in (y0, y1, None)],
                mode="lines",
                line=line,
                hoverinfo="skip",
                showlegend=False,
            )
        )
    for precision in present(cell.precision for cell in info.cells):
        cells = [cell for cell in info.cells if cell.precision == precision]
        marker = {"symbol": "square", "size": 0.7 * pixels, "color": precision.color}
        figure.add_trace(
            go.Scatter(
                x=[cell.x for cell in cells],
                y=[cell.y for cell in cells],
                mode="markers",
                marker=marker,
                name=precision.name,
                hovertext=[hover(op=c.op, type=c.op_type, option=c.option) for c in cells],
                hoverinfo="text",
            )
        )
    if info.joins:
        figure.add_trace(
            go.Scatter(
                x=[join.x for join in info.joins],
                y=[join.y for join in info.joins],
                mode="markers",
                marker={"size": 7, "color": JOIN_COLOR},
                name=JOIN,
                hovertext=[hover(node=join.name, type=join.op_type) for join in info.joins],
                hoverinfo="text",
            )
        )
    if info.labels:
        figure.add_trace(
            go.Scatter(
                x=[label.x for label in info.labels],
                y=[label.y for label in info.labels],
                mode="text",
                text=[for_plotly(label.text) for label in info.labels],
                textposition="middle right",
                textfont={"size": 11},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    figure.update_xaxes(range=[-1, width - 1], visible=False)
    figure.update_yaxes(range=[height - 1, -1], visible=False)
    return figure
