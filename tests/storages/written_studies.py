"""Studies in all kinds of storages, into which trials with many parameters are written."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial
import services


KINDS = ["memory", *services.STORAGES]


DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "zeta": FloatDistribution(1e-5, 1.0, log=True),
    **{f"op{i}": CategoricalDistribution(("int8", "fp32", "bf16")) for i in range(40)},
    "one": CategoricalDistribution((1, 2, None)),
    "true": CategoricalDistribution((True, 2, None)),
    "float": CategoricalDistribution((1.0, 2, None)),
    "alpha": IntDistribution(0, 10, step=5),
}


@contextlib.contextmanager
def open_study(kind: str, folder: Path) -> Iterator[optuna.Study]:
    """A new study in a storage of a kind."""
    if kind == "memory":
        yield optuna.create_study()
        return
    with services.storage_url(kind, folder) as url:
        study = services.create(url)
        study.url = url  # type: ignore[attr-defined]
        yield study


def fresh(study: optuna.Study) -> list[FrozenTrial]:
    """The trials as another process reads them."""
    url = getattr(study, "url", None)
    return services.create(url).trials if url else study.trials


def suggest_all(trial: optuna.Trial, distributions: dict[str, BaseDistribution]) -> None:
    for name, distribution in distributions.items():
        trial._suggest(name, distribution)
