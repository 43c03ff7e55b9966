"""The moments of inputs as a calibration of its own, which workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from threading import RLock

    from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource


class SharedInputs:
    """Collects the moments of all inputs that are expected, for this process and for others.

    A :class:`~optuna_quant.backends.base.SharesCalibration`.

    Args:
        source:
            Collects them.
        lock:
            Is held while it is used.
    """

    def __init__(self, source: InputMomentsSource, lock: RLock) -> None:
        self._source = source
        self._lock = lock

    def calibrate(self) -> None:
        """Collect them now; otherwise the first candidate does."""
        with self._lock:
            self._source.collect()

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute."""
        with self._lock:
            return self._source.is_collected()

    def calibration_key(self) -> str:
        """A hash of all that they depend on."""
        with self._lock:
            return self._source.expected_key()

    def calibration_bytes(self) -> int:
        """About how many bytes an export has."""
        with self._lock:
            return self._source.expected_bytes

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects; collects it if need be."""
        with self._lock:
            self._source.collect()
            return self._source.dump()

    def import_calibration(self, data: bytes) -> None:
        """Take what another process has exported.

        Raises:
            ValueError:
                If the bytes are damaged, or were made from another model or other data.
        """
        with self._lock:
            self._source.restore(data)
