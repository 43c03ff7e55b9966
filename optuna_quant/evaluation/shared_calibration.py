"""Share one calibration among all workers of a study."""

from __future__ import annotations

from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

from optuna.artifacts import download_artifact
from optuna.artifacts import upload_artifact
from optuna.logging import get_logger
from optuna.storages import InMemoryStorage

from optuna_quant import _optuna
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.base import Calibrates
from optuna_quant.backends.base import CalibratesForConfigs
from optuna_quant.backends.base import SharesCalibration
from optuna_quant.backends.base import SharesParts
from optuna_quant.backends.base import TellsCalibrationBytes
from optuna_quant.evaluation.shared_parts import RecordedParts
from optuna_quant.evaluation.shared_parts import StudyParts
from optuna_quant.study.compute_once import TIMEOUT_SECONDS
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.compute_once import LeaseMonitor
from optuna_quant.study.computing_times import timed


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.storages.artifacts import ArtifactStore


_logger = get_logger(__name__)

LARGEST_IN_STUDY = 4_000_000
"""How many bytes of statistics are kept in the study itself."""

_TOO_LARGE = b"too large:"


def share_calibration(
    study: optuna.Study,
    backend: Backend,
    *,
    config: QuantConfig | None = None,
    artifact_store: ArtifactStore | None = None,
    timeout: float = TIMEOUT_SECONDS,
    kept: set[str] | None = None,
) -> None:
    """Calibrate the backend, once for all workers of the study and for later runs.

    The first worker calibrates and the others wait for its statistics, which the study keeps (a
    few kilobytes for each tensor) or, with an artifact store, the store. A worker that fails or
    dies meanwhile is replaced by another. What was calibrated is told apart by content, so a
    worker with another model or other data calibrates for itself.

    From then on the backend also looks there for parts of candidates that take long to compute,
    such as weights by GPTQ (:class:`~optuna_quant.backends.base.SharesParts`), each of which one
    worker computes for all: those up to 64 kB, 2 MB in all, in the study, others in the artifact
    store if there is one.

    There is nothing to share, and no worker is waited for, if the backend is calibrated already
    (its ``cache_dir`` counts), if the study is in memory, or if the backend cannot export
    statistics.

    Args:
        study:
            The study.
        backend:
            The backend.
        config:
            A configuration that is built next: what it needs besides, see
            :class:`~optuna_quant.backends.base.CalibratesForConfigs`, is shared in the same way.
        artifact_store:
            Where the statistics are kept, such as an
            :class:`optuna.artifacts.FileSystemArtifactStore` that all workers reach. Needed only
            if they are larger than 4 MB; without one every worker then calibrates for itself.
        timeout:
            After how many seconds without a heartbeat another worker takes over from the one that
            calibrates; on this machine, where its process has ended, at once.
        kept:
            Names of what studies are known to keep, which is added to. If it is given, what the
            configuration needs is put into the study even where this backend has it already, as
            after the computation of sensitivities; then others find it there.

    Raises:
        ValueError:
            If ``timeout`` is not positive, or the calibration data are unusable.
    """
    if not timeout > 0:
        raise ValueError(f"timeout must be positive, but got {timeout}.")
    storage, _ = _optuna.study_identity(study)
    in_memory = isinstance(storage, InMemoryStorage)
    if isinstance(backend, SharesParts):
        backend.share_parts(None if in_memory else StudyParts(study, artifact_store))
    if isinstance(backend, SharesCalibration) and not in_memory:
        _share(study, backend, artifact_store, timeout)
    elif isinstance(backend, Calibrates):
        with timed(study, "calibration:here"):
            backend.calibrate()
    if config is None or in_memory or not isinstance(backend, CalibratesForConfigs):
        return  # What such a configuration needs is then collected when it is built.
    for part in backend.calibrations_for(config):
        if kept is None:
            _share(study, part, artifact_store, timeout)
            continue
        name = f"{study.study_name}/{part.calibration_key()}"
        if name not in kept or not part.is_calibrated():
            _share(study, part, artifact_store, timeout, though_calibrated=True)
            kept.add(name)


