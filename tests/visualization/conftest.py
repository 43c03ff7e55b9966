"""The study that the tests of what plots show have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import plotted_studies
import pytest


@pytest.fixture(scope="module", params=["memory", "rdb"])
def study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[optuna.Study]:
    """The study of three ops that :func:`plotted_studies.searched` describes."""
    if request.param == "memory":
        yield plotted_studies.searched()
        return
    path: Path = tmp_path_factory.mktemp("study") / "study.db"
    plotted_studies.searched(storage=f"sqlite:///{path}")
    yield optuna.load_study(study_name="hand-made", storage=f"sqlite:///{path}")
