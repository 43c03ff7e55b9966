"""What a user's training function may ask for while it runs."""

from __future__ import annotations

from dataclasses import dataclass
import io
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import BaseTrial

    from optuna_quant.backends.base import TrainingTrial
    from optuna_quant.backends.torch_program.call import Structure


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state that an earlier trial has saved.

    Args:
        state:
            What was given to :meth:`TrainingRun.save`; its tensors are on the CPU.
        step:
            The step after which it was saved.
    """

    state: Structure
    step: int


class TrainingRun:
    """One training: what ``train(model, run)`` gets beside the module.

    Args:
        trial:
            The trial for which is trained.
        name:
            Tells the training apart by all that it depends on except hyperparameters.
        device:
            Where the module is.
        pruner:
            Says whether to go on; None for the study's.
    """

    def __init__(
        self,
        trial: TrainingTrial,
        name: str,
        *,
        device: torch.device,
        pruner: BasePruner | None = None,
    ) -> None:
        self._trial = trial
        self._name = name
        self._pruner = pruner
        self._earlier = trial.resume(name)
        self.device = device

    @property
    def trial(self) -> BaseTrial:
        """The trial, to suggest hyperparameters: ``run.trial.suggest_float("lr", ...)``."""
        return self._trial.trial

    def report(self, value: float, step: int) -> None:
        """Report how good the model is after a step.

        Args:
            value:
                The metric, or what stands in for it; better in the direction of the study.
            step:
                The step, such as the epoch.

        Raises:
            optuna.exceptions.TrialPruned:
                If a pruner says that the trial should end. Let it pass.
        """
        self._trial.report(float(value), int(step), pruner=self._pruner)

    def save(self, state: object, step: int) -> None:
        """Keep a state, for a trial that goes on from there if this process is killed.

        It replaces what was saved before. PyTorch's random numbers are kept with it. Where it is
        kept is the ``artifact_store`` of the search.

        Args:
            state:
                Tensors, numbers and texts in dictionaries, lists and tuples, such as the state
                dicts of the module and the optimizer.
            step:
                The step after which it is.

        Raises:
            TypeError:
                If it holds anything else.
        """
        whole = {"state": state, "random": torch.get_rng_state()}
        if self.device.type == "cuda":
            whole["random_cuda"] = torch.cuda.get_rng_state(self.device)
        data = _packed(whole)
        self._trial.save(self._name, data, int(step))

    def resume(self) -> Checkpoint | None:
        """What the trial of a killed process has saved last; None if there is nothing.

        PyTorch's random numbers go on from there as well.
        """
        if self._earlier is None:
            return None
        data, step = self._earlier
        whole = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        torch.set_rng_state(whole["random"])
        if "random_cuda" in whole and self.device.type == "cuda":
            torch.cuda.set_rng_state(whole["random_cuda"], self.device)
        return Checkpoint(whole["state"], step)


def _packed(state: object) -> bytes:
    found = io.BytesIO()
    torch.save(state, found)
    try:
        torch.load(io.BytesIO(found.getvalue()), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise TypeError(
            "A saved state may hold tensors, numbers and texts in dictionaries, lists and tuples "
            f"alone: {reason[0] if reason else type(error).__name__}"
        ) from error
    return found.getvalue()
