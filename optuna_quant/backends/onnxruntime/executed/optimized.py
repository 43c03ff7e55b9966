"""The graph that ONNX Runtime makes of a model before it runs it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import onnx

from optuna_quant.backends.onnxruntime.model.content import config_entry


if TYPE_CHECKING:
    import onnxruntime


Providers: TypeAlias = "Sequence[str | tuple[str, dict[str, Any]]]"

_SHOW_PROVIDERS = "session.record_ep_graph_assignment_info"
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"
_WEIGHTS_FROM = "session.optimized_model_external_initializers_min_size_in_bytes"
_LARGE_BYTES = 1 << 29
"""Optimized models over this are written with their weights in another file."""

_ERRORS_ONLY = 3
"""The log level at which the runtime does not warn that the graph fits this machine only."""


@dataclass(frozen=True, eq=False)
class OptimizedModel:
    """What the runtime runs.

    Args:
        graph:
            The optimized graph, without the data of large initializers; :obj:`None` if the runtime
            cannot show it, which is so if a provider compiles parts of it.
        providers:
            The execution provider of each node that was given to one, by the name that the node
            had before the last optimizations. Empty if the runtime does not tell.
        sole_provider:
            The provider of all nodes, if the session has only one.
    """

    graph: onnx.GraphProto | None
    providers: Mapping[str, str]
    sole_provider: str | None


def optimize(
    model: bytes | str,
    *,
    size: int,
    providers: Providers,
    session_options: onnxruntime.SessionOptions | None = None,
    external_data_dir: str | os.PathLike[str] | None = None,
) -> OptimizedModel:
    """Create a session and read the graph that it runs.

    Args:
        model:
            The model as bytes, or its path.
        size:
            About how many bytes its weights have.
        providers:
            The execution providers.
        session_options:
            The options. They are changed while this runs, and restored; with several providers
            the runtime is told to keep which one runs which node.
        external_data_dir:
            The directory that external data are relative to, for a model as bytes.

    Raises:
        Exception:
            Whatever the runtime raises if it cannot load the model.
    """
    import onnxruntime

    options = session_options
    if options is None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
    several = len(providers) > 1
    entries = weights_aside(size)
    if several:
        entries[_SHOW_PROVIDERS] = "1"
    if external_data_dir is not None:
        entries[_EXTERNAL_FOLDER] = str(Path(external_data_dir).resolve())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "optimized.onnx"
        with changed_options(options, entries, str(path)):
            try:
                session = onnxruntime.InferenceSession(model, options, providers=list(providers))
            except Exception:
                # Either the model cannot be loaded, or its graph cannot be written.
                options.optimized_model_filepath = ""
                session = onnxruntime.InferenceSession(model, options, providers=list(providers))
        # On a machine without the first provider the runtime goes on without it.
        names = session.get_providers()
        graph = onnx.load(path, load_external_data=False).graph if path.exists() else None
        return OptimizedModel(
            graph,
            _assigned(session) if several else {},
            names[0] if len(names) == 1 else None,
        )


def weights_aside(size: int) -> dict[str, str]:
    """The configuration entries with which an optimized model of a size can be written."""
    if size <= _LARGE_BYTES:
        return {}
    return {_WEIGHTS_FILE: "weights.bin", _WEIGHTS_FROM: "1024"}


@contextmanager
def changed_options(
    options: onnxruntime.SessionOptions,
    entries: Mapping[str, str],
    path: str,
    *,
    profile: str | None = None,
) -> Iterator[None]:
    """Change session options while a session is made, and restore them.

    Args:
        options:
            The options.
        entries:
            Configuration entries to add.
        path:
            Where the optimized graph is to be written.
        profile:
            What the names of the profile's files begin with; None for no profile.
    """
    # The runtime warns when an entry is overwritten, even with the same value.
    before = {key: config_entry(options, key) for key in entries}
    changes = {key: value for key, value in entries.items() if before[key] != value}
    written, level = options.optimized_model_filepath, options.log_severity_level
    profiling, prefix = options.enable_profiling, options.profile_file_prefix
    try:
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        options.optimized_model_filepath = path
        options.log_severity_level = max(level, _ERRORS_ONLY)
        for key, value in changes.items():
            options.add_session_config_entry(key, value)
        yield
    finally:
        options.optimized_model_filepath, options.log_severity_level = written, level
        options.enable_profiling, options.profile_file_prefix = profiling, prefix
        for key in changes.keys() - {_SHOW_PROVIDERS, _WEIGHTS_FROM}:
            options.add_session_config_entry(key, before[key])


def _assigned(session: onnxruntime.InferenceSession) -> dict[str, str]:
    # Newer versions of the runtime only, and only if it kept that.
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return {}
    try:
        return {node.name: part.ep_name for part in ask() for node in part.get_nodes()}
    except Exception:
        return {}
