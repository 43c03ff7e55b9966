"""Write what is known of the model of a running trial, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.base import depends_on_batch
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.storages.write_buffer import unbuffered
from optuna_quant.study import record
from optuna_quant.study.trial_writer import RunningTrialWriter


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import CandidateModel
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.study.trial_view import TrialView
    from optuna_quant.study.trial_writer import TrialWriter


_logger = get_logger(__name__)


class TrialRecord:
    """Writes to one trial which model it has, and what that costs.

    Args:
        trial:
            The trial.
        config:
            The configuration that it asks for.
        costs:
            Gives what a configuration costs by measure; :obj:`None` if nothing does.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        config: QuantConfig,
        costs: Callable[[QuantConfig], Mapping[str, float]] | None,
    ) -> None:
        self._trial = trial
        self._config = config
        self._costs = costs
        self._fingerprint: str | None = None
        self._model_bytes: int | None = None

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the model; :obj:`None` if there is none yet."""
        return self._fingerprint

    def begin(self) -> None:
        """Write what is known before anything is built; others see that the trial has started."""
        with unbuffered(self._trial):
            self._trial.set_user_attr(record.FALLBACK_OPS, len(self._config.fallback_ops))
        self._write_costs()

    def describe(self, model: CandidateModel) -> None:
        """Write down which model was built, and its size."""
        with unbuffered(self._trial):
            self._write_fingerprint(model.fingerprint)
        self._write_properties(int(model.nbytes), depends_on_batch(model))

    def take_over(self, view: TrialView) -> None:
        """Write down that the model, and all that was found of it, is that of another trial."""
        self._trial.set_user_attr(record.REUSED_FROM, view.source)
        if self._fingerprint is None and view.fingerprint is not None:
            self._write_fingerprint(view.fingerprint)
        size = view.model_bytes if self._model_bytes is None else self._model_bytes
        self._write_properties(size, view.depends_on_batch)
        view.copy_scores(RunningTrialWriter(self._trial).system_attr)

    def fail(self, reason: str, *, final: bool) -> None:
        """Write down why there is no result."""
        fail(self._trial, reason, final=final)

    def _write_fingerprint(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._trial.set_user_attr(record.FINGERPRINT, fingerprint)

    def _write_properties(self, model_bytes: int | None, depends_on_batch: bool) -> None:
        self._model_bytes = model_bytes
        if model_bytes is not None:
            self._trial.set_user_attr(record.MODEL_BYTES, model_bytes)
        if depends_on_batch:
            self._trial.set_user_attr(record.DEPENDS_ON_BATCH, True)
        self._write_costs()

    def _write_costs(self) -> None:
        """With the real size of the model, once it was built."""
        found = {OPS: float(len(self._config.fallback_ops))}
        if self._costs is not None:
            found |= self._costs(self._config)
        if self._model_bytes is not None:
            found[SIZE] = float(self._model_bytes)
        self._trial.set_user_attr(record.COSTS, found)


def fail(trial: optuna.Trial, reason: str, *, final: bool) -> None:
    """Write down why a trial has no result, and say so.

    Args:
        trial:
            The trial.
        reason:
            Why.
        final:
            Whether evaluating its configuration again would fail in the same way.
    """
    # The progress line of a failed trial says the same.
    _logger.warning(f"Trial {trial.number} failed. {reason}", extra={"in_progress_line": True})
    write_failure(RunningTrialWriter(trial), reason, final=final)


def write_failure(writer: TrialWriter, reason: str, *, final: bool) -> None:
    """Write down why a trial has no result.

    Args:
        writer:
            Writes to the trial.
        reason:
            Why.
        final:
            Whether evaluating its configuration again would fail in the same way.
    """
    writer.user_attr(record.FAILURE, reason)
    if final:
        writer.user_attr(record.FAILURE_IS_FINAL, True)
