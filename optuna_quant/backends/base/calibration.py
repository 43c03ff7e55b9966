"""What a backend may offer about calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.space.config import QuantConfig


@runtime_checkable
class Calibrates(Protocol):
    """A backend that runs the model on calibration data before it can quantize it."""

    def calibrate(self) -> None:
        """Collect the range statistics now; otherwise the first candidate that needs them does."""
        ...


@runtime_checkable
class SharesCalibration(Calibrates, Protocol):
    """A backend whose calibration can be handed on, so that one worker calibrates for all."""

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute; asked in every trial, so quick.

        It is also true without calibration data; then none of the other methods is called.
        """
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


@runtime_checkable
class TellsCalibrationBytes(Protocol):
    """Something that knows how large its exported calibration is before it is made."""

    def calibration_bytes(self) -> int:
        """About how many bytes ``export_calibration`` gives."""
        ...


@runtime_checkable
class CalibratesForConfigs(Protocol):
    """A backend some of whose configurations need more of the calibration data than others."""

    def calibrations_for(self, config: QuantConfig) -> Iterable[SharesCalibration]:
        """What a configuration needs besides :meth:`Calibrates.calibrate`, one after the other.

        Each is collected, or taken from another worker, before the next is asked for, and all
        before the first such configuration is built. They need not be the same objects each time.
        """
        ...


@runtime_checkable
class PreviewsCalibration(Protocol):
    """A backend that shows some of its calibration data.

    The library compares these with the evaluation data, and measures times on the first sample if
    the backend does not :class:`ChoosesLatencyFeed`.
    """

    def calibration_preview(self, samples: int) -> tuple[int, Sequence[Feed]] | None:
        """The first batches of the calibration data.

        Args:
            samples:
                How many samples are enough.

        Returns:
            How many samples there are, or at least so many, and the batches with them: an array
            for each input, by name. :obj:`None` without data.
        """
        ...


@runtime_checkable
class ChoosesLatencyFeed(Protocol):
    """A backend that says what models are run on where their time is measured."""

    def latency_feed(self) -> tuple[int, Feed] | None:
        """The samples of a run whose time is measured; the same ones as for its latency costs.

        Returns:
            How many samples there are, and an array for each input, by name. :obj:`None` without
            data.
        """
        ...


def latency_feed_of(backend: object) -> tuple[int, Feed] | None:
    """What a backend says that models are run on where their time is measured.

    Args:
        backend:
            The backend.

    Returns:
        As :meth:`ChoosesLatencyFeed.latency_feed`; :obj:`None` if it does not say it.
    """
    return backend.latency_feed() if isinstance(backend, ChoosesLatencyFeed) else None
