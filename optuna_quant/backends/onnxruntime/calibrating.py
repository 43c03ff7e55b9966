"""What the backend offers about calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.topic import BackendTopic
from optuna_quant.backends.onnxruntime.weight_only.shared_inputs import SharedInputs


if TYPE_CHECKING:
    from optuna_quant.backends.base import KeepsParts
    from optuna_quant.backends.base import SharesCalibration
    from optuna_quant.backends.onnxruntime.calibration.feeds import Feed
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
            return self._parts.ranges.is_collected()

    def calibration_key(self) -> str:
        """A hash of all that :meth:`calibrate` depends on: the model, its tensors and the data.

        All calibration data that are used are read for it, once for each backend object.
        """
        with self._lock:
            return self._parts.ranges.key()

    def export_calibration(self) -> bytes:
        """What :meth:`calibrate` collects, to be imported elsewhere; calibrates if need be."""
        with self._lock:
            self._parts.calibrate()
            return self._parts.ranges.dump()

    def import_calibration(self, data: bytes) -> None:
        """Take the statistics that a backend with the same :meth:`calibration_key` has exported.

        Every model is then the same, to the last bit, as if this one had calibrated. For the
        errors see :class:`~optuna_quant.backends.base.SharesCalibration`.
        """
        with self._lock:
            self._parts.ranges.restore(data)

    def calibration_for(self, config: QuantConfig) -> SharesCalibration | None:
        """What ``gptq`` and ``awq`` need of the inputs of ops, for a configuration that has them.

        See :class:`~optuna_quant.backends.base.CalibratesForConfigs`. It is collected for all ops
        at once for which the tuning spaces that this object has given offer them.
        """
        with self._lock:
            source = self._parts.candidates.variant(config).builder.inputs_for(config)
        return None if source is None else SharedInputs(source, self._lock)

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
