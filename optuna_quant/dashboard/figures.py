"""The plots of a study that the dashboard shows, as far as they are installed."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    import optuna


def _plot(function: str) -> Callable[[optuna.Study], Any]:
    def draw(study: optuna.Study) -> Any:
        try:
            importlib.import_module("plotly")
            module = importlib.import_module("optuna_quant.visualization")
        except ImportError:  # Without the extra there are no plots, which is no error.
            return None
        try:
            return getattr(module, function)(study)
        except ValueError:  # The study does not hold what it shows.
            return None

    return draw


FIGURES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "tradeoff": _plot("plot_tradeoff"),
        "precisions": _plot("plot_precisions"),
        "op_sensitivities": _plot("plot_op_sensitivities"),
    }
)
"""What draws each figure, by the name that it has in the study."""
