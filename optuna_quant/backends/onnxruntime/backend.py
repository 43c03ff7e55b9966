"""The ONNX Runtime backend: one model, quantized in any number of ways."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from functools import partial
import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING
import warnings
import weakref

import onnx
import onnxruntime
from optuna.logging import get_logger

from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.onnxruntime.builder import Built
from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
from optuna_quant.backends.onnxruntime.calibration.calibration import CalibrationCache
from optuna_quant.backends.onnxruntime.calibration.data import DEFAULT_BATCH_SIZE
from optuna_quant.backends.onnxruntime.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime.calibration.data import input_specs
from optuna_quant.backends.onnxruntime.calibration.data import optional_input_specs
from optuna_quant.backends.onnxruntime.calibration.op_weights import find_weights
from optuna_quant.backends.onnxruntime.calibration.statistics import StatisticsSource
from optuna_quant.backends.onnxruntime.capability import APPROACHES
from optuna_quant.backends.onnxruntime.capability import find_capability
from optuna_quant.backends.onnxruntime.capability import usual_approach
from optuna_quant.backends.onnxruntime.executed.executed import executed_ops
from optuna_quant.backends.onnxruntime.executed.refusals import describe_refusal
from optuna_quant.backends.onnxruntime.hints import model_warnings
from optuna_quant.backends.onnxruntime.hints import quantized_nodes
from optuna_quant.backends.onnxruntime.left_out import find_left_out
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import compacted
from optuna_quant.backends.onnxruntime.model.dependence import outputs_behind
from optuna_quant.backends.onnxruntime.model.external_data import external_bytes
from optuna_quant.backends.onnxruntime.model.float_constants import total_float_bytes
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
from optuna_quant.backends.onnxruntime.model.quantized_model import load_errors
from optuna_quant.backends.onnxruntime.model.weights import BoundedCache
from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
from optuna_quant.backends.onnxruntime.sensitivity.mse import OutputSensitivity
from optuna_quant.backends.onnxruntime.static.saturation import products_saturate
from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.space.left_out import FloatWeights
from optuna_quant.space.left_out import left_out_frame
from optuna_quant.space.space import TuningSpace


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import pandas as pd
    import torch

    from optuna_quant.backends.onnxruntime.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.costs.measure import CostSource
    from optuna_quant.backends.onnxruntime.executed.executed import ExecutedOp
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import Providers
    from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.hessian import Loss
    from optuna_quant.backends.onnxruntime.static.static import FindParams
    from optuna_quant.backends.onnxruntime.torch_graph.graph import FloatType
    from optuna_quant.costs import Costs
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.narrowing import OpDict


_logger = get_logger(__name__)

_KEPT_MODELS_BYTES = 1 << 26
# Torch has its own copy of a model's weights.
_MOST_GRADIENT_BYTES = 1 << 30

_SATURATING = (
    "On this processor sums of 8-bit products saturate in ONNX Runtime (it has no VNNI "
    "instructions): quantized models are less accurate here than on others, and more ops may "
    "have to stay in FP32. If the model is to run on such processors, compare reduce_range=True "
    "and the session option session.x64quantprecision; if not, tune where it will run."
)


class OnnxRuntimeBackend:
    """Quantizes an ONNX model for ONNX Runtime.

    The model is read and checked once, calibrated once, and every candidate is built from what
    that gave. The user's model is never changed. All methods may be called from several threads.

    Args:
        model:
            A path, the bytes of a model file, or a :class:`onnx.ModelProto`; opset 10 or newer.
            Data in other files may be larger than 2 GB; then they are referred to, not loaded.
        calibration_data:
            Needed unless ``approach`` is ``"dynamic"``: a dict of arrays, an array, a list of
            batches, a function that returns an iterator over batches, or a path to an ``.npz``
            file; see
            :class:`~optuna_quant.backends.onnxruntime.calibration.data.CalibrationData`.
        calibration_sizes:
            The calibration sampling sizes to choose from, default first: how many samples from the
            start of the data are used. None to use all.
        calibration_batch_size:
            How many samples go through the model at once, where the whole set is given.
        approach:
            ``"static"`` (activation ranges from calibration, Q/DQ), ``"dynamic"`` (found at run
            time), or ``"auto"`` (static options first, then dynamic ones for ops that have them).
            By default ``"static"``, and ``"auto"`` for a model of which 5 % or more are the
            weights of ops that only dynamic quantization takes (LSTM).
        providers:
            The execution providers of all sessions; ``["CPUExecutionProvider"]`` by default, which
            is what the capability describes.
        session_options:
            The options of all sessions. They are changed for moments and restored; what they keep
            is the folder of the model's external data, if there are any.
        cache_dir:
            A directory that keeps calibration statistics, so that other processes and later runs
            with the same model and data reuse them. None to keep them in memory only.
        reduce_range:
            Whether weights use 7 bits only. For processors without VNNI instructions, where sums
            of two 8-bit products saturate; the session option ``session.x64quantprecision`` is
            the other way out, slower and more accurate.
        inputs:
            Inputs that are the same for all samples, by name, see
            :class:`~optuna_quant.data.constant_inputs.ConstantInputs`.
        transform:
            Function of what the calibration data hold of one sample that gives the input as the
            model takes it.
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
        model: str | os.PathLike[str] | bytes | onnx.ModelProto,
        *,
        calibration_data: object = None,
        calibration_sizes: Sequence[int] | None = None,
        calibration_batch_size: int = DEFAULT_BATCH_SIZE,
        approach: str | None = None,
        providers: Providers | None = None,
        session_options: onnxruntime.SessionOptions | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        reduce_range: bool = False,
        inputs: Mapping[str, Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
        inspect_only: bool = False,
    ) -> None:
        if approach is not None and approach not in APPROACHES:
            raise ValueError(
                f"approach must be one of {', '.join(APPROACHES)}, but got {approach!r}."
            )
        self._asked_approach = approach
        self._calibration_sizes = _checked_sizes(calibration_sizes)
        self._sessions = SessionMaker(_checked_providers(providers), session_options)
        self._reduce_range = reduce_range
        self._source = load_model(model)
        self._files = _files(model=model, calibration_data=calibration_data)
        self._data = None
        self._inputs = ConstantInputs(inputs)
        self._transform = transform
        self._constants = NO_INPUTS
        if self._inputs:
            proto = self._source.proto
            self._constants = self._inputs.bind(input_specs(proto), optional_input_specs(proto))
        if calibration_data is not None:
            self._data = self._read(calibration_data, batch_size=calibration_batch_size)
            # Reading the first batch tells at once whether there are any and whether they fit.
            next(iter(self._data))
        elif approach != "dynamic" and not inspect_only:
            raise ValueError(
                f"approach={approach or 'static'!r} needs calibration_data: samples such as the "
                "model sees at inference. Without any, approach='dynamic' is possible."
            )
        self._cache = None if cache_dir is None else CalibrationCache(cache_dir)
        self._lock = RLock()
        self._models = BoundedCache(_KEPT_MODELS_BYTES)
        self._fingerprints: dict[str, str] = {}
        self._sensitivities: dict[tuple[int, tuple[str, ...] | None], MSESensitivity] = {}
        self._expected_tensors: set[str] = set()
        self._has_said_saturating = False
        self._first_session: onnxruntime.InferenceSession | None = None
        self._fp32: weakref.ref[QuantizedModel] | None = None
        self._kept_fp32: QuantizedModel | None = None
        _let_go_before_forks(self)
        self._check_loads()

    def _check_loads(self) -> None:
        try:
            session = self._sessions.make(self._model, self._source.base_dir)
        except Exception as error:
            raise ValueError(describe_refusal(self._source, self._sessions, error)) from error
        self._first_session = session

    def _read(self, data: object, *, batch_size: int = DEFAULT_BATCH_SIZE) -> CalibrationData:
        return CalibrationData(
            data,
            input_specs(self._source.proto),
            batch_size=batch_size,
            constants=self._constants,
            transform=self._transform,
        )

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs that are the same for all samples."""
        return self._inputs.values

    @cached_property
    def _model(self) -> CompactModel:
        """The user's model."""
        return compacted(self._source.proto)

    @cached_property
    def _model_bytes(self) -> int:
        """Its size, external data included."""
        return self._model.nbytes + external_bytes(self._source.proto, self._source.base_dir)

    @cached_property
    def _graph(self) -> Graph:
        return normalize(self._source)

    @cached_property
    def _builder(self) -> CandidateBuilder:
        return CandidateBuilder(self._graph, reduce_range=self._reduce_range)

    @cached_property
    def _statistics(self) -> StatisticsSource:
        assert self._data is not None
        return StatisticsSource(self._graph, self._data, self._sessions, self._cache)

    @cached_property
    def _approach(self) -> str:
        if self._asked_approach is not None:
            return self._asked_approach
        found = usual_approach(self._graph, self._builder.static, self._model_bytes)
        if found != "static":
            _logger.info(
                "A considerable part of the weights is in ops that only dynamic quantization "
                f"takes, so the approach is {found!r}; approach='static' (--approach static) "
                "leaves them in FP32."
            )
        return found

    @cached_property
    def _capability(self) -> Capability:
        found = find_capability(
            self._graph, self._builder.static, self._approach, self._calibration_sizes
        )
        # Without any op to tune the error says what is wrong.
        if any(op.default for op in found.ops):
            for warning in model_warnings(self._graph):
                warnings.warn(warning, stacklevel=2)
        return found

    def capability(self) -> Capability:
        """What can be done with each op of the model.

        The product of two activations has the op type ``MatMulActivations``, to be told from a
        ``MatMul`` with a weight. Ops that only pass values on (Reshape, MaxPool, a Relu behind a
        Conv, ...) follow the op before them and are not listed.
        """
        with self._lock:
            return self._capability

    def tuning_space(
        self,
        *,
        op_types: Sequence[str] | str = "default",
        op_type_dict: OpDict | None = None,
        op_name_dict: OpDict | None = None,
        prefix: str = "quant",
    ) -> TuningSpace:
        """The tuning space of the model.

        Args:
            op_types:
                Which ops to tune: ``"default"`` (those whose quantization pays), ``"all"``, or the
                op types.
            op_type_dict:
                What to allow, by regular expressions of op types.
            op_name_dict:
                What to allow, by regular expressions of op names; goes over ``op_type_dict``.
            prefix:
                What the names of the study's parameters begin with.

        Raises:
            ValueError:
                If no op is left, an op type is unknown, or a dictionary has another shape.
        """
        space = TuningSpace.from_capability(
            self.capability(),
            op_types=op_types,
            op_type_dict=op_type_dict,
            op_name_dict=op_name_dict,
            prefix=prefix,
        )
        static = [
            op
            for tunable in space.tunables
            if any(option.mode == "static" for option in tunable.options)
            for op in tunable.ops
        ]
        with self._lock:
            self._expected_tensors |= self._builder.tensors(static)
        return space

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized: ``"FP32"`` unless it is quantized."""
        with self._lock:
            quantized = quantized_nodes(self._graph.nodes)
        return "the model as given" if quantized else "FP32"

    def left_out(self, space: TuningSpace | None = None) -> pd.DataFrame:
        """Which ops are not in the tuning space, and why.

        These are the ops of a type that could be quantized, in subgraphs too, and those of other
        types with large weights.

        Args:
            space:
                The tuning space; by default the one that :meth:`tuning_space` gives without
                arguments, or an empty one if there is none.

        Returns:
            A data frame in model order with the columns ``op``, ``op_type``, ``weight_bytes``
            (the size of its floating-point constants), ``reason`` and ``remedy`` (what to do so
            that it is not left out; empty if there is nothing).
        """
        if space is None:
            chosen = {op.name for op in self.capability().ops if op.default}
        else:
            chosen = {op for tunable in space.tunables for op in tunable.ops}
        return left_out_frame(self._left_out(frozenset(chosen)))

    def float_weights(self, config: QuantConfig) -> FloatWeights:
        """The weights that a configuration leaves in floats, and what would quantize them."""
        quantized = set(config.quantized_ops)
        with self._lock:
            nodes = [node for node in self._graph.nodes if node.name not in quantized]
            fallback = [node for node in nodes if node.name in config.ops]
            return FloatWeights(
                nbytes=total_float_bytes(nodes, self._graph),
                model_bytes=self._model_bytes,
                left_out=self._left_out(frozenset(config.ops)),
                in_fallback=total_float_bytes(fallback, self._graph),
            )

    def _left_out(self, chosen: frozenset[str]) -> tuple[LeftOut, ...]:
        with self._lock:
            offered = {op.name: op for op in self._capability.ops}
            static = self._builder.static
            return find_left_out(self._graph, static, self._approach, offered, chosen)

    def calibrate(self) -> None:
        """Collect the range statistics now, for all calibration sizes in one pass over the data.

        Otherwise the first static candidate does. They are those of the ops that are quantized by
        default and of the ops of every tuning space that this object has given. Without
        calibration data there is nothing to do.
        """
        if self._data is not None:
            with self._lock:
                self._let_go_of_fp32()
                self._statistics.collect(*self._expected)
                self._statistics.check_any(*self._expected)

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute.

        So it is once it has run, if ``cache_dir`` holds the statistics, and without any data.
        """
        if self._data is None:
            return True
        with self._lock:
            return self._statistics.load(*self._expected)

    def calibration_key(self) -> str:
        """A hash of all that :meth:`calibrate` depends on: the model, its tensors and the data.

        All calibration data that are used are read for it, once for each backend object.

        Raises:
            ValueError:
                If there are no calibration data.
        """
        self._check_has_data()
        with self._lock:
            return self._statistics.key(*self._expected)

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects, for :meth:`import_calibration`; calibrates if need be.

        Raises:
            ValueError:
                If there are no calibration data.
        """
        self._check_has_data()
        with self._lock:
            self.calibrate()
            return self._statistics.dump(*self._expected)

    def import_calibration(self, data: bytes) -> None:
        """Take the statistics that a backend with the same :meth:`calibration_key` has exported.

        Every model is then the same, to the last bit, as if this one had calibrated.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another model or other data, or there are no
                calibration data.
        """
        self._check_has_data()
        with self._lock:
            self._statistics.restore(data, *self._expected)

    def calibration_preview(self, samples: int) -> tuple[int, list[Feed]] | None:
        """The first batches of the calibration data, for a look at them.

        Args:
            samples:
                How many samples are enough.

        Returns:
            How many samples there are, or at least so many, and the batches with them. A smaller
            calibration sampling size counts for the number. :obj:`None` without data.
        """
        if self._data is None:
            return None
        feeds, count = [], 0
        for piece in self._data.pieces([samples]):
            feeds.append(piece.feed)
            count += piece.samples
        sizes = [size for size in self._sizes if size is not None]
        return min([count, *sizes]), feeds

    def _check_has_data(self) -> None:
        if self._data is None:
            raise ValueError("The backend has no calibration_data, so there are no statistics.")

    @property
    def _expected(self) -> tuple[set[str], list[int | None]]:
        """The tensors whose statistics candidates are likely to need, and the sampling sizes."""
        return {*self._default_tensors, *self._expected_tensors}, self._sizes

    @property
    def _sizes(self) -> list[int | None]:
        return list(self._calibration_sizes) or [None]

    @cached_property
    def _default_tensors(self) -> frozenset[str]:
        default = [
            op.name
            for op in self._capability.ops
            if op.default and any(option.mode == "static" for option in op.options)
        ]
        return frozenset(self._builder.tensors(default))

    def quantize(self, config: QuantConfig) -> QuantizedModel:
        """Build the model that a configuration describes.

        Ops that the configuration does not name run in FP32, and so do, with a warning, those in
        static mode around a tensor to which calibration gives no range: one that holds NaN or
        infinities there (a mask of -inf, for instance) or nothing but zero, or that is empty. If
        all do, this is the user's model as it is.

        Raises:
            ValueError:
                If it names an op that the model does not have, or that cannot run so.
        """
        with self._lock:
            built = self._built(config)
            if built.model is self._model:
                return self._fp32_model()
            self._let_go_of_fp32()
        return self._quantized_model(built)

    def _quantized_model(
        self, built: Built, session: onnxruntime.InferenceSession | None = None
    ) -> QuantizedModel:
        return QuantizedModel(
            built.model,
            self._sessions,
            base_dir=self._source.base_dir,
            fingerprint=built.fingerprint,
            session=session,
        )

    def _fp32_model(self) -> QuantizedModel:
        """The FP32 model: the same one, with its sessions, as long as somebody has it."""
        model = None if self._fp32 is None else self._fp32()
        if model is None:
            model = self._quantized_model(self._unchanged, self._first_session)
            self._fp32 = weakref.ref(model)
            if self._first_session is not None:
                # Until there is a candidate: what comes first asks for it several times.
                self._kept_fp32, self._first_session = model, None
        return model

    def _let_go_of_fp32(self) -> None:
        """Free the memory of the FP32 model's sessions, unless others have them."""
        self._kept_fp32 = self._first_session = None

    def _built(self, config: QuantConfig) -> Built:
        if config.key not in self._models:
            self._builder.check(config)
            if config.quantized_ops:
                self._say_if_saturating(config)
                built = self._builder.build(config, self._params_for(config)) or self._unchanged
            else:
                built = self._unchanged
            # Only the last few: the model is asked for soon after its fingerprint.
            self._models[config.key] = built
            self._fingerprints[config.key] = built.fingerprint
        found: Built = self._models[config.key]
        return found

    @cached_property
    def _saturates(self) -> bool:
        """Whether sums of 8-bit products saturate; with weights of 7 bits they cannot."""
        return not self._reduce_range and products_saturate(self._sessions)

    def _say_if_saturating(self, config: QuantConfig) -> None:
        if self._has_said_saturating:
            return
        weights = (op.weight for op in config.ops.values() if op.is_quantized)
        if any(weight is not None and weight.dtype == "int8" for weight in weights):
            self._has_said_saturating = True
            if self._saturates:
                _logger.info(_SATURATING)

    @cached_property
    def _unchanged(self) -> Built:
        source = self._source
        return Built(self._model, self._builder.fingerprint_of(source.proto, source.base_dir))

    def _params_for(self, config: QuantConfig) -> FindParams:
        """How to find the parameters for a configuration; calibrates if need be."""
        size = config.calibration_size
        tensors = self._builder.tensors_of(config)
        if tensors:
            if self._data is None:
                raise ValueError(
                    "An op in static mode needs calibration_data, but the backend has none."
                )
            if not self._statistics.has(tensors, size):
                # In one pass with what other candidates are likely to need.
                expected, sizes = self._expected
                self._statistics.collect(tensors | expected, dict.fromkeys([size, *sizes]))
            self._statistics.check_any(tensors | self._expected[0], [size])
        return lambda tensor, tensor_config: self._statistics.params(tensor, tensor_config, size)

    def session(self, config: QuantConfig) -> onnxruntime.InferenceSession:
        """A session of the model that a configuration describes."""
        return self.quantize(config).session

    def fingerprint(self, config: QuantConfig) -> str:
        """A content hash of the model that a configuration describes.

        It covers what the model computes and how, not names inside it; it is the same in every
        process. Two configurations with the same fingerprint build the same model.
        """
        with self._lock:
            known = self._fingerprints.get(config.key)
            return self._built(config).fingerprint if known is None else known

    def signature(self) -> dict[str, str]:
        """What every configuration of this backend depends on, part by part.

        Where two backends have the same signature, one configuration builds the same model, and
        it computes the same, but for rounding. All calibration data that are used are read for it.

        Returns:
            ``"model"`` and ``"calibration data"`` as content hashes, ``"options"`` as text, and
            ``"arithmetic"``: ``"saturating"`` where sums of 8-bit products saturate (on x86
            processors without VNNI instructions, unless ``reduce_range`` or the session options
            prevent it), ``"exact"`` elsewhere.
        """
        with self._lock:
            approach = self._approach
        options: dict[str, object] = {
            "approach": approach,
            "reduce_range": self._reduce_range,
        }
        data = "none"
        if self._data is not None and approach != "dynamic":
            options["calibration_sizes"] = list(self._calibration_sizes) or None
            data = self._data_fingerprint
        with self._lock:
            model = self._unchanged.fingerprint
            arithmetic = "saturating" if self._saturates else "exact"
        shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return {
            "model": model,
            "calibration data": data,
            "options": shown,
            "arithmetic": arithmetic,
        }

    @cached_property
    def _data_fingerprint(self) -> str:
        """A content hash of the calibration data that are used; they are read once for it."""
        assert self._data is not None
        if not self._calibration_sizes:
            return self._data.fingerprint()
        used = max(self._calibration_sizes)
        return self._data.fingerprints([used])[used]

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that the backend reads, which nothing may overwrite, by what they are."""
        return self._files

    def outputs_behind(self, ops: Sequence[str]) -> tuple[str, ...]:
        """The model's outputs whose values can change when these ops are quantized."""
        with self._lock:
            return outputs_behind(self._graph, ops)

    def executed(self, config: QuantConfig) -> Mapping[str, ExecutedOp]:
        """What the runtime really runs for each op of a configuration.

        Raises:
            ModelLoadError:
                If the runtime does not load the model.
        """
        model = self.quantize(config)
        outputs = {node.name: node.output[0] for node in self._graph.nodes if node.output}
        with self._sessions.lock, load_errors():
            return executed_ops(
                model.proto,
                list(config.ops),
                {op: outputs[op] for op in config.ops},
                providers=self._sessions.providers,
                session_options=self._sessions.options,
                external_data_dir=self._source.base_dir,
            )

    def mse_sensitivity(self, *, samples: int = 256, data: object = None) -> MSESensitivity:
        """A sensitivity by the error that quantization brings to each op's own output.

        What :class:`~optuna_quant.samplers.MSEQuantSampler` ranks ops by; see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`.

        Args:
            samples:
                How many samples are used, from the start of the data.
            data:
                The samples, in any form of ``calibration_data``, which they are by default.

        Raises:
            ValueError:
                If there are no data, or an argument is not one of those described.
        """
        with self._lock:
            graph, static = self._graph, self._builder.static
        return MSESensitivity(
            self.quantize, graph, static, self._samples(data), self._sessions, samples=samples
        )

    def output_sensitivity(
        self,
        *,
        batches: int = 2,
        batch_size: int = DEFAULT_BATCH_SIZE,
        data: object = None,
        outputs: Sequence[str] | None = None,
    ) -> OutputSensitivity:
        """A sensitivity by how far the quantization of each op moves the model's outputs.

        What :class:`~optuna_quant.samplers.MSEV2QuantSampler` ranks ops by; see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.OutputSensitivity`.

        Args:
            batches:
                How many batches are used, from the start of the data.
            batch_size:
                The most samples in a batch.
            data:
                The samples, in any form of ``calibration_data``, which they are by default.
            outputs:
                The names of the outputs that are looked at; None for all.

        Raises:
            ValueError:
                If there are no data, or an argument is not one of those described.
        """
        return OutputSensitivity(
            self.quantize,
            self._samples(data),
            batches=batches,
            batch_size=batch_size,
            outputs=outputs,
        )

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        """How the sensitivities that strategies ask for are made.

        See :class:`~optuna_quant.backends.base.OffersSensitivities`.
        """
        return {
            SensitivityKind.BEST: SensitivityFactory(self.sensitivity),
            SensitivityKind.OP_ERROR: SensitivityFactory(
                lambda *, outputs: self.mse_sensitivity()  # Each op has its own.
            ),
            SensitivityKind.OUTPUT_ERROR: SensitivityFactory(self.output_sensitivity),
            SensitivityKind.CURVATURE: SensitivityFactory(
                self.hessian_sensitivity, ("loss", "labels", "probes", "module", "parameters")
            ),
        }

    def sensitivity(
        self, *, samples: int = 32, outputs: Sequence[str] | None = None
    ) -> MSESensitivity | None:
        """The sensitivity of ops in their options that is the best to be had here.

        What the default strategy begins with: :meth:`gradient_sensitivity` where torch is
        installed and knows all operators of the model, otherwise :meth:`mse_sensitivity`, which
        does not know what the outputs make of an error.

        Args:
            samples:
                The most samples that are used, from the start of the data.
            outputs:
                The names of the outputs that are looked at; None for all.

        Returns:
            The sensitivity; :obj:`None` if there are no calibration data to run the model on.
        """
        if self._data is None:
            _logger.info(
                "Ops are not scored, because there are no calibration data to run the model on: "
                "a search takes them all to be equal to begin with."
            )
            return None
        key = samples, None if outputs is None else tuple(outputs)
        with self._lock:
            if key not in self._sensitivities:
                self._sensitivities[key] = self._best_sensitivity(samples, outputs)
            return self._sensitivities[key]

    def _best_sensitivity(self, samples: int, outputs: Sequence[str] | None) -> MSESensitivity:
        try:
            if self._model_bytes <= _MOST_GRADIENT_BYTES:
                return self.gradient_sensitivity(samples=samples, probes=2, outputs=outputs)
            why = f"the model is larger than {_MOST_GRADIENT_BYTES >> 30} GiB"
        except ImportError:
            why = 'torch is not installed (pip install "optuna_quant[torch]")'
        except ValueError as error:
            why = str(error).split(". Pass", maxsplit=1)[0]
        _logger.info(
            "Ops are scored by the error of their own outputs, not by what the model's outputs "
            f"make of it: {why}."
        )
        return self.mse_sensitivity(samples=samples)

    def gradient_sensitivity(
        self,
        *,
        samples: int = 64,
        probes: int = 4,
        seed: int = 0,
        data: object = None,
        outputs: Sequence[str] | None = None,
    ) -> GradientSensitivity:
        """A sensitivity by how far the error of each op moves the model's outputs; needs torch.

        What the default strategy begins with; for the arguments and errors see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.gradient.GradientSensitivity`.

        Args:
            samples:
                How many samples are used, from the start of the data.
            probes:
                How many random projections of the outputs are used for each batch.
            seed:
                Of the projections.
            data:
                The samples, in any form of ``calibration_data``, which they are by default.
            outputs:
                The names of the outputs that are looked at; None for all.
        """
        from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity

        with self._lock:
            graph, static = self._graph, self._builder.static
        return GradientSensitivity(
            self.quantize,
            graph,
            static,
            self._samples(data),
            self._sessions,
            samples=samples,
            probes=probes,
            seed=seed,
            outputs=outputs,
        )

    def hessian_sensitivity(
        self,
        *,
        loss: Loss | None = None,
        labels: object = None,
        data: object = None,
        probes: int = 32,
        tolerance: float = 0.2,
        seed: int = 0,
        max_samples: int = 64,
        batch_size: int = 16,
        dtype: FloatType = "float32",
        module: torch.nn.Module | None = None,
        parameters: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> HessianSensitivity:
        """A sensitivity by the curvature of a loss in the ops' weights; needs torch.

        What :class:`~optuna_quant.samplers.HAWQV2QuantSampler` ranks ops by; for the arguments and
        errors see
        :class:`~optuna_quant.backends.onnxruntime.sensitivity.hessian.HessianSensitivity`.

        Args:
            loss:
                ``loss(outputs, batch)``; None for how far the outputs move, which needs no labels.
            labels:
                The labels of the samples, in their order.
            data:
                The samples; the calibration data by default.
            probes:
                The most random probes.
            tolerance:
                The relative standard error of a trace that is small enough to stop.
            seed:
                Of the probes.
            max_samples:
                How many samples are used, from the start of the data.
            batch_size:
                The most samples at a time.
            dtype:
                What floats are computed in.
            module:
                The module that the model was exported from, to be differentiated in its place.
            parameters:
                With ``module``: its parameter that is the weight of each op.
            outputs:
                The names of the outputs whose move counts where there is no ``loss``; None for
                all.
        """
        from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
        from optuna_quant.backends.onnxruntime.sensitivity.hessian import output_change

        if loss is None and outputs is not None:
            loss = partial(output_change, names=outputs)
        with self._lock:
            graph = self._graph
        return HessianSensitivity(
            graph.to_model(),
            loss,
            self._samples(None) if data is None else data,
            weights=find_weights(graph),
            labels=labels,
            probes=probes,
            tolerance=tolerance,
            seed=seed,
            max_samples=max_samples,
            batch_size=batch_size,
            dtype=dtype,
            base_dir=graph.base_dir,
            module=module,
            parameters=parameters,
            constants=self._constants,
        )

    def costs(
        self,
        space: TuningSpace,
        *,
        seed: int = 0,
        seconds: float = 3.0,
        checks: int = 6,
        data: object = None,
    ) -> Costs:
        """What the configurations of a tuning space cost on this machine.

        The latency is measured: the runtime's own profiles of a few models (the original one, one
        in which everything is quantized for each way that differs in cost, and mixtures) say how
        long each op and what is between ops takes, and random models that are measured as wholes
        say how well that predicts. Calibrates if need be. Threads, providers and options are those
        of all sessions.

        Args:
            space:
                The tuning space.
            seed:
                Of the configurations that are measured.
            seconds:
                How long models may run, in all; building and loading them comes on top.
            checks:
                How many models the predictions are compared with; 0 for none.
            data:
                What the models are run on: the first sample of it, or the first batch where
                samples cannot be taken apart, in any form of ``calibration_data``, which it is by
                default.

        Returns:
            The tables ``"latency"`` (seconds of one run), ``"size"`` (bytes), ``"multiply_adds"``
            (those in floats) and ``"bit_operations"`` (multiply-adds times the bits of both
            factors), the latter two for one sample.

        Raises:
            ValueError:
                If there are no data, or the model cannot be loaded.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import measure_costs

        self.calibrate()
        source = self._cost_source(data)
        return measure_costs(source, space, seed=seed, seconds=seconds, checks=checks)

    def counted_costs(self, space: TuningSpace, *, seed: int = 0, data: object = None) -> Costs:
        """The part of :meth:`costs` that is counted and not measured: size and operations.

        Args:
            space:
                The tuning space.
            seed:
                Of the configurations of which the sizes are seen.
            data:
                What shapes are found with, in any form of ``calibration_data``, which it is by
                default.

        Raises:
            ValueError:
                If there are no data.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import count_costs

        self.calibrate()
        return count_costs(self._cost_source(data), space, seed=seed)

    def cost_conditions(self, *, data: object = None) -> Mapping[str, str]:
        """Under which conditions :meth:`costs` would measure here: machine, threads, batch.

        Args:
            data:
                As there.

        Raises:
            ValueError:
                If there are no data.
        """
        from optuna_quant.backends.onnxruntime.costs.measure import conditions

        return conditions(self._cost_source(data))

    def _cost_source(self, data: object) -> CostSource:
        """What costs are measured with."""
        from optuna_quant.backends.onnxruntime.costs.measure import CostSource

        piece = next(iter(self._samples(data, "Measuring costs").pieces([1])))
        with self._lock:
            graph = self._graph
        return CostSource(
            graph=graph,
            original=self._source.proto,
            original_bytes=self._model_bytes,
            base_dir=self._source.base_dir,
            sessions=self._sessions,
            build=lambda config: self.quantize(config).proto,
            feed=piece.feed,
            samples=piece.samples,
        )

    def _samples(self, data: object, what: str = "A sensitivity") -> CalibrationData:
        """The samples to run the model on."""
        if data is not None:
            return self._read(data)
        if self._data is None:
            raise ValueError(
                f"{what} needs samples to run the model on, but the backend has no "
                "calibration_data: pass data=, in any form that calibration_data may have."
            )
        return self._data


def _let_go_before_forks(backend: OnnxRuntimeBackend) -> None:
    """Have a backend give up its session before each fork: its threads would not be there."""
    found = weakref.ref(backend)

    def release_connection() -> None:
        alive = found()
        if alive is not None:
            alive._let_go_of_fp32()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=release_connection)


def _files(**given: object) -> Mapping[str, Path]:
    return {
        name.replace("_", " "): Path(value)
        for name, value in given.items()
        if isinstance(value, (str, os.PathLike))
    }


def _checked_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    if sizes is None:
        return ()
    checked = tuple(sizes)
    for size in checked:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"calibration_sizes must be positive integers, but got {size!r}.")
    if len(set(checked)) < len(checked) or not checked:
        raise ValueError(
            f"calibration_sizes must be one or more different numbers, but got {list(checked)}."
        )
    return checked


def _checked_providers(providers: Providers | None) -> Providers:
    if providers is None:
        return ("CPUExecutionProvider",)
    available = onnxruntime.get_available_providers()
    for provider in providers:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise ValueError(
                f"There is no execution provider {name!r} in this ONNX Runtime; available are: "
                f"{', '.join(available)}."
            )
    if not providers:
        raise ValueError("providers must name at least one execution provider.")
    return tuple(providers)
