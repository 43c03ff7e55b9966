"""The importance of parameters in the dashboard that the command serves."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
from plotted_studies import keep_scores
from plotted_studies import searched
import pytest
from spaces import STATIC

from optuna_quant.dashboard.importances import MOST
from optuna_quant.dashboard.importances import importances_of
from optuna_quant.dashboard.importances import with_importances


def asked(app: Any, path: str, method: str = "GET") -> Any:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda code, *_: status.append(code)))
    assert status[0].startswith("200"), status
    return json.loads(body)


def stock(environ: dict[str, Any], start: Any) -> list[bytes]:
    start("200 OK", [])
    return [b'"the stock dashboard"']


def test_they_are_the_part_of_each_op_in_the_sensitivities() -> None:
    found = importances_of(searched(3))
    assert list(found) == ["quant.op:op2", "quant.op:op1", "quant.op:op0"]
    assert list(found.values()) == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_the_dashboard_gets_them() -> None:
    storage = optuna.storages.InMemoryStorage()
    searched(3, storage=storage)
    app = with_importances(stock, storage)
    (shown,) = asked(app, "/api/studies/0/param_importances")["param_importances"]
    assert [each["name"] for each in shown] == ["quant.op:op2", "quant.op:op1", "quant.op:op0"]
    assert shown[0]["importance"] == pytest.approx(0.5)
    assert {each["distribution"] for each in shown} == {"CategoricalDistribution"}


def test_of_many_the_largest_are_shown() -> None:
    storage = optuna.storages.InMemoryStorage()
    searched(100, storage=storage)
    app = with_importances(stock, storage)
    (shown,) = asked(app, "/api/studies/0/param_importances")["param_importances"]
    assert [each["name"] for each in shown[:2]] == ["quant.op:op99", "quant.op:op98"]
    assert len(shown) == MOST


@pytest.mark.parametrize(
    "path",
    [
        "/api/studies/0",
        "/api/studies/7/param_importances",
        "/api/studies/1/param_importances",
        "/api/studies/2/param_importances",
    ],
)
def test_everything_else_is_that_of_the_stock_dashboard(path: str) -> None:
    storage = optuna.storages.InMemoryStorage()
    searched(3, storage=storage)
    optuna.create_study(storage=storage)
    optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    assert asked(with_importances(stock, storage), path) == "the stock dashboard"


def test_without_sensitivities_it_is_the_stock_dashboard() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = searched(3, storage=storage)
    keep_scores(study, {})
    assert importances_of(study) == {}
    keep_scores(study, {f"op{i}": {STATIC.label: 0.0} for i in range(3)})
    assert (
        asked(with_importances(stock, storage), "/api/studies/0/param_importances")
        == "the stock dashboard"
    )
