"""Matplotlib, imported where it is used, and what the plots have in common."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
from types import ModuleType
from typing import TYPE_CHECKING
from typing import Any
from typing import ParamSpec
from typing import TypeVar
import warnings

from optuna.exceptions import ExperimentalWarning

from optuna_quant._common.extras import install_hint
from optuna_quant.visualization._facts import HOLLOW
from optuna_quant.visualization._facts import SYMBOLS
from optuna_quant.visualization._facts import Judged


if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection


P = ParamSpec("P")
R = TypeVar("R")

GRID = "#DDDDDD"
FONT = 9


def experimental(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function as experimental: it warns so, as Optuna's own do.

    Args:
        function:
            The function.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        warnings.warn(
            f"{function.__name__} is experimental: the interface can change in the future.",
            ExperimentalWarning,
            stacklevel=2,
        )
        return function(*args, **kwargs)

    return wrapped


def pyplot() -> ModuleType:
    """The module ``matplotlib.pyplot``.

    Raises:
        ImportError:
            If Matplotlib is not installed; the message says what to install.
    """
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            f"This plot needs the package matplotlib: {install_hint('plot')}."
        ) from error
    return matplotlib.pyplot


def is_available() -> bool:
    """Whether Matplotlib is installed, which the plots of this package need."""
    try:
        pyplot()
    except ImportError:
        return False
    return True


def new_axes(
    title: str, *, x: str = "", y: str = "", size: tuple[float, float] = (8.0, 5.0)
) -> Axes:
    """Empty axes on a figure of their own.

    Args:
        title:
            What is seen.
        x:
            The title of the horizontal axis.
        y:
            That of the vertical one.
        size:
            The size of the figure in inches.
    """
    _, axes = pyplot().subplots(figsize=size, layout="constrained")
    axes.set_title(title, fontsize=11, loc="left")
    style(axes, x=x, y=y)
    found: Axes = axes
    return found


def style(axes: Axes, *, x: str, y: str) -> None:
    """Axes with light lines and without a frame.

    Args:
        axes:
            The axes.
        x:
            The title of the horizontal axis.
        y:
            That of the vertical one.
    """
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1, length=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_color(GRID)


def put_legend(
    axes: Axes, handles: Sequence[Artist] | None = None, *, marker_scale: float = 1.0
) -> None:
    """A legend beside the axes.

    Args:
        axes:
            The axes.
        handles:
            What it explains. Default: what has a label.
        marker_scale:
            The size of its markers, by that of those in the plot.
    """
    given = {} if handles is None else {"handles": handles}
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=FONT - 1,
        frameon=False,
        markerscale=marker_scale,
        **given,
    )


def mark(
    axes: Axes,
    outcome: Judged,
    x: Sequence[float],
    y: Sequence[float],
    *,
    color: str = "#222222",
    size: float = 36,
) -> PathCollection:
    """Draw the markers of trials of which the same came out.

    Args:
        axes:
            Where to draw them.
        outcome:
            What came out.
        x:
            Where they are.
        y:
            Where they are.
        color:
            Their colour.
        size:
            Their area.

    Returns:
        The entry of the legend.
    """
    symbol = SYMBOLS[outcome][1]
    colors: dict[str, Any] = (
        {"color": color}
        if symbol in "x_"
        else {"edgecolors": color, "facecolors": "none" if outcome in HOLLOW else color}
    )
    return axes.scatter(
        x, y, s=size, marker=symbol, linewidths=1.3, label=str(outcome), zorder=3, **colors
    )
