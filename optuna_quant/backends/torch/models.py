"""From a configuration to its model: simulated in floats, or converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
from optuna_quant.backends.torch.candidates.switching import switch_of
from optuna_quant.backends.torch.converted.conversion import convert
from optuna_quant.backends.torch.converted.model import TorchModel
from optuna_quant.backends.torch.qat.finished import TrainedProgram


if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import RLock

    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
    from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
    from optuna_quant.backends.torch.converted.saturation import Arithmetic
    from optuna_quant.backends.torch.costs.size import ProgramSize
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch.planning import Planner
    from optuna_quant.backends.torch_program.export import ModuleProgram
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.space.config import QuantConfig


class CandidateModels:
    """Makes the models of configurations.

    Args:
        program:
            The program, whose ops are switched.
        exported:
            The same as it was exported.
        planner:
            Makes plans of configurations.
        weights:
            The quantized weights of the program.
        inputs:
            The inputs of the program.
        size:
            The bytes of its tensors.
        arithmetic:
            How integers are multiplied here.
        lock:
            Is held while the program is switched.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        exported: ModuleProgram,
        planner: Planner,
        weights: QuantizedWeights,
        *,
        inputs: Sequence[InputSpec],
        size: ProgramSize,
        arithmetic: Arithmetic,
        lock: RLock,
    ) -> None:
        self._program = program
        self._exported = exported
        self._planner = planner
        self._weights = weights
        self._inputs = inputs
        self._size = size
        self._arithmetic = arithmetic
        self._lock = lock

    def plan(self, config: QuantConfig) -> ModelPlan:
        """How each op of a configuration runs, see :meth:`Planner.plan`."""
        with self._lock:
            return self._planner.plan(config)

    def untrained(self, config: QuantConfig) -> TrainedProgram:
        """The program of a configuration with the parameters that the user gave."""
        return TrainedProgram(self._program, self.plan(config), self._weights)

    def simulated(self, trained: TrainedProgram) -> SimulatedModel:
        """The simulation of a program in floats."""
        with self._lock:
            switch = switch_of(trained.plan, trained.program, trained.weights)
            graph = trained.program.switched(switch)
        return SimulatedModel(
            trained.program,
            trained.plan,
            graph,
            inputs=self._inputs,
            nbytes=self._size.of_plan(trained.plan),
        )

    def deployed(
        self,
        config: QuantConfig,
        trained: TrainedProgram,
        *,
        lower: bool = True,
        compile: bool = False,
    ) -> TorchModel:
        """The model of a configuration; it is converted when it is first used.

        Args:
            config:
                The configuration.
            trained:
                Its program.
            lower:
                Whether to put in this machine's integer kernels.
            compile:
                Whether to compile it at its first run.
        """
        self._arithmetic.tell(trained.plan)

        def program() -> ConvertedProgram:
            with self._lock:
                return convert(trained.program, self._exported, trained.plan, config.to_json())

        return TorchModel(self.simulated(trained), program, lower=lower, compile=compile)
