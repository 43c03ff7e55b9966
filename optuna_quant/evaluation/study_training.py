"""A trial whose model is trained: its reports, its hyperparameters and its checkpoints."""

from __future__ import annotations

from contextlib import suppress
import io
from typing import TYPE_CHECKING
import uuid

from optuna.exceptions import TrialPruned
from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.storages.write_buffer import unbuffered
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import RunningTrialWriter


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    import optuna
    from optuna.pruners import BasePruner

    from optuna_quant.backends.base.training import Hyperparameter
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


_logger = get_logger(__name__)


class StudyTraining:
    """The trial of a study for which a model is trained; a backend's ``TrainingTrial``.

    Args:
        trial:
            The trial.
        space:
            The tuning space: its parameters are no hyperparameters.
        artifact_store:
            Where checkpoints are kept; None to keep none.
        check:
            Raises if the training should end, because it is late or was interrupted.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        space: TuningSpace,
        artifact_store: ArtifactStore | None,
        check: Callable[[], None],
    ) -> None:
        self.trial = trial
        self._space = space
        self._store = artifact_store
        self._check = check
        # Artifacts that are not needed once the trial has its result.
        self._artifacts: list[str] = []

    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """The trial's parameters so far, without those of the tuning space."""
        return hyperparameters_of(self.trial.params, self._space)

    def report(self, value: float, step: int, *, pruner: BasePruner | None = None) -> None:
        """See :class:`~optuna_quant.backends.base.TrainingTrial`.

        With several objectives Optuna has no pruners, and nothing is reported.
        """
        self._check()
        trial = self.trial
        if len(trial.study.directions) > 1:
            return
        trial.report(value, step)
        used = trial.study.pruner if pruner is None else pruner
        if used.prune(trial.study, _optuna.frozen_trial(trial)):
            raise TrialPruned(f"Pruned in its training, at step {step}, with {value:.6g}.")

    def resume(self, name: str) -> tuple[bytes, int] | None:
        """See :class:`~optuna_quant.backends.base.TrainingTrial`."""
        if self._store is None:
            return None
        for view in _unfinished(self.trial.study, name):
            checkpoint = view.checkpoint
            assert checkpoint is not None
            try:
                with self._store.open_reader(checkpoint.artifact) as file:
                    state = file.read()
            except Exception as error:  # Each kind of store fails in its own way.
                warn_user(
                    f"The checkpoint of trial {view.number}, artifact {checkpoint.artifact}, "
                    f"cannot be read from the artifact store ({error}); training starts over."
                )
                continue
            self._artifacts.append(checkpoint.artifact)
            with unbuffered(self.trial):
                RunningTrialWriter(self.trial).system_attr(record.RESUMED, view.number)
            _optuna.fix_parameters(self.trial, checkpoint.hyperparameters)
            _logger.info(
                f"Trial {self.trial.number} goes on with the training of trial {view.number} "
                f"after step {checkpoint.step}."
            )
            return state, checkpoint.step
        return None

    def save(self, name: str, state: bytes, step: int) -> None:
        """See :class:`~optuna_quant.backends.base.TrainingTrial`."""
        self._check()
        if self._store is None:
            warn_user(
                "There is no artifact_store, so no checkpoints of trainings are kept: if a "
                "process is killed, its training starts over. Pass artifact_store=, such as "
                "optuna.artifacts.FileSystemArtifactStore(folder)."
            )
            return
        artifact = f"checkpoint-{uuid.uuid4()}"
        self._store.write(artifact, io.BytesIO(state))
        checkpoint = record.Checkpoint(name, step, artifact, dict(self.hyperparameters))
        with unbuffered(self.trial):
            RunningTrialWriter(self.trial).system_attr(record.CHECKPOINT, checkpoint.to_attr())
        self.discard()
        self._artifacts.append(artifact)

    def discard(self) -> None:
        """Remove the checkpoints that this trial has made or gone on from."""
        artifacts, self._artifacts = self._artifacts, []
        for artifact in artifacts:
            if self._store is not None:
                with suppress(Exception):  # Another worker may have removed it.
                    self._store.remove(artifact)


def hyperparameters_of(
    params: Mapping[str, Hyperparameter], space: TuningSpace
) -> dict[str, Hyperparameter]:
    """The parameters of a trial that are not of the tuning space, by name."""
    own = {parameter.name for parameter in space.parameters}
    return {name: value for name, value in params.items() if name not in own}


def _unfinished(study: optuna.Study, name: str) -> list[TrialView]:
    """The failed trials with a checkpoint of a training, that with most steps first.

    Without those with whose training another trial goes on, or went on to its end.
    """
    views = list(map(TrialView, study.get_trials(deepcopy=False)))
    taken = {view.resumed for view in views if view.state != TrialState.FAIL}
    found = [
        (-checkpoint.step, view.number, view)
        for view in views
        if view.state == TrialState.FAIL
        and view.number not in taken
        and (checkpoint := view.checkpoint) is not None
        and checkpoint.training == name
    ]
    return [view for _, _, view in sorted(found, key=lambda each: each[:2])]
