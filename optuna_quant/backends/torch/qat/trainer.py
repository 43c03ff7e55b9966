"""Trains the models of configurations, and keeps what was trained."""

from __future__ import annotations

import hashlib
import json
from threading import RLock
from typing import TYPE_CHECKING

from optuna.exceptions import TrialPruned
from optuna.trial import FixedTrial

from optuna_quant.backends.base import TrainingFunctionError
from optuna_quant.backends.torch.qat.finished import check_finite
from optuna_quant.backends.torch.qat.finished import trained_program
from optuna_quant.backends.torch.qat.kept import KeptTrainings
from optuna_quant.backends.torch.qat.kept import nbytes_of
from optuna_quant.backends.torch.qat.kept import packed
from optuna_quant.backends.torch.qat.kept import restore
from optuna_quant.backends.torch.qat.prepared import PreparedModule
from optuna_quant.backends.torch.qat.run import TrainingRun


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.pruners import BasePruner
    from optuna.trial import BaseTrial

    from optuna_quant.backends.base import TrainingTrial
    from optuna_quant.backends.base.training import Hyperparameter
    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch.qat.finished import TrainedProgram
    from optuna_quant.backends.torch.qat.state import ModuleState
    from optuna_quant.backends.torch.qat.training import Training
    from optuna_quant.space.config import QuantConfig


class Trainer:
    """Trains the models of configurations, one at a time in each process.

    Args:
        program:
            The program.
        state:
            The user's parameters and buffers.
        training:
            How models are trained; None if the user does so.
        reduce_range:
            Whether weights that are multiplied as integers use 7 of their 8 bits.

    Attributes:
        kept:
            Keeps what was trained.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        state: ModuleState,
        training: Training | None,
        *,
        reduce_range: bool = False,
    ) -> None:
        self._program = program
        self._reduce_range = reduce_range
        self._state = state
        self.training = training
        self.kept = KeptTrainings()
        # PyTorch's random numbers are those of the process.
        self._lock = RLock()

    def prepare(
        self, plan: ModelPlan, config: QuantConfig, *, learn_ranges: bool | None = None
    ) -> PreparedModule:
        """The module to train for a configuration.

        Args:
            plan:
                The plan of the configuration.
            config:
                The configuration.
            learn_ranges:
                Whether activation ranges are trained; None for what the training says.

        Raises:
            ValueError:
                If a weight is quantized by an algorithm that does more than round.
        """
        if learn_ranges is None:
            learn_ranges = self.training is not None and self.training.learn_ranges
        return PreparedModule(
            self._program,
            plan,
            config,
            self._state,
            learn_ranges=learn_ranges,
            reduce_range=self._reduce_range,
        )

    def trained(
        self, plan: ModelPlan, config: QuantConfig, trial: TrainingTrial
    ) -> TrainedProgram:
        """Train the model of a configuration.

        Args:
            plan:
                The plan of the configuration.
            config:
                The configuration.
            trial:
                The trial for which it is trained.

        Raises:
            TrainingFunctionError:
                If the user's function has raised an error.
        """
        training = self.required()
        with self._lock:
            name = self._name(plan, config)
            pruner = training.pruner
            run = TrainingRun(trial, name, device=self._program.device, pruner=pruner)
            prepared = self.prepare(plan, config)
            try:
                module = training(prepared, run)
            except TrialPruned:
                raise
            except Exception as error:
                raise TrainingFunctionError(str(error)) from error
            check_finite(module)  # Otherwise another worker would be given it.
            name = _with(name, trial.hyperparameters)
            data = self.kept.get(name, lambda: packed(module), nbytes=nbytes_of(module))
        return self._restored(plan, config, data)

    def again(
        self,
        plan: ModelPlan,
        config: QuantConfig,
        hyperparameters: Mapping[str, Hyperparameter],
    ) -> TrainedProgram:
        """What was trained before; trained again if it is not kept.

        Args:
            plan:
                The plan of the configuration.
            config:
                The configuration.
            hyperparameters:
                Those of the training.

        Raises:
            ValueError:
                If the training asks for a hyperparameter that is not given.
        """
        training = self.required()

        def compute() -> bytes:
            trial = _Repeated(hyperparameters)
            run = TrainingRun(trial, name, device=self._program.device)
            try:
                module = training(self.prepare(plan, config), run)
            except ValueError as error:
                if "FixedTrial" not in str(error):
                    raise
                known = ", ".join(hyperparameters) or "none"
                raise ValueError(
                    f"The training asks for a hyperparameter that is not known (known: {known}). "
                    "Give those of the trial: "
                    "backend.quantize_trained(config, hyperparameters). "
                    f"Optuna says: {error}"
                ) from error
            check_finite(module)
            return packed(module)

        name = _with(self._name(plan, config), hyperparameters)
        data = self.kept.find(name)
        if data is None:
            nbytes = sum(each.nbytes for each in self._program.values.values())
            with self._lock:
                data = self.kept.get(name, compute, nbytes=nbytes)
        return self._restored(plan, config, data)

    def _restored(self, plan: ModelPlan, config: QuantConfig, data: bytes) -> TrainedProgram:
        module = self.prepare(plan, config)
        restore(module, data)
        return trained_program(module)

    def required(self) -> Training:
        """How models are trained.

        Raises:
            ValueError:
                If that was not said.
        """
        if self.training is None:
            raise ValueError(
                "approach='qat' trains the model of each configuration, but there is no function "
                "that does: give TorchBackend train=, or train backend.prepare(config) yourself."
            )
        return self.training

    def _name(self, plan: ModelPlan, config: QuantConfig) -> str:
        """Tells trainings apart by all that they depend on except hyperparameters."""
        assert self.training is not None
        labels = [(name, config.ops[name].label) for name in sorted(plan.ops)]
        parts = [plan.fingerprint, labels, self.training.digest, self._program.device.type]
        return "trained:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _with(name: str, hyperparameters: Mapping[str, Hyperparameter]) -> str:
    values = json.dumps(sorted(hyperparameters.items()))
    return f"{name}:{hashlib.sha256(values.encode()).hexdigest()[:16]}"


class _Repeated:
    """A trial that is run again: nothing is pruned, and nothing saved."""

    def __init__(self, hyperparameters: Mapping[str, Hyperparameter]) -> None:
        self.hyperparameters = hyperparameters
        self.trial: BaseTrial = FixedTrial(dict(hyperparameters))

    def report(self, value: float, step: int, *, pruner: BasePruner | None = None) -> None:
        """Nothing is pruned."""

    def resume(self, name: str) -> tuple[bytes, int] | None:
        """There is nothing to go on from."""
        return None

    def save(self, name: str, state: bytes, step: int) -> None:
        """Nothing is saved: if this process is killed, nothing of a study is lost."""
