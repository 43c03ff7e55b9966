"""What libraries would read again each time, and what stays the same while tests run."""

from __future__ import annotations

from collections.abc import Callable
import functools
import os
from pathlib import Path
import sys
import typing
from typing import Any

import alembic.config
import alembic.script
import optuna
import optuna.storages

from optuna_quant.samplers import _registry


def keep_what_stays_the_same() -> None:
    """Read the revisions of Optuna's tables and what packages announce once per process.

    Otherwise every database that is opened reads the revisions, which takes most of the time.
    And ``study.trials`` are no copies, which a test that asks for them after each trial would
    make of all trials each time. No test changes them. No machine loses its power either, so no
    file need be written to a disk at once.
    """
    if hasattr(_registry.entry_points, "cache_info"):
        return
    _registry.entry_points = functools.cache(_registry.entry_points)
    os.fsync = lambda fd: None
    if sys.version_info < (3, 12):  # Later versions keep the members of a protocol themselves.
        typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
    optuna.Study.trials = property(lambda study: study.get_trials(deepcopy=False))
    read: Callable[[Any], Any] = alembic.script.ScriptDirectory.from_config
    by_place: dict[str | None, Any] = {}

    def read_once(config: Any) -> Any:
        place = config.get_main_option("script_location")
        if place not in by_place:
            by_place[place] = read(config)
        return by_place[place]

    alembic.script.ScriptDirectory.from_config = staticmethod(read_once)


def read_ahead() -> None:
    """Read the revisions now: processes that are forked have them then."""
    config = alembic.config.Config()
    place = Path(optuna.storages.__file__).parent / "_rdb" / "alembic"
    config.set_main_option("script_location", str(place))
    alembic.script.ScriptDirectory.from_config(config).get_heads()
