"""The ONNX Runtime backend: one model, quantized in any number of ways."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
from optuna_quant.backends.onnxruntime.calibration.calibration import CalibrationCache
from optuna_quant.backends.onnxruntime.calibration.candidate_ranges import CandidateRanges
from optuna_quant.backends.onnxruntime.calibration.data import DEFAULT_BATCH_SIZE
from optuna_quant.backends.onnxruntime.calibration.samples import SampleReader
from optuna_quant.backends.onnxruntime.calibration.samples import Samples
from optuna_quant.backends.onnxruntime.calibration.samples import checked_sizes
from optuna_quant.backends.onnxruntime.calibration.statistics import StatisticsSource
from optuna_quant.backends.onnxruntime.candidates import Candidates
from optuna_quant.backends.onnxruntime.executed.candidate import executed_in_candidate
from optuna_quant.backends.onnxruntime.executed.refusals import describe_refusal
from optuna_quant.backends.onnxruntime.hints import quantized_nodes
from optuna_quant.backends.onnxruntime.model.dependence import outputs_behind
from optuna_quant.backends.onnxruntime.model.fp32 import FP32Model
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
from optuna_quant.backends.onnxruntime.model.providers import checked_providers
from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
from optuna_quant.backends.onnxruntime.offered_ops import OfferedOps
from optuna_quant.backends.onnxruntime.offered_ops import check_approach
from optuna_quant.backends.onnxruntime.sensitivity.maker import SensitivityMaker
from optuna_quant.backends.onnxruntime.signature import signature
from optuna_quant.backends.onnxruntime.static.saturation import SaturationCheck
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
    from optuna_quant.backends.onnxruntime.model.quantized_model import Providers
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.hessian import Loss
    from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
    from optuna_quant.backends.onnxruntime.sensitivity.mse import OutputSensitivity
    from optuna_quant.backends.onnxruntime.torch_graph.graph import FloatType
    from optuna_quant.costs import Costs
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import FloatWeights
    from optuna_quant.space.narrowing import OpDict


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
            By default ``"static"``, and ``"auto"`` for a model of which 5% or more are the
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
        check_approach(approach)
        sizes = checked_sizes(calibration_sizes)
        self._sessions = SessionMaker(checked_providers(providers), session_options)
        self._asked_approach = approach
        self._reduce_range = reduce_range
        self._model = OpenedModel(load_model(model))
        self._files = _files(model=model, calibration_data=calibration_data)
        self._samples = Samples(
            SampleReader(self._model.proto, inputs=inputs, transform=transform),
            calibration_data,
            batch_size=calibration_batch_size,
            sizes=sizes,
        )
        if calibration_data is None and approach != "dynamic" and not inspect_only:
            raise ValueError(
                f"approach={approach or 'static'!r} needs calibration_data: samples like those "
                "the model will see in use. Without them, use approach='dynamic'."
            )
        self._cache = None if cache_dir is None else CalibrationCache(cache_dir)
        self._lock = RLock()
        self._sensitivities: dict[tuple[int, tuple[str, ...] | None], MSESensitivity] = {}
        self._fp32 = self._loaded()

    def _loaded(self) -> FP32Model:
        try:
            session = self._sessions.make(self._model.compact, self._model.base_dir)
        except Exception as error:
            raise ValueError(
                describe_refusal(self._model.source, self._sessions, error)
            ) from error
        return FP32Model(self._model, self._sessions, session)

    # The parts that need the model in normal form. They have no lock: self._lock is held where
    # one of them is made or used.

    @cached_property
    def _builder(self) -> CandidateBuilder:
        return CandidateBuilder(self._model.graph, reduce_range=self._reduce_range)

    @cached_property
    def _offered(self) -> OfferedOps:
        return OfferedOps(
            self._model,
            self._builder.static,
            approach=self._asked_approach,
            calibration_sizes=self._samples.sizes,
        )

    @cached_property
    def _ranges(self) -> CandidateRanges:
        statistics = None
        if self._samples.calibration is not None:
            statistics = StatisticsSource(
                self._model.graph, self._samples.calibration, self._sessions, self._cache
            )
        return CandidateRanges(statistics, self._samples.passes, self._builder, self._offered)

    @cached_property
    def _saturation(self) -> SaturationCheck:
        return SaturationCheck(self._sessions, reduce_range=self._reduce_range)

    @cached_property
    def _candidates(self) -> Candidates:
        return Candidates(
            self._model,
            fp32=self._fp32,
            builder=self._builder,
            ranges=self._ranges,
            sessions=self._sessions,
            saturation=self._saturation,
        )

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs that are the same for all samples."""
        return self._samples.reader.inputs

    def capability(self) -> Capability:
        """What can be done with each op of the model.

        The product of two activations has the op type ``MatMulActivations``, to be told from a
        ``MatMul`` with a weight. Ops that only pass values on (Reshape, MaxPool, a Relu behind a
        Conv, ...) follow the op before them and are not listed.
        """
        with self._lock:
            return self._offered.capability

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
        with self._lock:
            self._ranges.expect(space)
        return space

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized: ``"FP32"`` unless it is quantized."""
        with self._lock:
            quantized = quantized_nodes(self._model.graph.nodes)
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
        with self._lock:
            return left_out_frame(self._offered.left_out(space))

    def float_weights(self, config: QuantConfig) -> FloatWeights:
        """The weights that a configuration leaves in floats, and what would quantize them."""
        with self._lock:
            return self._offered.float_weights(config)

    def calibrate(self) -> None:
        """Collect the range statistics now, for all calibration sizes in one pass over the data.

        Otherwise the first static candidate does. They are those of the ops that are quantized by
        default and of the ops of every tuning space that this object has given. Without
        calibration data there is nothing to do.
        """
        if self._samples.calibration is not None:
            with self._lock:
                self._fp32.release()
                self._ranges.collect()

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute.

        So it is once it has run, if ``cache_dir`` holds the statistics, and without any data.
        """
        if self._samples.calibration is None:
            return True
        with self._lock:
            return self._ranges.is_collected()

    def calibration_key(self) -> str:
        """A hash of all that :meth:`calibrate` depends on: the model, its tensors and the data.

        All calibration data that are used are read for it, once for each backend object.

        Raises:
            ValueError:
                If there are no calibration data.
        """
        with self._lock:
            return self._ranges.key()

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects, for :meth:`import_calibration`; calibrates if need be.

        Raises:
            ValueError:
                If there are no calibration data.
        """
        with self._lock:
            self.calibrate()
            return self._ranges.dump()

    def import_calibration(self, data: bytes) -> None:
        """Take the statistics that a backend with the same :meth:`calibration_key` has exported.

        Every model is then the same, to the last bit, as if this one had calibrated.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another model or other data, or there are no
                calibration data.
        """
        with self._lock:
            self._ranges.restore(data)

    def calibration_preview(self, samples: int) -> tuple[int, list[Feed]] | None:
        """The first batches of the calibration data, for a look at them.

        Args:
            samples:
                How many samples are enough.

        Returns:
            How many samples there are, or at least so many, and the batches with them. A smaller
            calibration sampling size counts for the number. :obj:`None` without data.
        """
        return self._samples.preview(samples)

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
            return self._candidates.quantize(config)

    def session(self, config: QuantConfig) -> onnxruntime.InferenceSession:
        """A session of the model that a configuration describes."""
        return self.quantize(config).session

    def fingerprint(self, config: QuantConfig) -> str:
        """A content hash of the model that a configuration describes.

        It covers what the model computes and how, not names inside it; it is the same in every
        process. Two configurations with the same fingerprint build the same model.
        """
        with self._lock:
            return self._candidates.fingerprint(config)

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
            approach = self._offered.approach
            model = self._candidates.unchanged.fingerprint
            saturates = self._saturation.saturates
        return signature(
            model=model,
            samples=self._samples,
            approach=approach,
            reduce_range=self._reduce_range,
            saturates=saturates,
        )

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that the backend reads, which nothing may overwrite, by what they are."""
        return self._files

    def outputs_behind(self, ops: Sequence[str]) -> tuple[str, ...]:
        """The model's outputs whose values can change when these ops are quantized."""
        with self._lock:
            return outputs_behind(self._model.graph, ops)

    def executed(self, config: QuantConfig) -> Mapping[str, ExecutedOp]:
        """What the runtime really runs for each op of a configuration.

        Raises:
            ModelLoadError:
                If the runtime does not load the model.
        """
        model = self.quantize(config)
        with self._lock:
            graph = self._model.graph
        return executed_in_candidate(model, config.ops.keys(), graph, self._sessions)

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
        return self._sensitivity_maker().mse(data, samples=samples)

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
        return self._sensitivity_maker().output(
            data, batches=batches, batch_size=batch_size, outputs=outputs
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
        key = samples, None if outputs is None else tuple(outputs)
        with self._lock:
            found = self._sensitivities.get(key)
            if found is None:
                found = self._sensitivity_maker().best(samples=samples, outputs=outputs)
                if found is not None:
                    self._sensitivities[key] = found
            return found

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
        return self._sensitivity_maker().gradient(
            data, samples=samples, probes=probes, seed=seed, outputs=outputs
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
        return self._sensitivity_maker().hessian(
            data,
            loss=loss,
            outputs=outputs,
            labels=labels,
            probes=probes,
            tolerance=tolerance,
            seed=seed,
            max_samples=max_samples,
            batch_size=batch_size,
            dtype=dtype,
            module=module,
            parameters=parameters,
        )

    def _sensitivity_maker(self) -> SensitivityMaker:
        with self._lock:
            return SensitivityMaker(
                self.quantize,
                self._model.graph,
                self._model.nbytes,
                self._builder.static,
                self._samples,
                self._sessions,
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

        piece = next(iter(self._samples.to_run_on(data, "Measuring costs").pieces([1])))
        with self._lock:
            graph = self._model.graph
        return CostSource(
            graph=graph,
            original=self._model.proto,
            original_bytes=self._model.nbytes,
            base_dir=self._model.base_dir,
            sessions=self._sessions,
            build=lambda config: self.quantize(config).proto,
            feed=piece.feed,
            samples=piece.samples,
        )


def _files(**given: object) -> Mapping[str, Path]:
    return {
        name.replace("_", " "): Path(value)
        for name, value in given.items()
        if isinstance(value, (str, os.PathLike))
    }
