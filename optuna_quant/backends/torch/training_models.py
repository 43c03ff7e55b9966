"""The methods of the backend about quantization-aware training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.torch.qat.finished import trained_program
from optuna_quant.backends.torch.qat.prepared import PreparedModule
from optuna_quant.backends.torch.topic import BackendTopic


if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from optuna_quant.backends.base import KeepsParts
    from optuna_quant.backends.base import TrainingTrial
    from optuna_quant.backends.base.training import Hyperparameter
    from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
    from optuna_quant.backends.torch.converted.model import TorchModel
    from optuna_quant.backends.torch.qat.finished import TrainedProgram
    from optuna_quant.space.config import QuantConfig


class TrainingBackend(BackendTopic):
    """Trains the models of configurations, or has the user train them."""

    def trains(self, config: QuantConfig) -> bool:
        """Whether the model of a configuration is trained: with ``approach="qat"``, if quantized.

        Raises:
            ValueError:
                If it should be, but there is no ``train``.
        """
        if self._parts.approach != "qat" or not config.quantized_ops:
            return False
        self._parts.trainer.required()
        return True

    def trained(self, config: QuantConfig, trial: TrainingTrial) -> SimulatedModel:
        """Train the model of a configuration.

        Args:
            config:
                The configuration.
            trial:
                The trial for which it is trained.

        Returns:
            A simulation of the model.

        Raises:
            optuna.exceptions.TrialPruned:
                If a pruner ended the training.
            ValueError:
                As :meth:`prepare`.
        """
        plan = self._parts.models.plan(config)
        return self._parts.models.simulated(self._parts.trainer.trained(plan, config, trial))

    def quantize_trained(
        self, config: QuantConfig, hyperparameters: Mapping[str, Hyperparameter]
    ) -> TorchModel:
        """The model of a configuration with the weights of a training of before.

        If they are not kept, the model is trained again.

        Args:
            config:
                The configuration.
            hyperparameters:
                The values of what ``train`` suggests, by name.

        Raises:
            ValueError:
                If ``train`` suggests something else, or as :meth:`prepare`.
        """
        return self._parts.models.deployed(config, self._again(config, hyperparameters))

    def _again(
        self, config: QuantConfig, hyperparameters: Mapping[str, Hyperparameter]
    ) -> TrainedProgram:
        plan = self._parts.models.plan(config)
        return self._parts.trainer.again(plan, config, hyperparameters)

    def prepare(self, config: QuantConfig, *, learn_ranges: bool | None = None) -> PreparedModule:
        """The module of a configuration, to be trained.

        It computes as the quantized model will, takes and returns what your module does, and has
        copies of its parameters under the same names. Give it to :meth:`finished` after training.

        Args:
            config:
                The configuration.
            learn_ranges:
                Whether the ranges of activations in static mode are trained as well. Default:
                what ``train`` says, else not.

        Raises:
            ValueError:
                If it names an op or an option that does not exist, or an algorithm that does more
                than round a weight.
        """
        plan = self._parts.models.plan(config)
        return self._parts.trainer.prepare(plan, config, learn_ranges=learn_ranges)

    def finished(self, config: QuantConfig, module: torch.nn.Module) -> TorchModel:
        """The model of a configuration with the weights of a module that was trained.

        Args:
            config:
                The configuration.
            module:
                What :meth:`prepare` gave for it, or a copy. It may be trained further.

        Raises:
            TypeError:
                If the module is another one.
            ValueError:
                If it was prepared for another configuration, or a weight is not finite.
        """
        if not isinstance(module, PreparedModule):
            raise TypeError(
                "finished takes the module that prepare gave, trained, but got "
                f"{type(module).__name__}."
            )
        if module.how.config != config:
            raise ValueError(
                "The module was prepared for another configuration: give the one that prepare got."
            )
        return self._parts.models.deployed(config, trained_program(module))

    def share_parts(self, kept: KeepsParts | None) -> None:
        """From now on keep what is trained there as well, and look for it there.

        Args:
            kept:
                Where; None for this process alone.
        """
        self._parts.trainer.kept.shared = kept
