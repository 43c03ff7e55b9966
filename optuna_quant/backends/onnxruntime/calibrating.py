"""What the backend offers about calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.shared_source import SharedInputs
from optuna_quant.backends.onnxruntime.shared_source import SharedSource
from optuna_quant.backends.onnxruntime.topic import BackendTopic


if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna_quant.backends.base import KeepsParts
    from optuna_quant.backends.base import SharesCalibration
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.space.config import QuantConfig


class CalibratingBackend(BackendTopic):
    """Calibrates, for this process and for others.

    See :class:`~optuna_quant.backends.base.SharesCalibration`,
    :class:`~optuna_quant.backends.base.CalibratesForConfigs` and
    :class:`~optuna_quant.backends.base.PreviewsCalibration`. Without calibration data there is
    nothing to calibrate, and asking for a key or an export raises a :exc:`ValueError`.
    """

    def calibrate(self) -> None:
        """Collect the range statistics now, for all calibration sizes in one pass over the data.

        Otherwise the first static candidate does. They are those of the ops that are quantized by
        default and of the ops of every tuning space that this object has given. Without
        calibration data there is nothing to do.
        """
        with self._lock:
            self._parts.calibrate()

    def is_calibrated(self) -> bool:
        """Whether :meth:`calibrate` has nothing to compute.

        It is true after it has run, if ``cache_dir`` holds the statistics, and without any data.
        """
        if self._parts.samples.calibration is None:
            return True
        with self._lock:
            return self._parts.calibration.is_collected()

    def calibration_key(self) -> str:
        """A hash of all that :meth:`calibrate` depends on: the model, its tensors and the data.

        All calibration data that are used are read for it, once for each backend object.
        """
        with self._lock:
            return self._parts.calibration.key()

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects, to be imported elsewhere; calibrates if need be."""
        with self._lock:
            self._parts.calibrate()
            return self._parts.calibration.dump()

    def import_calibration(self, data: bytes) -> None:
        """Take the statistics that a backend with the same :meth:`calibration_key` has exported.

        Every model is then the same, to the last bit, as if this one had calibrated. For the
        errors see :class:`~optuna_quant.backends.base.SharesCalibration`.
        """
        with self._lock:
            self._parts.calibration.restore(data)

    def calibrations_for(self, config: QuantConfig) -> Iterator[SharesCalibration]:
        """What a configuration needs besides :meth:`calibrate`.

        See :class:`~optuna_quant.backends.base.CalibratesForConfigs`. That is the calibration of
        the graph that its recipes make, and what ``gptq`` and ``awq`` need of the inputs of ops:
        for all ops at once for which the tuning spaces that this object has given offer them.
        """
        with self._lock:
            variant = self._parts.variant_calibration(config)
        if variant is not None:
            yield SharedSource(variant, self._lock)
        with self._lock:
            inputs = self._parts.inputs_for(config)
        if inputs is not None:
            yield SharedInputs(inputs, self._lock)

    def share_parts(self, kept: KeepsParts | None) -> None:
        """Share weights by ``gptq``, ``awq`` and ``hqq``: see
        :class:`~optuna_quant.backends.base.SharesParts`.
        """
        with self._lock:
            self._parts.kept_weights.shared = kept

    def calibration_preview(self, samples: int) -> tuple[int, list[Feed]] | None:
        """The first batches of the calibration data, and how many samples there are or so many.

        See :class:`~optuna_quant.backends.base.PreviewsCalibration`. A smaller calibration
        sampling size counts for the number.
        """
        return self._parts.samples.preview(samples)
