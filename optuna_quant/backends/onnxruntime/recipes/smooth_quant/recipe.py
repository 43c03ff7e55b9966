"""The recipe ``smooth_quant``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from optuna_quant._common.nearest import did_you_mean_inside
from optuna_quant.backends.onnxruntime.recipes.labels import OFF
from optuna_quant.backends.onnxruntime.recipes.recipe import GraphRecipe
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.attention import has_attention
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import AUTO
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import OP_TYPES
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import AutoAlpha
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import SmoothQuantSettings
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.smooth import smoothed
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.smooth import smoothed_ops


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs


_TRIED = (0.5, 0.75, "auto")
"""The alphas to choose from where the user names none."""

_USUAL = (0.5,)
"""Those where the user leaves open whether it is tuned: each one takes a pass over the data."""

_AUTO_ARGS = "auto_alpha_args"


class SmoothQuant(GraphRecipe):
    """Make large channels of activations smaller, for transformers with outliers."""

    name = "smooth_quant"
    lowers_errors = True
    arguments = (
        "alpha",
        "folding",
        "scales_per_op",
        "weight_clip",
        "op_types",
        _AUTO_ARGS,
    )

    def offered(self, args: Mapping[str, object]) -> tuple[str, ...]:
        return OFF, *self._labels(args, _TRIED)

    def switched_on(self, args: Mapping[str, object]) -> tuple[str, ...]:
        return self._labels(args, (None,))

    def check(self, value: str) -> None:
        if value == OFF:
            return
        try:
            SmoothQuantSettings.from_label(value)
        except ValueError as error:
            raise ValueError(
                f"{error} (its values are 'off', 'alpha=0.5', 'alpha=auto' and the like)"
            ) from None

    def reason_against(self, facts: ModelFacts) -> str | None:
        if facts.approach == "weight_only":
            return "activations stay in floats"
        if not facts.has_data:
            return "it needs calibration_data"
        if not smoothed_ops(facts.graph, OP_TYPES):
            return f"the model has no {', '.join(OP_TYPES)} with a constant weight"
        return None

    def usual(self, facts: ModelFacts) -> tuple[str, ...]:
        # In dynamic mode ranges are those of one run, so that outliers do less harm.
        if facts.approach != "static" or not has_attention(facts.graph):
            return ()
        return OFF, *self._labels({}, _USUAL)

    def uses_data(self, value: str) -> bool:
        return True

    def rewrite(self, graph: Graph, value: str, runs: RunsGraphs) -> Graph:
        return smoothed(graph, SmoothQuantSettings.from_label(value), runs)

    @staticmethod
    def _labels(args: Mapping[str, object], tried: tuple[object, ...]) -> tuple[str, ...]:
        alphas = args.get("alpha")
        if alphas is None:
            alphas = tried
        if not isinstance(alphas, list | tuple):
            alphas = (alphas,)
        if not alphas:
            raise ValueError("the list of alphas is empty")
        auto = args.get(_AUTO_ARGS) or {}
        known = [each.name for each in fields(AutoAlpha)]
        if not isinstance(auto, Mapping):
            raise ValueError(f"{_AUTO_ARGS} must be a dict, but is {auto!r}")
        for name in auto:
            if name not in known:
                hint = did_you_mean_inside(str(name), known)
                raise ValueError(
                    f"{_AUTO_ARGS} has no setting {name!r}{hint}; it has {', '.join(known)}"
                )
        if auto and AUTO not in alphas:
            raise ValueError(
                f"{_AUTO_ARGS} is for alpha='auto', but alpha is "
                f"{', '.join('the default' if a is None else repr(a) for a in alphas)}"
            )
        others = {name: v for name, v in args.items() if name not in ("alpha", _AUTO_ARGS)}
        labels = [SmoothQuantSettings.of(alpha, others, auto).label for alpha in alphas]
        return tuple(dict.fromkeys(labels))
