"""The ONNX Runtime backend: one model, quantized as each configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from optuna_quant.backends.calibration.cache import CalibrationCache
from optuna_quant.backends.calibration.data import DEFAULT_BATCH_SIZE
from optuna_quant.backends.calibration.samples import SampleReader
from optuna_quant.backends.calibration.samples import Samples
from optuna_quant.backends.calibration.samples import checked_sizes
from optuna_quant.backends.onnxruntime.calibrating import CalibratingBackend
from optuna_quant.backends.onnxruntime.costing import CostingBackend
from optuna_quant.backends.onnxruntime.describing import DescribingBackend
from optuna_quant.backends.onnxruntime.executed.candidate import executed_in_candidate
from optuna_quant.backends.onnxruntime.executed.candidate import simulated_ops
from optuna_quant.backends.onnxruntime.executed.candidate import with_reasons
from optuna_quant.backends.onnxruntime.lower_precision.simulated import with_rounding
from optuna_quant.backends.onnxruntime.model.exported import ExportedModel
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.model.input_specs import optional_input_specs
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.offered_ops import check_approach
from optuna_quant.backends.onnxruntime.offered_ops import check_has_data
from optuna_quant.backends.onnxruntime.parts import BackendParts
from optuna_quant.backends.onnxruntime.recipes.ends.space import without_idle_choices
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.backends.onnxruntime.scoring import ScoringBackend
from optuna_quant.backends.onnxruntime.signature import signature
from optuna_quant.backends.onnxruntime.targets.given import as_target
from optuna_quant.backends.onnxruntime.targets.target import checked_reduce_range
from optuna_quant.backends.onnxruntime.targets.target import find_target
from optuna_quant.backends.onnxruntime.torch_export.export import ModuleToExport
from optuna_quant.space.given_config import check_is_config
from optuna_quant.space.space import TuningSpace


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.executed.executed import ExecutedOp
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import Providers
    from optuna_quant.backends.onnxruntime.recipes.request import RecipesLike
    from optuna_quant.backends.onnxruntime.targets.given import TargetLike
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.wishes import OpDict


class OnnxRuntimeBackend(DescribingBackend, CalibratingBackend, ScoringBackend, CostingBackend):
    """Quantizes an ONNX model for ONNX Runtime.

    The model is read and checked once, calibrated once, and every candidate is built from
    the result. The user's model is never changed. All methods may be called from several threads.

    Args:
        model:
            A path, the bytes of a model file, or a :class:`onnx.ModelProto`; opset 10 or newer.
            Data in other files may be larger than 2 GB; then they are referred to, not loaded.
            Or a model that was exported from another framework, see
            :class:`~optuna_quant.backends.onnxruntime.model.exported.ExportedModel`.
        calibration_data:
            Needed unless ``approach`` is ``"dynamic"`` or ``"weight_only"``: a dict of
            arrays, an array, a list of batches, a function that returns an iterator over batches,
            or a path to an ``.npz`` file; see
            :class:`~optuna_quant.backends.calibration.data.CalibrationData`.
        calibration_sizes:
            The calibration sampling sizes to choose from, default first: how many samples from the
            start of the data are used. None to use all.
        calibration_batch_size:
            How many samples go through the model at once, where the whole set is given.
        latency_batch_size:
            How many samples are in a run whose time is measured: by :meth:`costs`, and for what an
            answer gains. Give the batch that the model will be used with.
        approach:
            ``"static"`` (activation ranges from calibration, Q/DQ), ``"dynamic"`` (found at run
            time), ``"weight_only"`` (weights of few bits in groups, activations in floats), or
            ``"auto"`` (static options first, then dynamic ones for ops that have them;
            weight-only ones only where ``op_type_dict`` or ``op_name_dict`` names that mode, or
            weights of 4 bits).
            By default ``"static"``, and ``"auto"`` for a model of which 5% or more are the
            weights of ops that only dynamic quantization takes (LSTM).
        providers:
            The execution providers of all sessions; ``["CPUExecutionProvider"]`` by default, which
            is what the capability describes.
        session_options:
            The options of all sessions. They are changed temporarily and restored, except for the
            folder of the model's external data, if it has any.
        cache_dir:
            A directory for calibration statistics, and for weights that take long to quantize, so
            that other processes and later runs with the same model and data reuse them. None to
            keep them in memory only.
        reduce_range:
            Whether weights use 7 bits only. For x86 processors without VNNI instructions, where
            sums of two 8-bit products saturate; the session option ``session.x64quantprecision``
            is the alternative, slower and more accurate. Default: as the target asks for, which on
            ``"cpu"`` is False.
        target:
            What the model is quantized for: the name of one of
            :data:`~optuna_quant.backends.onnxruntime.TARGETS`, a
            :class:`~optuna_quant.backends.onnxruntime.TargetProfile`, or the path of a JSON or
            TOML file with one. Where ``providers`` is not given and the installed ONNX Runtime
            has the target's provider, models run with it; otherwise they are simulated in floats
            on the CPU, and :attr:`simulated_target` says so. Default: ``"cpu"``.
        float16_storage:
            Whether candidates store the weights that stay in floats as float16, with a Cast
            that the runtime computes when it loads them: half their size, as fast, and rounded
            to 11 significant bits. Weights with values beyond 65504, and those of fewer than 256
            values, stay as they are.
        inputs:
            Inputs that are the same for all samples, by name, see
            :class:`~optuna_quant.data.constant_inputs.ConstantInputs`.
        transform:
            Function from one raw sample of the calibration data to the input as the model takes
            it.
        recipes:
            Methods for the whole model to choose from, such as equalization: ``"auto"``,
            ``"all"``, names, or a dict of what each may be; see
            :func:`~optuna_quant.backends.onnxruntime.recipes.request.requested_recipes`. None for
            none.
        inspect_only:
            Whether only the capability and the tuning space are asked for. Then no calibration
            data are needed, and the model is not run.

    Raises:
        FileNotFoundError:
            If the model file, or one with its data, does not exist.
        TypeError:
            If ``model`` or ``calibration_data`` is none of these.
        ValueError:
            If the model does not load, the calibration data are missing or do not fit it, or an
            argument is not one of those described.

    Example:
        >>> backend = OnnxRuntimeBackend("model.onnx", calibration_data=x)  # doctest: +SKIP
        >>> space = backend.tuning_space()  # doctest: +SKIP
        >>> model = backend.quantize(space.default())  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | onnx.ModelProto | ExportedModel | ModuleToExport,
        *,
        calibration_data: object = None,
        calibration_sizes: Sequence[int] | None = None,
        calibration_batch_size: int = DEFAULT_BATCH_SIZE,
        latency_batch_size: int = 1,
        approach: str | None = None,
        providers: Providers | None = None,
        session_options: onnxruntime.SessionOptions | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        reduce_range: bool | None = None,
        target: TargetLike | None = None,
        float16_storage: bool = False,
        inputs: InputValues | None = None,
        transform: Transform | None = None,
        recipes: RecipesLike | None = None,
        inspect_only: bool = False,
    ) -> None:
        profile = as_target(target)
        check_approach(approach, profile)
        narrow = checked_reduce_range(reduce_range, profile)
        requested = requested_recipes(recipes)
        sizes = checked_sizes(calibration_sizes)
        found, providers = find_target(profile, providers)
        needed_for = approach or (None if profile.forms else "dynamic")
        if isinstance(model, ModuleToExport):
            if not inspect_only:
                check_has_data(needed_for, calibration_data)
            expected = model.expected_inputs()
            if expected is not None:
                reader = SampleReader(lambda: expected, inputs=inputs, transform=transform)
                Samples(reader, calibration_data, batch_size=calibration_batch_size, sizes=sizes)
            model = model.export()
        sessions = SessionMaker(
            providers,
            session_options,
            entries=found.session_entries,
            as_run=with_rounding if found.is_simulated else None,
            present=model.present if isinstance(model, ExportedModel) else None,
        )
        opened = OpenedModel(
            load_model(model.proto if isinstance(model, ExportedModel) else model)
        )
        self._files = _files(model=model, calibration_data=calibration_data)
        samples = Samples(
            SampleReader(
                lambda: input_specs(opened.proto),
                optional=lambda: optional_input_specs(opened.proto),
                inputs=inputs,
                transform=transform,
            ),
            calibration_data,
            batch_size=calibration_batch_size,
            sizes=sizes,
            latency_batch_size=latency_batch_size,
        )
        if not inspect_only:
            check_has_data(needed_for, calibration_data)
        parts = BackendParts(
            opened,
            samples,
            sessions,
            approach=approach,
            reduce_range=narrow,
            cache=None if cache_dir is None else CalibrationCache(cache_dir),
            target=found,
            float16_storage=float16_storage,
            recipes=requested,
        )
        super().__init__(parts, RLock())
        found.tell()

    @property
    def inputs(self) -> InputValues:
        """The inputs that are the same for all samples."""
        return self._parts.samples.reader.inputs

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that the backend reads, which nothing may overwrite, by what they are."""
        return self._files

    @property
    def target(self) -> TargetProfile:
        """What the model is quantized for."""
        return self._parts.target.profile

    @property
    def simulated_target(self) -> str | None:
        """The name of the target if models are only simulated here; None if they run on it."""
        target = self._parts.target
        return target.profile.name if target.is_simulated else None

    # What can be done with each op.

    def tuning_space(
        self,
        *,
        op_types: Sequence[str] | str = "default",
        op_type_dict: OpDict | None = None,
        op_name_dict: OpDict | None = None,
        prefix: str = "quant",
    ) -> TuningSpace:
        """The tuning space of the model.

        For the arguments and errors see :meth:`Backend.tuning_space
        <optuna_quant.backends.base.Backend.tuning_space>`.
        """
        space = TuningSpace.from_capability(
            self.capability(),
            op_types=op_types,
            op_type_dict=op_type_dict,
            op_name_dict=op_name_dict,
            prefix=prefix,
        )
        with self._lock:
            tell = self._parts.recipes.tell_left_out
            space = without_idle_choices(space, self._parts.model.graph, tell)
            self._parts.variants.expect(space)
        return space

    # Models of configurations.

    def quantize(self, config: QuantConfig) -> QuantizedModel:
        """Build the model that a configuration describes.

        Ops that the configuration does not name run in FP32, and so do, with a warning, those in
        static mode around a tensor to which calibration gives no range: one that holds NaN or
        infinities there (a mask of -inf, for instance) or nothing but zero, or that is empty. If
        all do, this is the user's model as it is.

        Raises:
            ValueError:
                If it names an op that the model does not have, an option that the op does not
                have, or a recipe or a value of a recipe that does not exist.
        """
        check_is_config(config)
        with self._lock:
            return self._parts.candidates.quantize(config)

    def session(self, config: QuantConfig) -> onnxruntime.InferenceSession:
        """A session of the model that a configuration describes."""
        return self.quantize(config).session

    def fingerprint(self, config: QuantConfig) -> str:
        """A content hash of the model that a configuration describes.

        It covers what the model computes and how, not names inside it; it is the same in every
        process. Two configurations with the same fingerprint build the same model.
        """
        with self._lock:
            return self._parts.candidates.fingerprint(config)

    def executed(self, config: QuantConfig) -> Mapping[str, ExecutedOp]:
        """What the runtime really runs for each op of a configuration.

        Raises:
            ModelLoadError:
                If the runtime does not load the model.
        """
        model = self.quantize(config)
        with self._lock:
            candidates = self._parts.candidates
            variant, sessions = candidates.variant(config), candidates.sessions_of(config)
        if self.simulated_target is not None:
            return simulated_ops(config.ops, self.simulated_target)
        found = executed_in_candidate(model, config.ops.keys(), variant.graph, sessions)
        missing = self._parts.missing_ranges.found

        def why_left_out(op: str) -> str:
            return str(missing[op]) if op in missing else variant.builder.why_left_out(op)

        return with_reasons(found, config, why_left_out)

    def signature(self) -> dict[str, str]:
        """What every configuration of this backend depends on, part by part.

        Where two backends have the same signature, one configuration builds the same model, and
        it computes the same, up to rounding. This reads all calibration data that are used.

        Returns:
            ``"model"`` and ``"calibration data"`` as content hashes, ``"options"`` as text, and
            ``"arithmetic"``: ``"saturating"`` where sums of 8-bit products saturate (on x86
            processors without VNNI instructions, unless ``reduce_range`` or the session options
            prevent it), ``"exact"`` elsewhere. With ``approach="auto"`` the versions of the
            ``"algorithms"`` of weights alone; with ``"weight_only"`` they are among the options.
        """
        with self._lock:
            approach = self._parts.offered.approach
            model = self._parts.candidates.unchanged.fingerprint
            saturates = self._parts.saturation.saturates
            recipes_use_data = self._parts.recipes.use_data
        return signature(
            model=model,
            samples=self._parts.samples,
            approach=approach,
            reduce_range=self._parts.reduce_range,
            saturates=saturates,
            target=self._parts.target.description,
            float16_storage=self._parts.float16_storage,
            recipes_use_data=recipes_use_data,
        )


def _files(**given: object) -> Mapping[str, Path]:
    return {
        name.replace("_", " "): Path(value)
        for name, value in given.items()
        if isinstance(value, (str, os.PathLike))
    }
