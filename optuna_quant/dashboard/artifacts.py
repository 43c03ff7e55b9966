"""Upload the best trial of a study: what each op was asked to run, and the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING
from typing import Any

from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts import upload_artifact
from optuna.logging import get_logger

from optuna_quant.dashboard.trial_words import precision
from optuna_quant.evaluation.rebuild import built
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.tuning.output import endings_of
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
    names = {meta.filename for meta in get_all_artifact_meta(study)}
    number, config = best.trial.number, space.config_from_params(best.view.known_params)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"trial_{number}_ops.csv"
        if table.name not in names:
            op_types = {op: t.op_type for t in space.tunables for op in t.ops}
            executed: Mapping[str, Any] = {} if backend is None else backend.executed(config)
            frame = asked_report(config, op_types, executed)
            frame = frame if executed else frame[_OF_THE_RECORD]
            _to_be_read(frame, config).to_csv(table, index=False)
            _upload(study, store, table, "text/csv")
        if backend is None:
            return
        ending = next(iter(endings_of(backend)), ".onnx")
        model = Path(folder) / f"trial_{number}{ending}"
        if model.name in names:
            return
        model_of_trial = built(config, best.view.known_params, backend, space)
        if model_of_trial.nbytes > max_model_bytes:
            _logger.info(
                f"The model of trial {number} is not uploaded: it has "
                f"{shown_bytes(model_of_trial.nbytes)}, more than max_model_bytes."
            )
            return
        model_of_trial.save(model)
        _upload(study, store, model, "application/octet-stream")


def _to_be_read(frame: pd.DataFrame, config: QuantConfig) -> pd.DataFrame:
    """The table for people: what an op computes in beside its name, those in floats first.

    The dashboard shows ten rows at a time, and of a wide table the first columns.
    """
    shown = frame.assign(precision=[precision(config.ops[op]) for op in frame["op"]])
    columns = ["op", "precision", *frame.columns.drop("op")]
    floats_first = sorted(
        range(len(shown)), key=lambda row: config.ops[shown["op"][row]].is_quantized
    )
    return shown[columns].iloc[floats_first]


def _upload(study: optuna.Study, store: ArtifactStore, path: Path, kind: str) -> None:
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study, mimetype=kind)
