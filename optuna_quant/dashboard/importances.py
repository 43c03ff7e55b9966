"""The importance of parameters as the dashboard shows it: what each op takes of the metric."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import json
import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import optuna

from optuna_quant.dashboard.careful import carefully
from optuna_quant.samplers._models.option_scores import kept_scores
from optuna_quant.samplers._models.option_scores import merged
from optuna_quant.study.recorded_space import recorded_space


if TYPE_CHECKING:
    from optuna.storages import BaseStorage


App: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""

MOST = 40
"""The bars of the plot can be told apart up to here."""

_PATH = re.compile(r"/api/studies/(\d+)/param_importances/?")
_HEADERS = MappingProxyType({"Content-Type": "application/json"})


def importances_of(study: optuna.Study) -> dict[str, float]:
    """The importance of each op's parameter by the sensitivities of a study, the largest first.

    That is the part that an op has in the error of the outputs if each op alone is quantized, in
    its first option that was scored. It tells which ops matter also where few trials are complete,
    and the best metrics are those of the FP32 model.

    Args:
        study:
            The study.

    Returns:
        By the parameter's name; they add up to 1. Empty if the study keeps no sensitivities.

    Raises:
        ValueError:
            If the study is not one of ours.
    """
    space = recorded_space(study)
    scores = merged(kept_scores(study)).scores
    found: dict[str, float] = {}
    for tunable in space.tunables:
        labels = [option.label for option in tunable.quantized]
        of_ops = [_first(labels, scores.get(op, {})) for op in tunable.ops]
        known = [score for score in of_ops if score is not None]
        if known:
            found[space.parameter_name(f"op:{tunable.name}")] = math.fsum(known)
    total = math.fsum(found.values())
    if not total > 0:
        return {}
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {name: score / total for name, score in ordered}


def _first(labels: Iterable[str], scores: Mapping[str, float]) -> float | None:
    return next((scores[label] for label in labels if label in scores), None)


def with_importances(app: App, storage: BaseStorage) -> App:
    """The dashboard with these importances in the place of its own, where a study has them.

    Its own compare the complete trials that have the best metrics with the others: ops that may
    be quantized without harm are the most important ones there.

    Args:
        app:
            The dashboard's server.
        storage:
            The storage.
    """

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        asked = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        body = None
        if asked is not None and environ.get("REQUEST_METHOD", "GET") == "GET":
            body = carefully("The importance", lambda: _body(storage, int(asked[1])))
        if body is None:
            return app(environ, start)
        start("200 OK", [*_HEADERS.items(), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def _body(storage: BaseStorage, number: int) -> bytes | None:
    try:
        name = storage.get_study_name_from_id(number)
        study = optuna.load_study(study_name=name, storage=storage)
        if len(study.directions) > 1:
            return None
        found = list(importances_of(study).items())[:MOST]
    except (KeyError, ValueError):  # There is no such study, or it is not one of ours.
        return None
    if not found:
        return None
    shown = [
        {"name": name, "importance": importance, "distribution": "CategoricalDistribution"}
        for name, importance in found
    ]
    return json.dumps({"param_importances": [shown]}).encode()
