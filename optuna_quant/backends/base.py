"""What a backend is to the rest of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.narrowing import OpDict
    from optuna_quant.space.space import TuningSpace


class ModelLoadError(ValueError):
    """The runtime does not load a model that a backend has built: no evaluation will change that.

    Backends raise it when a model is first used. A trial that ends so is not tried again.
    """


class Backend(Protocol):
    """Quantizes one model, in any number of ways.

    A backend may have three more members. ``signature()`` gives a dictionary of texts, all that
    makes one configuration build another model (the calibration data, for instance, as a content
    hash): a study is continued only with the same ones; ``"arithmetic"`` among them is how this
    machine computes the models. ``files`` maps names to the paths of the files that the backend
    reads: a result is never written over them. ``float_weights(config)`` gives the
    :class:`~optuna_quant.space.left_out.FloatWeights` of a model, which the report of a search
    tells of. With the members of :class:`SharesCalibration` the
    workers of a study calibrate once for all.
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
        ...

    def calibrate(self) -> None:
        """Collect the range statistics now; otherwise the first candidate that needs them does."""
        ...

    def quantize(self, config: QuantConfig) -> Any:
        """The model as ``config`` says, in the form that the user's evaluation takes."""
        ...

    def fingerprint(self, config: QuantConfig) -> str:
        """A content hash of the model that :meth:`quantize` gives.

        Two configurations with the same fingerprint build the same model: one evaluation will do.
        """
        ...

    def executed(self, config: QuantConfig) -> Mapping[str, Any]:
        """What the runtime really runs for each op: values with ``kernel`` and ``integer``."""
        ...


@runtime_checkable
class SharesCalibration(Protocol):
    """What a backend adds to :class:`Backend` so that one worker calibrates for all."""

    def calibrate(self) -> None:
        """As :meth:`Backend.calibrate`."""
        ...

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute; asked in every trial, so quick."""
        ...

    def calibration_key(self) -> str:
        """A content hash of all that the calibration depends on, the same in every process."""
        ...

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects; calibrates if need be."""
        ...

    def import_calibration(self, data: bytes) -> None:
        """Take what a backend with the same :meth:`calibration_key` has exported.

        Every model is then the same as if this backend had calibrated.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another model or other data.
        """
        ...
