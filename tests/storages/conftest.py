"""A study in each kind of storage, for tests of what is written into it."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from storages.written_studies import KINDS
from storages.written_studies import Shared
from storages.written_studies import new_study
from storages.written_studies import open_shared


@pytest.fixture(scope="module", params=KINDS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared | None]:
    """A storage that is opened once for a module."""
    with open_shared(request.param, tmp_path_factory.mktemp("shared")) as shared:
        yield shared


@pytest.fixture
def study(shared: Shared | None) -> optuna.Study:
    """A study of its own for each test."""
    return new_study(shared)
