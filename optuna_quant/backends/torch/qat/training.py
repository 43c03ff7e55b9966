"""The user's training function, and what is told apart by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
import inspect
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant._common.code_digest import code_digest
from optuna_quant.backends.torch.qat.prepared import PreparedModule


if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from optuna_quant.backends.torch.qat.run import TrainingRun


@dataclass(frozen=True)
class Training:
    """How the models of configurations are trained.

    Args:
        function:
            Trains a module in place: ``train(model)``, or ``train(model, run)`` with a
            :class:`~optuna_quant.backends.torch.TrainingRun`. It may return the module that is to
            be taken instead, a copy of the one it was given.
        seed:
            The seed of PyTorch's random numbers at the start of each training.
        learn_ranges:
            Whether the ranges of activations in static mode are trained as well.
        pruner:
            Says, at each report of a training, whether it should go on; None for the study's
            pruner (:func:`~optuna_quant.tune` makes studies without one).

    Raises:
        TypeError:
            If ``function`` cannot be called with a model, or an argument has the wrong type.

    Example:
        >>> Training(train, seed=1, pruner=optuna.pruners.MedianPruner())  # doctest: +SKIP
    """

    function: Callable[..., object]
    seed: int = 0
    learn_ranges: bool = False
    pruner: BasePruner | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                "train must be a function train(model) or train(model, run), or a Training, but "
                f"got {self.function!r}."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an integer, but got {self.seed!r}.")
        parameters = _parameters(self.function)
        if parameters is not None and not parameters:
            raise TypeError(
                "train must take the module to train, as train(model) or train(model, run), but "
                f"{_name(self.function)} takes no argument."
            )

    @cached_property
    def digest(self) -> str:
        """Tells trainings with other code, seeds or ranges apart, the same in every process."""
        code = code_digest(self.function) or _name(self.function)
        return f"{code} seed={self.seed} learn_ranges={self.learn_ranges}"

    def __call__(self, module: PreparedModule, run: TrainingRun) -> PreparedModule:
        """Train a module.

        Args:
            module:
                The module.
            run:
                What the function may ask for.

        Returns:
            The trained module.

        Raises:
            TypeError:
                If the function returns something else than nothing or such a module.
        """
        devices = [run.device] if run.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(self.seed)
            found = self.function(module, run) if self._takes_run else self.function(module)
        if found is None:
            return module
        if not isinstance(found, PreparedModule) or found.how is not module.how:
            raise TypeError(
                "train must return nothing, or a copy of the module that it was given, but "
                f"{_name(self.function)} returned {type(found).__name__}."
            )
        return found

    @property
    def _takes_run(self) -> bool:
        parameters = _parameters(self.function)
        if parameters is None or len(parameters) < 2:
            return False
        second = parameters[1]
        return second.name == "run" or second.default is inspect.Parameter.empty


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter] | None:
    """The parameters that take positional arguments; None if they are not known."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in known):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in known if each.kind in positional]


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def checked_training(
    train: Training | Callable[..., object] | None, approach: str
) -> Training | None:
    """How models are trained, from what the user gave; None if ``train`` was not given.

    Args:
        train:
            What the user gave.
        approach:
            The approach to quantization.

    Raises:
        TypeError:
            If ``train`` cannot be called with a model.
        ValueError:
            If nothing is trained in this approach.
    """
    if train is not None and approach != "qat":
        raise ValueError(
            f"train= trains the models of approach='qat', but approach is {approach!r}."
        )
    return train if train is None or isinstance(train, Training) else Training(train)
