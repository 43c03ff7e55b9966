"""What a backend must be, and what it may report in addition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from pathlib import Path

    from optuna_quant.backends.base.model import CandidateModel
    from optuna_quant.backends.base.model import Model
    from optuna_quant.data.forms import InputValues
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import FloatWeights
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.wishes import OpDict


class ExecutedOp(Protocol):
    """What runs for one op. :class:`OpRuns` is one."""

    @property
    def kernel(self) -> str:
        """What does the op's work; empty if that is not known."""
        ...

    @property
    def integer(self) -> bool | None:
        """Whether it computes on integers; :obj:`None` if that is not known."""
        ...

    @property
    def note(self) -> str:
        """What else the backend has to say; empty if nothing."""
        ...


@dataclass(frozen=True)
class OpRuns:
    """What runs for one op.

    Args:
        kernel:
            The kernel; empty if that is not known.
        integer:
            Whether it computes on integers; None if that is not known.
        note:
            What else the backend says.
    """

    kernel: str = ""
    integer: bool | None = None
    note: str = ""


class Backend(Protocol):
    """Quantizes one model in as many configurations as are asked for.

    Methods may be called from several threads.
    """

    def capability(self) -> Capability:
        """What can be done with each op of the model."""
        ...

    def tuning_space(
        self,
        *,
        op_types: Sequence[str] | str = "default",
        op_type_dict: OpDict | None = None,
        op_name_dict: OpDict | None = None,
        prefix: str = "quant",
    ) -> TuningSpace:
        """The capability, narrowed to what the user allows, as a tuning space.

        :meth:`TuningSpace.from_capability
        <optuna_quant.space.space.TuningSpace.from_capability>` takes the same arguments and does
        all of it.

        Args:
            op_types:
                Which ops to tune: ``"default"`` (those worth quantizing), ``"all"``, or the
                op types.
            op_type_dict:
                What to allow, by regular expressions of op types.
            op_name_dict:
                What to allow, by regular expressions of op names; overrides ``op_type_dict``.
            prefix:
                What the names of the study's parameters begin with.

        Raises:
            ValueError:
                If no op is left, an op type is unknown, or a dictionary has another shape.
        """
        ...

    def quantize(self, config: QuantConfig) -> Model:
        """Build the model that a configuration describes.

        Ops that the configuration does not name run in FP32. Its ``recipes`` are values of those
        of the capability; one that is not named has its default. Its ``calibration_size`` is how
        many of the calibration samples are used, and is :obj:`None` unless the capability has
        ``calibration_sizes``.

        Raises:
            ValueError:
                If the model does not have an op, or an op does not have its option, or there is
                no such recipe.
            ModelLoadError:
                If the runtime does not load the model; it may be raised later, when the model is
                first used.
        """
        ...

    def fingerprint(self, config: QuantConfig) -> str:
        """A content hash of the model that :meth:`quantize` gives, the same in every process.

        Two configurations with the same fingerprint build the same model: one evaluation will do.
        """
        ...

    def executed(self, config: QuantConfig) -> Mapping[str, ExecutedOp]:
        """What the runtime really runs for each op of the configuration, by the op's name.

        ``OpRuns()`` for one of which nothing is known.
        """
        ...


@runtime_checkable
class HasSignature(Protocol):
    """A backend that tells what its models depend on besides the configuration."""

    def signature(self) -> Mapping[str, str]:
        """What models depend on besides their configuration, as short strings by part.

        The calibration data, for instance, as a content hash. A study is continued only if all
        parts are the same. ``"arithmetic"`` among them is how this machine computes the models.
        """
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A backend that reads files; a result is never written over them."""

    @property
    def files(self) -> Mapping[str, Path]:
        """The files, by what they are."""
        ...


@runtime_checkable
class HasConstantInputs(Protocol):
    """A backend that knows inputs which are the same for all samples."""

    @property
    def inputs(self) -> InputValues:
        """Their values, by name."""
        ...


@runtime_checkable
class TracesOutputs(Protocol):
    """A backend that knows which outputs of the model an op can change."""

    def outputs_behind(self, ops: Sequence[str]) -> Sequence[str]:
        """The names of the outputs that depend on one of these ops."""
        ...


@runtime_checkable
class HasBlocks(Protocol):
    """A backend that knows which parts of the model repeat."""

    def blocks(self) -> Sequence[Block]:
        """The repeated parts of the model, in its order; no op is in two of them.

        The same in every process. Ops may be named that the tuning space does not have.
        """
        ...


@runtime_checkable
class WeighsFloats(Protocol):
    """A backend that knows how much of a model a configuration leaves in floats."""

    def float_weights(self, config: QuantConfig) -> FloatWeights:
        """The weights that are not quantized, and what would quantize them."""
        ...


@runtime_checkable
class NamesOriginal(Protocol):
    """A backend that knows whether the model that it quantizes is in floats throughout."""

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized: ``"FP32"``, unless it is not that."""
        ...


@runtime_checkable
class NamesSizes(Protocol):
    """A backend whose models have a size that is not that of the files they are saved to."""

    @property
    def sizes_are_of(self) -> str:
        """What sizes are of, such as ``"weights"``: the summary says so."""
        ...


@runtime_checkable
class SimulatesTarget(Protocol):
    """A backend that can quantize for a device which is elsewhere."""

    @property
    def simulated_target(self) -> str | None:
        """The name of the device; None if models run here as they will in use.

        If it is not None, no times are measured, and the default objective of a search is the
        number of bit operations, if the backend counts them.
        """
        ...


@runtime_checkable
class HasFileEndings(Protocol):
    """A backend whose models are saved in files of its own."""

    @property
    def file_endings(self) -> Sequence[str]:
        """The usual endings of these files, such as ``".pt2"``."""
        ...


@runtime_checkable
class SimulatesCandidates(Protocol):
    """A backend that can say quickly about what its models will give.

    A trial evaluates the simulation. If that meets the criterion, the model itself is evaluated
    in full, and that decides.
    """

    def simulated(self, config: QuantConfig) -> CandidateModel:
        """A stand-in for what :meth:`Backend.quantize` gives, quick to build.

        It has the same fingerprint and size, and gives the same up to rounding.

        Raises:
            ValueError:
                As :meth:`Backend.quantize`.
        """
        ...


def simulated_target_of(backend: object) -> str | None:
    """The name of the device that a backend simulates; None if it simulates none."""
    return backend.simulated_target if isinstance(backend, SimulatesTarget) else None


def original_of(backend: object) -> str:
    """What the model of a backend is called with nothing quantized."""
    return backend.original if isinstance(backend, NamesOriginal) else "FP32"


def shown_sizes_of(backend: object) -> str:
    """What the sizes of a backend's models are of, to be put behind one; empty for files."""
    return f" of {backend.sizes_are_of}" if isinstance(backend, NamesSizes) else ""
