"""What a backend must do that shares its calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol

import pytest

from optuna_quant.backends.base import Backend
from optuna_quant.backends.base import CalibratesForConfigs
from optuna_quant.backends.base import PreviewsCalibration
from optuna_quant.backends.base import SharesCalibration
from optuna_quant.backends.base import TellsCalibrationBytes
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.lacks import lacks


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.space.config import QuantConfig


# What is told of the size of an export is about that.
_BYTES_FACTOR, _BYTES_MORE = 4, 4096


def _check_told_bytes(told: int, exported: bytes) -> None:
    assert isinstance(told, int), f"calibration_bytes must give an int, not {told!r}."
    low, high = (len(exported) - _BYTES_MORE) / _BYTES_FACTOR, len(exported) * _BYTES_FACTOR
    assert low <= told <= high + _BYTES_MORE, (
        f"calibration_bytes says {told}, but an export has {len(exported)} bytes: it decides "
        "whether workers share that."
    )


class SharingBackend(Backend, SharesCalibration, Protocol):
    """Both protocols, for types."""


class CalibrationTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.SharesCalibration`."""

    @pytest.fixture
    def sharing(self, make_backend: Callable[[], Backend]) -> Callable[[], SharingBackend]:
        """Makes the backend, with its default space asked for, as a worker does."""

        def make() -> SharingBackend:
            backend = make_backend()
            assert isinstance(backend, SharesCalibration), lacks(backend, SharesCalibration)
            backend.tuning_space()
            return backend

        return make

    def test_it_is_calibrated_once(self, sharing: Callable[[], SharingBackend]) -> None:
        backend = sharing()
        backend.calibrate()
        assert backend.is_calibrated()
        exported = backend.export_calibration()
        backend.calibrate()
        assert backend.export_calibration() == exported

    def test_it_says_that_it_is_not_calibrated(
        self, sharing: Callable[[], SharingBackend]
    ) -> None:
        backend = sharing()
        options = [o for t in backend.tuning_space().tunables for o in t.options]
        if not isinstance(backend, PreviewsCalibration) or not any(
            option.mode == "static" for option in options
        ):
            pytest.skip("It does not show its data, or no option needs them.")
        if backend.calibration_preview(1) is None:
            pytest.skip("The backend has no calibration data.")
        assert not backend.is_calibrated(), (
            "It has data to calibrate with but is calibrated from the start, so each worker would "
            "do that for itself."
        )

    def test_key_is_the_same_each_time(self, sharing: Callable[[], SharingBackend]) -> None:
        one, other = sharing(), sharing()
        key = one.calibration_key()
        assert isinstance(key, str)
        assert key
        one.calibrate()
        assert one.calibration_key() == other.calibration_key() == key

    def test_export_calibrates(self, sharing: Callable[[], SharingBackend]) -> None:
        backend = sharing()
        assert isinstance(backend.export_calibration(), bytes)
        assert backend.is_calibrated()

    def test_what_is_imported_gives_the_same_models(
        self, sharing: Callable[[], SharingBackend], every_option: Mapping[str, QuantConfig]
    ) -> None:
        one, other = sharing(), sharing()
        other.import_calibration(one.export_calibration())
        assert other.is_calibrated()
        for what, config in every_option.items():
            assert one.fingerprint(config) == other.fingerprint(config), what

    @pytest.mark.parametrize("kept", [0.0, 0.5])
    def test_damaged_bytes_are_refused(
        self,
        sharing: Callable[[], SharingBackend],
        configs: Mapping[str, QuantConfig],
        kept: float,
    ) -> None:
        one, other = sharing(), sharing()
        data = one.export_calibration()
        with pytest.raises(ValueError):
            other.import_calibration(data[: int(kept * len(data))])
        config = configs["default"]
        assert other.fingerprint(config) == one.fingerprint(config)

    def test_calibration_of_another_model_or_other_data_is_refused(
        self,
        sharing: Callable[[], SharingBackend],
        other_backend: Backend,
        configs: Mapping[str, QuantConfig],
    ) -> None:
        assert isinstance(other_backend, SharesCalibration)
        other_backend.tuning_space()
        backend, config = sharing(), configs["default"]
        expected = sharing().fingerprint(config)
        assert backend.calibration_key() != other_backend.calibration_key(), (
            "The calibration of another model or other data must have another key: workers "
            "would take it for theirs."
        )
        with pytest.raises(ValueError):
            backend.import_calibration(other_backend.export_calibration())
        assert backend.fingerprint(config) == expected

    def test_preview_fits_the_model(
        self, sharing: Callable[[], SharingBackend], configs: Mapping[str, QuantConfig]
    ) -> None:
        backend = sharing()
        if not isinstance(backend, PreviewsCalibration):
            pytest.skip("The backend does not show its calibration data.")
        preview = backend.calibration_preview(1)
        if preview is None:
            pytest.skip("The backend has no calibration data.")
        count, feeds = preview
        assert count >= 1, "A preview without samples is None."
        model = backend.quantize(configs["FP32"])
        needed = {spec.name for spec in model.inputs}
        assert needed <= set(feeds[0]), (
            f"The preview has arrays for {sorted(feeds[0])}, but the model's inputs are "
            f"{sorted(needed)}."
        )
        assert len(model.run(feeds[0])) == len(model.outputs)

    def test_the_size_of_an_export_is_told_before_it_is_made(
        self, sharing: Callable[[], SharingBackend]
    ) -> None:
        backend = sharing()
        if not isinstance(backend, TellsCalibrationBytes):
            pytest.skip("The backend does not tell how large its calibration is.")
        before = backend.is_calibrated()
        told = backend.calibration_bytes()
        assert backend.is_calibrated() == before, "calibration_bytes must not calibrate."
        _check_told_bytes(told, backend.export_calibration())

    def test_what_configurations_need_besides_is_shared(
        self, sharing: Callable[[], SharingBackend], every_option: Mapping[str, QuantConfig]
    ) -> None:
        one, other = sharing(), sharing()
        if not isinstance(one, CalibratesForConfigs) or not isinstance(
            other, CalibratesForConfigs
        ):
            pytest.skip("All configurations need the same of the calibration data.")
        other.import_calibration(one.export_calibration())
        shared = 0
        for what, config in every_option.items():
            parts = zip(one.calibrations_for(config), other.calibrations_for(config), strict=True)
            for mine, theirs in parts:
                key = mine.calibration_key()
                assert key == theirs.calibration_key(), (
                    f"{what}: the key of what it needs must be the same in every process."
                )
                told = mine.calibration_bytes() if isinstance(mine, TellsCalibrationBytes) else 0
                data = mine.export_calibration()
                if isinstance(mine, TellsCalibrationBytes):
                    _check_told_bytes(told, data)
                theirs.import_calibration(data)
                assert mine.is_calibrated() and theirs.is_calibrated(), (
                    f"{what}: what was exported or imported is calibrated."
                )
                shared += 1
            assert one.fingerprint(config) == other.fingerprint(config), what
            again = [part.is_calibrated() for part in other.calibrations_for(config)]
            assert all(again), f"{what}: what was collected must be kept."
        if not shared:
            pytest.skip("No option needs more of the calibration data.")
