"""Sessions of a model, all with the same providers and options."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import onnx
import onnxruntime

from optuna_quant.backends.base import ModelLoadError
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import SharedArrays
from optuna_quant.backends.onnxruntime.model.compact import can_share
from optuna_quant.backends.onnxruntime.model.content import config_entry
from optuna_quant.backends.onnxruntime.model.external_data import is_too_large
from optuna_quant.backends.onnxruntime.model.tensor_references import Source
from optuna_quant.workers.cores import available_cores


if TYPE_CHECKING:
    from optuna_quant.backends.base import NativeModel


Providers: TypeAlias = Sequence[str | tuple[str, dict[str, Any]]]

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class SessionMaker:
    """Makes sessions with the user's providers and options.

    Args:
        providers:
            The execution providers.
        options:
            The session options; None for the defaults.
        entries:
            Configuration entries of all sessions of the model and its candidates, added to the
            options wherever these are used.
        as_run:
            Gives the model that runs in the place of another one; None if that runs itself.
        present:
            Gives what a function of the user's gets for a session; None for the session.

    Attributes:
        level:
            How far graphs are optimized; None for what the options say.
        lock:
            Held while ``options`` are in use; hold it to change them for a while.
        arrays:
            Gives sessions the initializers that models share.
    """

    def __init__(
        self,
        providers: Providers,
        options: onnxruntime.SessionOptions | None,
        *,
        entries: Mapping[str, str] = MappingProxyType({}),
        as_run: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
        present: Callable[[onnxruntime.InferenceSession], NativeModel] | None = None,
    ) -> None:
        self.providers = tuple(providers)
        self.options = options
        self.entries = entries
        self._as_run = as_run
        self._present = present
        self.level: onnxruntime.GraphOptimizationLevel | None = None
        self.lock = RLock()
        self.arrays = SharedArrays()

    def at_level(self, level: onnxruntime.GraphOptimizationLevel) -> SessionMaker:
        """The same for sessions whose graphs are optimized so far, whatever the options say."""
        other = copy(self)
        other.level = level
        return other

    def presented(self, session: onnxruntime.InferenceSession) -> NativeModel:
        """What a function of the user's gets for a session."""
        return session if self._present is None else self._present(session)

    @property
    def usual_level(self) -> onnxruntime.GraphOptimizationLevel:
        """How far the options say that graphs are optimized."""
        options = onnxruntime.SessionOptions() if self.options is None else self.options
        return options.graph_optimization_level

    def options_with_entries(self) -> onnxruntime.SessionOptions:
        """The user's options, or new ones, with the entries: what every session is made with.

        :attr:`lock` must be held while they are in use.
        """
        options = onnxruntime.SessionOptions() if self.options is None else self.options
        _add_entries(options, self.entries)
        return options

    @contextmanager
    def options_at_level(self) -> Iterator[onnxruntime.SessionOptions | None]:
        """The options for a session that somebody else makes meanwhile; None for the defaults.

        :attr:`lock` must be held.
        """
        if self.level is None:
            is_default = self.options is None and not self.entries
            yield None if is_default else self.options_with_entries()
            return
        options = self.options_with_entries()
        usual = options.graph_optimization_level
        try:
            options.graph_optimization_level = self.level
            yield options
        finally:
            options.graph_optimization_level = usual

    def make(
        self,
        model: onnx.ModelProto | CompactModel,
        base_dir: Path | None = None,
        *,
        concurrent_runs: int = 1,
        level: onnxruntime.GraphOptimizationLevel | None = None,
    ) -> onnxruntime.InferenceSession:
        """A session of a model.

        That of a compact one reads the arrays outside it, which no copy is made of, where the
        options are not the user's (theirs cannot be given arrays for one session only) and the
        only provider is that of the CPU.

        Args:
            model:
                The model.
            base_dir:
                The directory that its external data are relative to.
            concurrent_runs:
                How many runs are made at the same time. Without options of the user's the session
                has so many threads that these take all cores.
            level:
                How far the graph is optimized, if not as is usual here; then the runtime's own log
                is off.

        Raises:
            ValueError:
                If the model is over 2 GB.
        """
        outside: Mapping[str, Source] = {}
        if isinstance(model, CompactModel):
            if can_share(self.providers, self.options):
                model, outside = model.proto, model.outside
            else:
                model = model.whole()
        if self._as_run is not None:
            model = self._as_run(model)
        # What is left of a compact model is small.
        if not outside and is_too_large(model):
            raise ValueError(
                "The model is over 2 GB, which a session takes only from files: save the original "
                "with external data (onnx.save with save_as_external_data=True) and pass its path."
            )
        content = model.SerializeToString()
        values = [self.arrays.value(source) for source in outside.values()]
        with self.lock:
            options = self.options_for(base_dir, concurrent_runs)
            if values:
                options.add_external_initializers(list(outside), values)
            usual = options.graph_optimization_level, options.log_severity_level
            try:
                if self.level is not None:
                    options.graph_optimization_level = self.level
                if level is not None:
                    options.graph_optimization_level, options.log_severity_level = level, 4
                session = onnxruntime.InferenceSession(
                    content, options, providers=list(self.providers)
                )
            finally:
                options.graph_optimization_level, options.log_severity_level = usual
        # It reads their memory, so they live as long as it does.
        session._optuna_quant_initializers = values
        return session

    @cached_property
    def _cores(self) -> int:
        return available_cores()

    def options_for(
        self, base_dir: Path | None, concurrent_runs: int = 1
    ) -> onnxruntime.SessionOptions:
        """The options of a session; :attr:`lock` must be held while they are in use.

        Args:
            base_dir:
                The directory that the model's external data are relative to.
            concurrent_runs:
                How many runs are made at the same time.
        """
        options = self.options_with_entries()
        if self.options is None and self.level is not None:
            options.graph_optimization_level = self.level
        if self.options is None and concurrent_runs > 1:
            # A session's own threads are one fewer, and help every run beside its caller.
            options.intra_op_num_threads = max(1, self._cores - concurrent_runs + 1)
        if base_dir is not None:
            _add_entries(options, {_EXTERNAL_FOLDER: str(base_dir)})
        return options


def _add_entries(options: onnxruntime.SessionOptions, entries: Mapping[str, str]) -> None:
    for name, value in entries.items():
        # The runtime warns when an entry is overwritten, even with the same value.
        if config_entry(options, name) != value:
            options.add_session_config_entry(name, value)


@contextmanager
def load_errors() -> Iterator[None]:
    """Raise what the runtime says of a candidate that it does not load as what it is.

    Raises:
        ModelLoadError:
            In place of any other exception.
    """
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"ONNX Runtime does not load the candidate: {str(error).rstrip('.')}. Leave the ops "
            "that it names, or those around them, in FP32 (op_name_dict); if the model has an "
            "opset before 13, export it again with a newer one."
        ) from error
