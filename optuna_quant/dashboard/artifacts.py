"""Upload what each op of the best trial was asked to run and why, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
import re
import tempfile
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.dashboard.study_files import StudyFiles
from optuna_quant.dashboard.trial_words import precision
from optuna_quant.space.config import FP32
from optuna_quant.tuning.op_reasons import OpReasons
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


TABLE = re.compile(r"trial_\d+_ops\.csv")
"""The names of the tables."""

_OF_THE_RECORD = ["op", "op_type", "mode", "activation", "weight"]


def upload_table(
    study: optuna.Study,
    best: Candidate,
    space: TuningSpace,
    store: ArtifactStore,
    *,
    backend: Backend | None,
) -> None:
    """Upload the table of a trial's ops among the files of the study; once for each trial.

    A file that the store has lost is written again, under the name by which the study knows it.

    Args:
        study:
            The study, which refers to the file.
        best:
            The trial.
        space:
            The tuning space.
        store:
            Where the file goes.
        backend:
            Knows what the runtime executes; None to leave that out.
    """
    files = StudyFiles(study, store)
    number, config = best.trial.number, space.config_from_params(best.view.known_params)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"trial_{number}_ops.csv"
        if files.has(table.name):
            return
        op_types = {op: t.op_type for t in space.tunables for op in t.ops}
        executed: Mapping[str, Any] = {} if backend is None else backend.executed(config)
        frame = asked_report(config, op_types, executed)
        frame = frame if executed else frame[_OF_THE_RECORD]
        why = _reasons(study, number, backend)
        _to_be_read(frame, config, why).to_csv(table, index=False)
        files.upload(table, "text/csv")


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
