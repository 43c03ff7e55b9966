"""What a callback may offer beside being called after each trial."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model


@runtime_checkable
class Publishes(Protocol):
    """A callback that shows a search elsewhere: :func:`optuna_quant.tune` calls these as well.

    Neither may raise.
    """

    def annotate(self, trial: optuna.Trial) -> None:
        """Add user attributes to a trial, while it still runs.

        Args:
            trial:
                The trial.
        """

    def finish(self, study: optuna.Study) -> None:
        """Show how a search has ended.

        Args:
            study:
                The study.
        """


@runtime_checkable
class PublishesModels(Protocol):
    """A callback that publishes models: :func:`optuna_quant.tune` calls these as well.

    Neither may raise.
    """

    def begin(self, backend: Backend) -> None:
        """Get to know what builds the models of a search, before it starts.

        Args:
            backend:
                The backend.
        """

    def offer(self, trial: optuna.Trial, model: Model) -> None:
        """Get a model that meets the criterion, while its trial still runs.

        Args:
            trial:
                The trial.
            model:
                Its model, as it is deployed.
        """


def publishers(callbacks: Iterable[object]) -> list[Publishes]:
    """Those of some callbacks that publish."""
    return [each for each in callbacks if isinstance(each, Publishes)]


def annotate_all(callbacks: Iterable[object]) -> Callable[[optuna.Trial], None] | None:
    """What annotates a trial for those of some callbacks that publish; None if none does."""
    found = publishers(callbacks)

    def annotate(trial: optuna.Trial) -> None:
        for each in found:
            each.annotate(trial)

    return annotate if found else None


def begin_all(callbacks: Iterable[object], backend: Backend) -> None:
    """Tell those of some callbacks that publish models what builds them."""
    for each in callbacks:
        if isinstance(each, PublishesModels):
            each.begin(backend)


def offer_to_all(
    callbacks: Iterable[object],
) -> Callable[[optuna.Trial, Model], None] | None:
    """What offers a model to those of some callbacks that publish models; None if none does."""
    found = [each for each in callbacks if isinstance(each, PublishesModels)]

    def offer(trial: optuna.Trial, model: Model) -> None:
        for each in found:
            each.offer(trial, model)

    return offer if found else None
