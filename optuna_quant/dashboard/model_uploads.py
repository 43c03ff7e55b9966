"""Keep the models of a study's front among its artifacts, while it is searched and at its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import threading
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.dashboard.careful import carefully
from optuna_quant.dashboard.deployable import Deployable
from optuna_quant.dashboard.time_share import TimeShare
from optuna_quant.dashboard.trial_models import TrialModels
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.tuning.output import endings_of
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.dashboard.deployable import ModelLimits
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


_logger = get_logger(__name__)

SHARE = 0.005
"""What part of a search's time uploads may take."""

MOST_HELD_BYTES = 64_000_000
"""The models that wait for their upload have no more bytes than this in all."""


class ModelUploads:
    """Uploads the models of a study's front, and removes those that are on it no more.

    Models come from trials that have just built them. What would take too much of the time at
    the moment is held, as long as it is on the front, up to :data:`MOST_HELD_BYTES`, and is
    uploaded later; at the end, what is missing is built again.

    Args:
        study:
            The study.
        store:
            Where the models go.
        limits:
            How large they may be.
        backend:
            Builds what is missing at the end; None to leave it out.
        share:
            What part of the time uploads may take before the end.
    """

    def __init__(
        self,
        study: optuna.Study,
        store: ArtifactStore,
        limits: ModelLimits,
        backend: Backend | None,
        *,
        share: float = SHARE,
    ) -> None:
        self._study = study
        self._files = TrialModels(study, store)
        self._limits = limits
        self._deployable = Deployable(study)
        self._time = TimeShare(share)
        self._backend = backend
        endings = () if backend is None else endings_of(backend)
        self._ending = next(iter(endings), ".onnx")
        self._held: dict[int, Model] = {}
        self._lock = threading.Lock()

    def offer(self, number: int, model: Model) -> None:
        """Hold the model of a trial that meets the criterion and still runs.

        Args:
            number:
                The trial's number.
            model:
                Its model.
        """
        held = sum(each.nbytes for each in list(self._held.values()))
        if model.nbytes <= min(self._limits.each, MOST_HELD_BYTES - held):
            self._held[number] = model

    def upload_held(self) -> None:
        """Upload what is held, as far as it is on the front and there is time for it."""
        held = list(self._held.values())
        is_full = sum(model.nbytes for model in held) > MOST_HELD_BYTES / 2
        if not is_full and not any(self._time.allows(model.nbytes) for model in held):
            return
        # Another thread that is at it leaves what it does not see to the next trial.
        if self._lock.acquire(blocking=False):
            try:
                with self._time.spending():
                    self._upload_held()
            finally:
                self._lock.release()

    def _upload_held(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        chosen = self._limits.within(self._deployable.front(trials))
        numbers = {each.trial.number for each in chosen}
        for number in list(self._held):
            if trials[number].state.is_finished() and number not in numbers:
                del self._held[number]
        is_changed = False
        for each in chosen:
            number = each.trial.number
            model = self._held.get(number)
            if model is not None and self._time.allows(model.nbytes):
                del self._held[number]
                with self._time.upload(model.nbytes):
                    is_changed |= self._put(each.trial, partial(_as_it_is, model))
        if is_changed:
            self._remove_others(chosen, trials)

    def complete(
        self,
        space: TuningSpace | None,
        *,
        best: Candidate | None,
        refuted: Candidate | None = None,
    ) -> None:
        """Upload all models of the front, and remove all others; at the end of a search.

        Args:
            space:
                The tuning space, of which the missing ones are.
            best:
                The answer, if there is one.
            refuted:
                A trial that is none because its second evaluation has missed the criterion.
        """
        trials = self._study.get_trials(deepcopy=False)
        found = self._deployable.front(trials)
        if best is not None:
            found = [best, *(each for each in found if each.trial.number != best.trial.number)]
        if refuted is not None:
            found = [each for each in found if each.trial.number != refuted.trial.number]
        with self._lock:
            chosen = self._limits.within(found)
            self._tell_left_out(found, chosen)
            for each in chosen:
                if not self._has(each.trial):
                    build = self._source(each, space, is_best=each is best)
                    if build is not None:
                        self._put(each.trial, build)
            self._remove_others(chosen, trials)
            self._held.clear()

    def _source(
        self, each: Candidate, space: TuningSpace | None, *, is_best: bool
    ) -> Callable[[], Model] | None:
        """What gives the model of a trial; None if that is not worth it, or nothing does."""
        held = self._held.get(each.trial.number)
        if held is not None:
            return partial(_as_it_is, held)
        backend = self._backend
        if backend is None or space is None or not this_rank().is_leader:
            return None
        config = space.config_from_params(each.trial.params)
        if isinstance(backend, TrainsCandidates) and not is_best and backend.trains(config):
            _logger.info(
                f"The model of trial {each.trial.number} is not uploaded: it might have to be "
                "trained again. `optuna_quant.export` gives it."
            )
            return None
        return partial(rebuild, each.trial, backend=backend, space=space)

    def _has(self, trial: FrozenTrial) -> bool:
        return carefully(f"Trial {trial.number}", lambda: self._files.has(trial)) is True

    def _put(self, trial: FrozenTrial, build: Callable[[], Model]) -> bool:
        """Upload a model; whether that was possible."""

        def put() -> bool:
            self._files.put(trial, build(), ending=self._ending)
            return True

        return carefully(f"The model of trial {trial.number}", put) is True

    def _remove_others(self, chosen: Sequence[Candidate], trials: Sequence[FrozenTrial]) -> None:
        kept = {each.trial.number for each in chosen}
        for trial in carefully("The artifacts", lambda: self._files.of(trials)) or []:
            if trial.number not in kept:
                what = f"That the model of trial {trial.number} was removed"
                carefully(what, partial(self._files.remove, trial))

    def _tell_left_out(self, found: Sequence[Candidate], chosen: Sequence[Candidate]) -> None:
        left_out = [each.trial.number for each in found if each not in chosen]
        if left_out:
            which = ", ".join(map(str, left_out))
            _logger.info(
                f"The models of these trials are not uploaded, because of max_model_bytes or "
                f"max_total_bytes: {which}."
            )


def _as_it_is(model: Model) -> Model:
    return model
