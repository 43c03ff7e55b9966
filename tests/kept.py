"""What libraries would read again each time, and what stays the same while tests run."""

from __future__ import annotations

from collections.abc import Callable
import copy
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


def keep_what_exports_read() -> None:
    """Read what PyTorch's operators are in ONNX once per process, if it was imported.

    Each export would read the source code of hundreds of functions, and ask several times for
    the name of each operator, most of a second for the smallest model.
    """
    registration = sys.modules.get("torch.onnx._internal.exporter._registration")
    if registration is not None and not hasattr(registration, "is_kept"):
        registration.is_kept = True
        registry = registration.ONNXRegistry
        read = functools.cache(registry.from_torchlib)

        def with_own_lists(*args: Any, **kwargs: Any) -> Any:
            found = copy.copy(read(*args, **kwargs))
            found.functions = {name: list(ways) for name, ways in found.functions.items()}
            return found

        registry.from_torchlib = staticmethod(with_own_lists)
    utils = sys.modules.get("torch._export.utils")
    if utils is not None and not hasattr(utils, "is_kept"):
        utils.is_kept = True
        name_all = utils._materialize_cpp_cia_ops
        # A library that is loaded later has a namespace of its own.
        by_spaces = functools.cache(lambda spaces: name_all())
        known = sys.modules["torch"].ops._dir
        utils._materialize_cpp_cia_ops = lambda: by_spaces(len(known))


def read_ahead() -> None:
    """Read the revisions now: processes that are forked have them then."""
    config = alembic.config.Config()
    place = Path(optuna.storages.__file__).parent / "_rdb" / "alembic"
    config.set_main_option("script_location", str(place))
    alembic.script.ScriptDirectory.from_config(config).get_heads()
