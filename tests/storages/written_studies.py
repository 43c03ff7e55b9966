"""Studies in all kinds of storages, into which trials with many parameters are written."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path
import uuid

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


class Shared:
    """Opened once for many studies: a storage, and the same as another process opens it."""

    def __init__(self, url: str) -> None:
        self.storage = services.open_storage(url)
        self.elsewhere = services.open_storage(url)


@contextlib.contextmanager
def open_shared(kind: str, folder: Path) -> Iterator[Shared | None]:
    """A new storage of a kind; :obj:`None` for memory, in which each study has its own."""
    if kind == "memory":
        yield None
        return
    with services.storage_url(kind, folder) as url:
        yield Shared(url)


def new_study(shared: Shared | None) -> optuna.Study:
    """A new study, alone in its name, that :func:`fresh` can read."""
    if shared is None:
        return optuna.create_study(direction="maximize")
    study = optuna.create_study(
        storage=shared.storage, study_name=uuid.uuid4().hex, direction="maximize"
    )
    study.elsewhere = shared.elsewhere  # type: ignore[attr-defined]
    return study


def fresh(study: optuna.Study) -> list[FrozenTrial]:
    """The trials as another process reads them."""
    elsewhere = getattr(study, "elsewhere", None)
    return elsewhere.get_all_trials(study._study_id) if elsewhere else study.trials


def suggest_all(trial: optuna.Trial, distributions: dict[str, BaseDistribution]) -> None:
    for name, distribution in distributions.items():
        trial._suggest(name, distribution)
