"""A worker of a search that publishes, in a process of its own."""

from __future__ import annotations

from typing import Any

from fake_backend import FakeBackend
import optuna
from optuna.artifacts import FileSystemArtifactStore
import services

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import tune


DAMAGE = {f"op{i}": damage for i, damage in enumerate((0.05, 0.004, 0.003, 0.002, 0.001, 0.0))}
"""Many models meet the criterion, and several of them are on the front."""


def search(**kwargs: Any) -> TuningResult:
    """A search of 25 trials; every model of it loses another part of the metric."""
    given: dict[str, Any] = {
        "backend": FakeBackend(DAMAGE),
        "evaluate": lambda model: model.accuracy,
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.01),
        "strategy": "random",
        "seed": 1,
        "strategy_kwargs": {"fallback": True},
        "max_trials": 25,
        "timeout": None,
        "show_progress": False,
        "verify": False,
    }
    return tune(**given | kwargs)


def work(url: str, folder: str) -> None:
    """Search in a study that others search as well, and publish it."""
    from optuna_quant.dashboard import PublishToDashboard

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    publisher = PublishToDashboard(artifact_store=FileSystemArtifactStore(folder), interval=0)
    storage = services.open_as_users_do(url)
    search(storage=storage, study_name="s", callbacks=[publisher], max_trials=12)
