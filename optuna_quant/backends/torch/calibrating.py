"""What the backend offers about calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.torch.topic import BackendTopic


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.backends.base import Feed


class CalibratingBackend(BackendTopic):
    """Calibrates, for this process and for others.

    See :class:`~optuna_quant.backends.base.SharesCalibration` and
    :class:`~optuna_quant.backends.base.PreviewsCalibration`.
    """

    def calibrate(self) -> None:
        """Collect the range statistics now; otherwise the first candidate that needs them does."""
        with self._lock:
            self._parts.calibration.collect()

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute."""
        parts = self._parts
        return parts.approach in ("dynamic", "weight_only") or parts.calibration.is_calibrated

    def calibration_key(self) -> str:
        """A content hash of all that the calibration depends on."""
        with self._lock:
            return self._parts.calibration.key

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects; calibrates if need be."""
        with self._lock:
            return self._parts.calibration.export()

    def import_calibration(self, data: bytes) -> None:
        """Take what a backend with the same :meth:`calibration_key` has exported.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another model or other data.
        """
        with self._lock:
            self._parts.calibration.restore(data)

    def calibration_preview(self, samples: int) -> tuple[int, Sequence[Feed]] | None:
        """The first batches of the calibration data.

        Args:
            samples:
                How many samples are enough.

        Returns:
            How many samples there are, or at least so many, and the batches with them; None
            without data.
        """
        return self._parts.samples.preview(samples)
