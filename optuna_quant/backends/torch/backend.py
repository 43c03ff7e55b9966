"""The PyTorch backend: one exported program, switched as each configuration says."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from optuna.logging import get_logger
import torch

from optuna_quant.backends.base import OpRuns
from optuna_quant.backends.calibration.data import DEFAULT_BATCH_SIZE
from optuna_quant.backends.calibration.samples import SampleReader
from optuna_quant.backends.calibration.samples import Samples
from optuna_quant.backends.calibration.samples import checked_sizes
from optuna_quant.backends.torch.calibrating import CalibratingBackend
from optuna_quant.backends.torch.calibration import ProgramCalibration
from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
from optuna_quant.backends.torch.converted.kernels import executed_kernels
from optuna_quant.backends.torch.converted.model import TorchModel
from optuna_quant.backends.torch.converted.saturation import Arithmetic
from optuna_quant.backends.torch.costing import CostingBackend
from optuna_quant.backends.torch.costs.size import ProgramSize
from optuna_quant.backends.torch.describing import DescribingBackend
from optuna_quant.backends.torch.graph.switched import SwitchedProgram
from optuna_quant.backends.torch.models import CandidateModels
from optuna_quant.backends.torch.options import checked_approach
from optuna_quant.backends.torch.planning import Planner
from optuna_quant.backends.torch.program.content import program_digest
from optuna_quant.backends.torch.program.devices import on_device
from optuna_quant.backends.torch.program.inputs import input_specs
from optuna_quant.backends.torch.qat.finished import TrainedProgram
from optuna_quant.backends.torch.qat.state import ModuleState
from optuna_quant.backends.torch.qat.trainer import Trainer
from optuna_quant.backends.torch.qat.training import Training
from optuna_quant.backends.torch.qat.training import checked_training
from optuna_quant.backends.torch.scoring import ScoringBackend
from optuna_quant.backends.torch.signature import signature
from optuna_quant.backends.torch.topic import BackendParts
from optuna_quant.backends.torch.training_models import TrainingBackend
from optuna_quant.backends.torch_program.export import export_program
from optuna_quant.space.given_config import check_is_config
from optuna_quant.space.space import TuningSpace


if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.wishes import OpDict


_logger = get_logger(__name__)

_MOST_EXECUTED = 100
"""Configurations of which it is kept what runs."""


class TorchBackend(
    TrainingBackend, CalibratingBackend, ScoringBackend, CostingBackend, DescribingBackend
):
    """Quantizes a PyTorch module for PyTorch.

    The module is exported once. Its ops are switched in place for each configuration, so that a
    trial takes neither an export nor a calibration; one pass over the calibration data serves all
    range algorithms. The user's module is never changed. All methods may be called from several
    threads.

    Args:
        module:
            The module, with weights of 32 bits; or an exported program of it. It is exported in
            evaluation mode.
        example_inputs:
            What its ``forward`` takes: a tensor, a tuple of arguments, or a dict of arguments by
            name. An exported program needs none.
        calibration_data:
            Needed unless ``approach`` is ``"dynamic"`` or ``"weight_only"``; see
            :class:`~optuna_quant.backends.calibration.data.CalibrationData`. Inputs are named as
            the arguments of ``forward``.
        calibration_sizes:
            The calibration sampling sizes to choose from, default first. None to use all samples.
        calibration_batch_size:
            How many samples go through the model at once, where the whole set is given.
        latency_batch_size:
            How many samples are in a run whose time is measured: by :meth:`costs`, and for what an
            answer gains. Give the batch that the model will be used with.
        approach:
            ``"static"`` (activation ranges from calibration), ``"dynamic"`` (found at run time,
            for Linear layers), ``"weight_only"`` (weights of few bits in groups), ``"auto"``
            (static options first, then dynamic ones; weights alone where the user names that
            mode, or their bits), or ``"qat"`` (as ``"auto"``, and each model is trained, see
            ``train``). Default: ``"static"``, and ``"dynamic"`` without calibration data.
        dynamic_shapes:
            Which axes may have any size, as for :func:`torch.export.export`. Default: the first
            axis of each tensor, and the second one of texts; where the module allows it.
        device:
            Where simulations are computed, such as ``"cuda"``. Converted programs, by which the
            criterion is judged in the end, are made for the CPU and run there. Default: where the
            module is.
        reduce_range:
            Whether 8-bit weights that meet 8-bit activations use 7 bits. Sums of their products
            then cannot saturate on x86 processors without VNNI instructions, where the backend
            says that they do; on others it costs accuracy and gains nothing.
        inputs:
            Inputs that are the same for all samples, by name.
        transform:
            Function from one raw sample of the calibration data to the input as the model takes
            it.
        train:
            For ``approach="qat"``: ``train(model)`` or ``train(model, run)``, which trains a
            module in place, see :class:`~optuna_quant.backends.torch.Training` and
            :class:`~optuna_quant.backends.torch.TrainingRun`; or a ``Training``. Without it,
            :meth:`prepare` and :meth:`finished` are for an objective of your own.

    Raises:
        ModuleExportError:
            If the module cannot be exported; it names the line and the reason.
        TypeError:
            If an argument is none of these.
        ValueError:
            If the calibration data are missing or do not fit the module, or an argument is not
            one of those described.

    Example:
        >>> backend = TorchBackend(net, x[:1], calibration_data=x)  # doctest: +SKIP
        >>> result = optuna_quant.tune(backend=backend, ...)  # doctest: +SKIP
    """

    def __init__(
        self,
        module: torch.nn.Module | ExportedProgram,
        example_inputs: object = None,
        *,
        calibration_data: object = None,
        calibration_sizes: Sequence[int] | None = None,
        calibration_batch_size: int = DEFAULT_BATCH_SIZE,
        latency_batch_size: int = 1,
        approach: str | None = None,
        dynamic_shapes: Mapping[str, object] | Sequence[object] | None = None,
        device: str | torch.device | None = None,
        reduce_range: bool = False,
        inputs: InputValues | None = None,
        transform: Transform | None = None,
        train: Training | Callable[..., object] | None = None,
    ) -> None:
        has_data = calibration_data is not None
        self._approach = checked_approach(approach, has_data=has_data)
        training = checked_training(train, self._approach)
        sizes = checked_sizes(calibration_sizes)
        self._exported = export_program(module, example_inputs, dynamic_shapes=dynamic_shapes)
        where = None if device is None else torch.device(device)
        if where is not None and where.type != "cpu":
            _logger.info(
                f"Simulations are computed on {where}; converted programs, and what evaluates "
                "them, on the CPU, for which they are made."
            )
        self._program = SwitchedProgram(on_device(self._exported, where), where)
        specs = input_specs(self._exported)
        self._reader = SampleReader(lambda: specs, inputs=inputs, transform=transform)
        self._samples = Samples(
            self._reader,
            calibration_data,
            batch_size=calibration_batch_size,
            sizes=sizes,
            latency_batch_size=latency_batch_size,
        )
        self._files = (
            {"calibration data": Path(calibration_data)}
            if isinstance(calibration_data, (str, os.PathLike))
            else {}
        )
        self._digest = program_digest(self._program.original)
        self._calibration = ProgramCalibration(self._program, self._samples, self._digest)
        self._weights = QuantizedWeights(
            self._program, self._calibration.moments, reduce_range=reduce_range
        )
        planner = Planner(
            {op.name: op for op in self._program.ops},
            self._digest,
            self._calibration,
            self._weights,
            has_data=has_data,
        )
        self._executed: dict[str, Mapping[str, OpRuns]] = {}
        self._reduce_range = reduce_range
        self._arithmetic = Arithmetic(self._approach, reduce_range=reduce_range)
        state = ModuleState.of(self._exported.program)
        size = ProgramSize(self._exported.program, self._program.ops)
        lock = RLock()
        models = CandidateModels(
            self._program,
            self._exported,
            planner,
            self._weights,
            inputs=specs,
            size=size,
            arithmetic=self._arithmetic,
            lock=lock,
        )
        parts = BackendParts(
            self._program,
            self._approach,
            specs,
            self._samples,
            self._calibration,
            self._weights,
            self._exported.module_paths(),
            models,
            Trainer(self._program, state, training, reduce_range=reduce_range),
            size.in_floats,
            planner.missing_ranges,
        )
        super().__init__(parts, lock)

    @property
    def inputs(self) -> InputValues:
        """The inputs that are the same for all samples."""
        return self._reader.inputs

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that the backend reads, which nothing may overwrite, by what they are."""
        return self._files

    @property
    def file_endings(self) -> tuple[str, ...]:
        """The usual endings of the files that models are saved to."""
        return (".pt2", ".pt")

    # What can be done with each op.

    def tuning_space(
        self,
        *,
        op_types: Sequence[str] | str = "default",
        op_type_dict: OpDict | None = None,
        op_name_dict: OpDict | None = None,
        prefix: str = "quant",
    ) -> TuningSpace:
        """The tuning space of the program.

        For the arguments and errors see :meth:`Backend.tuning_space
        <optuna_quant.backends.base.Backend.tuning_space>`.
        """
        return TuningSpace.from_capability(
            self.capability(),
            op_types=op_types,
            op_type_dict=op_type_dict,
            op_name_dict=op_name_dict,
            prefix=prefix,
        )

    # Models of configurations.

    def quantize(self, config: QuantConfig) -> TorchModel:
        """Build the model that a configuration describes; it is converted when it is first used.

        Ops that the configuration does not name run in FP32, and so do, with a warning, those in
        static mode at a tensor to which calibration gives no range. With ``approach="qat"`` it is
        trained, unless that was done before: see :meth:`quantize_trained`.

        Raises:
            ValueError:
                If it names an op that the program does not have, or an option that the op does
                not have, or a recipe.
        """
        check_is_config(config)
        return self._parts.models.deployed(config, self._program_of(config))

    def simulated(self, config: QuantConfig) -> SimulatedModel:
        """A simulation in floats of what :meth:`quantize` builds: the program with ops switched.

        Raises:
            ValueError:
                As :meth:`quantize`.
        """
        return self._parts.models.simulated(self._program_of(config))

    def _program_of(self, config: QuantConfig) -> TrainedProgram:
        if self.trains(config):
            return self._again(config, {})
        return self._parts.models.untrained(config)

    def untrained(self, config: QuantConfig) -> TorchModel:
        """What :meth:`quantize` gives without any training."""
        return self._parts.models.deployed(config, self._parts.models.untrained(config))

    def untrained_simulation(self, config: QuantConfig) -> SimulatedModel:
        """What :meth:`simulated` gives without any training."""
        return self._parts.models.simulated(self._parts.models.untrained(config))

    def converted(
        self, config: QuantConfig, *, lower: bool = True, compile: bool = False
    ) -> TorchModel:
        """What :meth:`quantize` gives, in the form that is asked for.

        Args:
            config:
                The configuration.
            lower:
                Whether to use this machine's integer kernels, which torchao brings. Otherwise it
                computes in floats what integers would give.
            compile:
                Whether to compile it at its first run, which takes a C++ compiler.

        Raises:
            ValueError:
                As :meth:`quantize`.
        """
        trained = self._program_of(config)
        return self._parts.models.deployed(config, trained, lower=lower, compile=compile)

    def fingerprint(self, config: QuantConfig) -> str:
        """A content hash of the model that a configuration describes."""
        return self._program_of(config).plan.fingerprint

    def executed(self, config: QuantConfig) -> Mapping[str, OpRuns]:
        """What PyTorch really runs for each op of a configuration; it is converted once for that.

        It is read from the lowered program, into which the same passes put kernels as into the
        compiled one. What the compiler fuses with a kernel is not told. Ops of which nothing is
        found have ``OpRuns()``.
        """
        fingerprint = self._parts.models.untrained(config).plan.fingerprint
        found = self._executed.get(fingerprint)
        if found is None:
            found = executed_kernels(self.untrained(config).program)
            with self._lock:
                while len(self._executed) >= _MOST_EXECUTED:
                    del self._executed[next(iter(self._executed))]
                self._executed[fingerprint] = found
        return {name: found.get(name, OpRuns()) for name in config.ops}

    def signature(self) -> dict[str, str]:
        """What every configuration of this backend depends on, part by part.

        Also what metrics depend on, ``"arithmetic"``: ``"saturating"`` where sums of 8-bit
        products saturate (on x86 without VNNI instructions), else ``"exact"``.
        """
        with self._lock:
            return signature(
                model=self._digest,
                samples=self._parts.samples,
                approach=self._parts.approach,
                training=self._parts.trainer.training,
                reduce_range=self._reduce_range,
                saturates=self._arithmetic.saturates,
            )
