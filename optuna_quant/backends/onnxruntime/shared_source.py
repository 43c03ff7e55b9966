"""What is collected from the calibration data, as workers share it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol


if TYPE_CHECKING:
    from threading import RLock

    from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource


class Source(Protocol):
    """Something that collects, and gives what it has collected to other processes."""

    def collect(self) -> None:
        """Collect what is expected; nothing if it was."""

    def is_collected(self) -> bool:
        """Whether :meth:`collect` has nothing to compute."""
        ...

    def key(self) -> str:
        """A hash of all that it depends on."""
        ...

    def dump(self) -> bytes:
        """What was collected, for :meth:`restore`."""
        ...

    def restore(self, data: bytes) -> None:
        """Take what :meth:`dump` has given for the same key.

        Raises:
            ValueError:
                If the bytes are damaged or belong to something else.
        """


class SharedSource:
    """A source as a :class:`~optuna_quant.backends.base.SharesCalibration`.

    Args:
        source:
            Collects.
        lock:
            Is held while it is used.
    """

    def __init__(self, source: Source, lock: RLock) -> None:
        self._source = source
        self._lock = lock

    def calibrate(self) -> None:
        """Collect now; otherwise the first candidate does."""
        with self._lock:
            self._source.collect()

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute."""
        with self._lock:
            return self._source.is_collected()

    def calibration_key(self) -> str:
        """A hash of all that it depends on."""
        with self._lock:
            return self._source.key()

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


class SharedInputs(SharedSource):
    """The moments of inputs, which can be large.

    A :class:`~optuna_quant.backends.base.TellsCalibrationBytes`.

    Args:
        source:
            Collects them.
        lock:
            Is held while it is used.
    """

    def __init__(self, source: InputMomentsSource, lock: RLock) -> None:
        super().__init__(source, lock)
        self._moments = source

    def calibration_bytes(self) -> int:
        """About how many bytes an export has."""
        with self._lock:
            return self._moments.expected_bytes