def _share(
    study: optuna.Study,
    backend: SharesCalibration,
    artifact_store: ArtifactStore | None,
    timeout: float,
    *,
    though_calibrated: bool = False,
) -> None:
    if backend.is_calibrated() and not though_calibrated:
        return
    name = f"calibration:{backend.calibration_key()[:32]}"
    monitor = LeaseMonitor(timeout)
    in_study = ComputeOnce(study, name, monitor=monitor)
    if artifact_store is None:
        value = in_study.get(lambda: _for_study(backend))
        if value.startswith(_TOO_LARGE):
            if not (though_calibrated and backend.is_calibrated()):
                _calibrate_alone(backend, value)
            return
    else:
        # The study may hold them from a run without a store.
        found = in_study.read()
        if found is None or found.startswith(_TOO_LARGE):
            found = _through_store(study, name, backend, artifact_store, monitor)
        value = found
    if not backend.is_calibrated():  # It is, if it was this one.
        _take(backend, value)


def take_calibration(
    study: optuna.Study, backend: Backend, config: QuantConfig | None = None
) -> None:
    """Give a backend the calibration and the parts that a study keeps; nothing is written.

    Args:
        study:
            The study.
        backend:
            The backend. If the study has nothing for it, it calibrates when it has to.
        config:
            A configuration that is built next, as for :func:`share_calibration`.
    """
    if isinstance(backend, SharesParts):
        backend.share_parts(RecordedParts(study))
    if isinstance(backend, SharesCalibration):
        _take_if_kept(study, backend)
    if config is not None and isinstance(backend, CalibratesForConfigs):
        for part in backend.calibrations_for(config):
            _take_if_kept(study, part)


def _take_if_kept(study: optuna.Study, backend: SharesCalibration) -> None:
    if backend.is_calibrated():
        return
    found = ComputeOnce(study, f"calibration:{backend.calibration_key()[:32]}").read()
    if found is not None and not found.startswith(_TOO_LARGE):
        _take(backend, found)


def _for_study(backend: SharesCalibration) -> bytes:
    if isinstance(backend, TellsCalibrationBytes):
        size = backend.calibration_bytes()
        if size > LARGEST_IN_STUDY:
            return _TOO_LARGE + str(size).encode()
    data = backend.export_calibration()
    return data if len(data) <= LARGEST_IN_STUDY else _TOO_LARGE + str(len(data)).encode()


def _calibrate_alone(backend: SharesCalibration, value: bytes) -> None:
    size = int(value.removeprefix(_TOO_LARGE))
    warn_user(
        f"What was calibrated takes {size} bytes, but a study keeps at most "
        f"{LARGEST_IN_STUDY}, so every worker calibrates for itself. To calibrate once, pass "
        "artifact_store=, or give the backend a cache_dir that the workers share."
    )
    backend.calibrate()


def _through_store(
    study: optuna.Study,
    name: str,
    backend: SharesCalibration,
    artifact_store: ArtifactStore,
    monitor: LeaseMonitor,
) -> bytes:
    """The statistics, from the store or, if it does not hold them, by way of it."""

    def upload() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "calibration.statistics")
            path.write_bytes(backend.export_calibration())
            artifact = upload_artifact(
                artifact_store=artifact_store, file_path=str(path), study_or_trial=study
            )
        return artifact.encode()

    artifact = ComputeOnce(study, f"{name}:artifact", monitor=monitor).get(upload).decode()
    if backend.is_calibrated():
        return b""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calibration.statistics")
        try:
            download_artifact(
                artifact_store=artifact_store, file_path=str(path), artifact_id=artifact
            )
            return path.read_bytes()
        except Exception as error:  # Each kind of store fails in its own way.
            warn_user(
                f"What was calibrated, artifact {artifact}, cannot be read from the artifact "
                f"store ({error}); calibrating again."
            )
    return b""


def _take(backend: SharesCalibration, value: bytes) -> None:
    if value:
        try:
            backend.import_calibration(value)
        except ValueError as error:
            warn_user(
                f"What the study keeps of the calibration cannot be used: {error} "
                "Calibrating again."
            )
        else:
            _logger.info("Using what another worker has calibrated.")
            return
    backend.calibrate()
