"""What a backend may offer that trains models with their quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol
from typing import TypeAlias
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.pruners import BasePruner
    from optuna.trial import BaseTrial

    from optuna_quant.backends.base.model import CandidateModel
    from optuna_quant.backends.base.model import Model
    from optuna_quant.space.config import QuantConfig


class TrainingFunctionError(Exception):
    """The user's function that trains has raised an error, which is the cause of this one."""


Hyperparameter: TypeAlias = "str | int | float | bool | None"


class TrainingTrial(Protocol):
    """The trial for which a model is trained."""

    @property
    def trial(self) -> BaseTrial:
        """The trial, which suggests hyperparameters."""
        ...

    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """The trial's parameters so far, without those of the tuning space."""
        ...

    def report(self, value: float, step: int, *, pruner: BasePruner | None = None) -> None:
        """Report how good the model is after a step.

        Args:
            value:
                The metric, or what stands in for it.
            step:
                The step.
            pruner:
                Says whether to go on; None for the study's.

        Raises:
            optuna.exceptions.TrialPruned:
                If the training should end.
        """
        ...

    def resume(self, name: str) -> tuple[bytes, int] | None:
        """The state that an earlier trial has saved before its worker died, and after what step.

        From then on the trial suggests the hyperparameters which that one had.

        Args:
            name:
                Tells the training apart by all that it depends on except hyperparameters, the
                same in every process.
        """
        ...

    def save(self, name: str, state: bytes, step: int) -> None:
        """Keep a state for a trial that goes on from there if this worker dies.

        Args:
            name:
                As for :meth:`resume`.
            state:
                The state.
            step:
                The step after which it is.
        """
        ...


@runtime_checkable
class TrainsCandidates(Protocol):
    """A backend that can train the model of a configuration before it is evaluated."""

    def trains(self, config: QuantConfig) -> bool:
        """Whether the model of a configuration is trained."""
        ...

    def trained(self, config: QuantConfig, trial: TrainingTrial) -> CandidateModel:
        """Train the model of a configuration.

        A backend that is :class:`~optuna_quant.backends.base.SimulatesCandidates` gives the
        simulation.

        Args:
            config:
                The configuration.
            trial:
                The trial for which it is trained.

        Raises:
            optuna.exceptions.TrialPruned:
                If a pruner ended the training.
            TrainingFunctionError:
                If the user's function has raised an error: in the first training, that ends the
                search. Any other error fails the trial.
        """
        ...

    def quantize_trained(
        self, config: QuantConfig, hyperparameters: Mapping[str, Hyperparameter]
    ) -> Model:
        """What :meth:`Backend.quantize` gives, with the weights of a training of before.

        If they are not kept, here or by :class:`~optuna_quant.backends.base.KeepsParts`, the
        model is trained again.

        Args:
            config:
                The configuration.
            hyperparameters:
                Those of the trial that has trained it.

        Raises:
            ValueError:
                If the training asks for a hyperparameter that is not given.
        """
        ...
