"""Plotly, imported where it is used, and what the plots have in common."""

from __future__ import annotations

from collections.abc import Sequence
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING

from optuna_quant._common.extras import install_hint
from optuna_quant.visualization._names import for_plotly


if TYPE_CHECKING:
    import plotly.graph_objects as go


_TOOLBAR = 30  # Its height in pixels.
_LINE = 21  # That of a line of the title.
_MOST_IN_LINE = 48  # Characters of a title that a card of the dashboard has room for.


def is_available() -> bool:
    """Whether Plotly is installed, which the plots of this package need."""
    try:
        graph_objects()
    except ImportError:
        return False
    return True


def graph_objects() -> ModuleType:
    """The module ``plotly.graph_objects``.

    Raises:
        ImportError:
            If Plotly is not installed; the message says what to install.
    """
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise ImportError(
            f"This plot needs the package plotly: {install_hint('plot')}."
        ) from error
    found: ModuleType = plotly.graph_objects
    return found


def new_figure(title: str, *, x: str = "", y: str = "", **layout: object) -> go.Figure:
    """An empty figure.

    Args:
        title:
            What is seen.
        x:
            The title of the horizontal axis.
        y:
            That of the vertical one.
        **layout:
            More of the layout, as Plotly takes it.
    """
    lines = textwrap.wrap(title, _MOST_IN_LINE)
    top = _TOOLBAR + _LINE * len(lines) + 15
    figure = graph_objects().Figure()
    figure.update_layout(
        template="plotly_white",
        # Plotly's toolbar is in the upper right corner, over whatever else is there.
        title={
            "text": "<br>".join(map(for_plotly, lines)),
            "font": {"size": 16},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": _TOOLBAR},
        },
        modebar={"remove": ["select2d", "lasso2d"]},
        xaxis_title=for_plotly(x) or None,
        yaxis_title=for_plotly(y) or None,
        hoverlabel={"align": "left"},
        margin={"l": 60, "r": 20, "t": top, "b": 60},
    )
    figure.update_layout(**layout)
    return figure


def hover(**facts: object) -> str:
    """A hover text, a line for each fact.

    Args:
        **facts:
            The facts by name; underscores become blanks, and what is None is left out.
    """
    lines = [
        f"{name.replace('_', ' ')}: {for_plotly(str(fact))}"
        for name, fact in facts.items()
        if fact is not None
    ]
    return "<br>".join(lines)


def thinned(places: Sequence[object], most: int) -> list[int]:
    """Which places of an axis have a label: evenly spaced ones.

    Args:
        places:
            The places.
        most:
            The most labels.
    """
    step = -(-len(places) // most) or 1
    return list(range(0, len(places), step))
