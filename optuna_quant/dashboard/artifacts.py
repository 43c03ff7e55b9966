"""Upload the best trial of a study: what each op was asked to run and why, and the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
import json
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING
from typing import Any

from optuna.artifacts import upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.logging import get_logger

from optuna_quant._optuna import study_system_attrs
from optuna_quant.dashboard.trial_words import precision
from optuna_quant.evaluation.rebuild import built
from optuna_quant.space.config import FP32
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.tuning.op_reasons import OpReasons
from optuna_quant.tuning.output import endings_of
from optuna_quant.tuning.recorded_outcome import recorded_outcome
from optuna_quant.tuning.table import asked_report


if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from optuna_quant.backends.base import Backend
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


_logger = get_logger(__name__)

_OF_THE_RECORD = ["op", "op_type", "mode", "activation", "weight"]
_PREFIX = "artifacts:"
"""The attributes of a study in which Optuna keeps what it knows of its files."""


def upload_answer(
    study: optuna.Study,
    best: Candidate,
    space: TuningSpace,
    store: ArtifactStore,
    *,
    backend: Backend | None,
    max_model_bytes: int,
) -> None:
    """Upload the table of a trial's ops, and its model; once for each trial.

    A file that the store has lost is written again, under the name by which the study knows it.

    Args:
        study:
            The study, which refers to the files.
        best:
            The trial.
        space:
            The tuning space.
        store:
            Where the files go.
        backend:
            Builds the model; None to leave it out, and what the runtime executes.
        max_model_bytes:
            The largest model that is uploaded.
    """
    files = _Files(study, store)
    number, config = best.trial.number, space.config_from_params(best.view.known_params)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"trial_{number}_ops.csv"
        if not files.has(table.name):
            op_types = {op: t.op_type for t in space.tunables for op in t.ops}
            executed: Mapping[str, Any] = {} if backend is None else backend.executed(config)
            frame = asked_report(config, op_types, executed)
            frame = frame if executed else frame[_OF_THE_RECORD]
            why = _reasons(study, number, backend)
            _to_be_read(frame, config, why).to_csv(table, index=False)
            files.upload(table, "text/csv")
        if backend is None:
            return
        ending = next(iter(endings_of(backend)), ".onnx")
        model = Path(folder) / f"trial_{number}{ending}"
        if files.has(model.name):
            return
        model_of_trial = built(config, best.view.known_params, backend, space)
        if model_of_trial.nbytes > max_model_bytes:
            _logger.info(
                f"The model of trial {number} is not uploaded: it has "
                f"{shown_bytes(model_of_trial.nbytes)}, more than max_model_bytes."
            )
            return
        model_of_trial.save(model)
        files.upload(model, "application/octet-stream")


def _reasons(study: optuna.Study, number: int, backend: Backend | None) -> dict[str, str]:
    """Why each op of the answer runs as it does, also those that were left out of the search.

    Empty if the record does not tell, or has another trial for its answer.
    """
    try:
        result = recorded_outcome(study)
    except ValueError:
        return {}
    config = result.config
    if result.trial is None or result.trial.number != number or config is None:
        return {}
    if backend is not None:
        result = replace(result, backend=backend)
    reasons = OpReasons(result)
    return {op: reasons.of(op) for op in [*config.ops, *result.left_out]}


def _to_be_read(frame: pd.DataFrame, config: QuantConfig, why: Mapping[str, str]) -> pd.DataFrame:
    """The table for people: what an op computes in and why beside its name, floats first.

    The dashboard shows ten rows at a time, and of a wide table the first columns.
    """
    import pandas as pd

    first = ["op", "precision", "why"] if why else ["op", "precision"]
    columns = [*first, *frame.columns.drop("op")]
    left_out = [op for op in why if op not in config.ops]
    frame = pd.concat([frame, pd.DataFrame({"op": left_out, "mode": "fp32"})], ignore_index=True)
    options = [config.ops.get(op, FP32) for op in frame["op"]]
    shown = frame.assign(
        precision=[precision(option) for option in options],
        why=[why.get(op, "") for op in frame["op"]],
    )
    floats_first = sorted(range(len(shown)), key=lambda row: options[row].is_quantized)
    return shown[columns].iloc[floats_first]


@dataclass(frozen=True)
class _Files:
    """The files of a study.

    Args:
        study:
            The study, which knows each file by an identifier.
        store:
            Where they are.
    """

    study: optuna.Study
    store: ArtifactStore

    @cached_property
    def _known(self) -> Mapping[str, str]:
        """The identifier of each file by its name. A dashboard leaves null of a deleted one."""
        attrs = study_system_attrs(self.study)
        found = [json.loads(attrs[key]) for key in attrs if key.startswith(_PREFIX)]
        return {each["filename"]: each["artifact_id"] for each in found if each is not None}

    def has(self, name: str) -> bool:
        """Whether the study knows a file of this name, and the store still has it."""
        if name not in self._known:
            return False
        try:
            self.store.open_reader(self._known[name]).close()
        except ArtifactNotFound:
            return False
        return True

    def upload(self, path: Path, kind: str) -> None:
        """Put a file into the store, in the place of a lost one if the study knows its name."""
        if path.name in self._known:
            with path.open("rb") as file:
                self.store.write(self._known[path.name], file)
            return
        upload_artifact(
            artifact_store=self.store,
            file_path=str(path),
            study_or_trial=self.study,
            mimetype=kind,
        )
