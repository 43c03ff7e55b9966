"""A candidate: a model that a backend has built."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from functools import wraps
import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING
from typing import Any
from typing import cast
from typing import overload

import onnx
import onnxruntime

from optuna_quant.backends.onnxruntime.model.batch_dependence import quantizes_at_run_time
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import compacted
from optuna_quant.backends.onnxruntime.model.external_data import external_bytes
from optuna_quant.backends.onnxruntime.model.external_data import save_model
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.model.session_maker import load_errors
from optuna_quant.backends.onnxruntime.model.session_model import SessionModel


if TYPE_CHECKING:
    from optuna_quant.backends.base import NativeModel
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.data.inputs import InputSpec


class QuantizedModel:
    """A model as one configuration says: a :class:`~optuna_quant.backends.base.Model`.

    What was written for an :class:`onnxruntime.InferenceSession` takes its :attr:`session`.

    Args:
        model:
            The model. Must not be changed.
        sessions:
            Makes its session.
        base_dir:
            The directory that its external data are relative to; None if it has none.
        fingerprint:
            Its content hash.
        session:
            Its session for one run at a time, if it is made already; kept if it is the first one
            asked for.

    Example:
        >>> model = backend.quantize(space.default())  # doctest: +SKIP
        >>> (logits,) = model.run({"x": x})  # doctest: +SKIP
        >>> model.save("model.int8.onnx")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: onnx.ModelProto | CompactModel,
        sessions: SessionMaker,
        *,
        base_dir: Path | None = None,
        fingerprint: str,
        session: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self._model = model if isinstance(model, CompactModel) else compacted(model)
        self.fingerprint = fingerprint
        self._base_dir = base_dir
        self._sessions = sessions
        self._lock = RLock()
        self._made: dict[int, onnxruntime.InferenceSession] = {}
        self._spare = session

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The model as a message. Must not be changed."""
        return self._model.whole()

    @property
    def compact(self) -> CompactModel:
        """The model without the data of its large initializers. Must not be changed."""
        return self._model

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The session, made when it is first asked for."""
        return self.session_for(1)

    def session_for(self, concurrent_runs: int) -> onnxruntime.InferenceSession:
        """A session that is run several times at once, made when it is first asked for.

        Args:
            concurrent_runs:
                How often. Without session options of the user's the runs share the cores.

        Raises:
            ModelLoadError:
                If the runtime does not load the model.
        """
        with self._lock:
            spare, self._spare = self._spare, None
            if spare is not None and concurrent_runs == 1:
                self._made[1] = spare
            if concurrent_runs not in self._made:
                with load_errors():
                    self._made[concurrent_runs] = self._sessions.make(
                        self._model, self._base_dir, concurrent_runs=concurrent_runs
                    )
            return self._made[concurrent_runs]

    def native(self) -> NativeModel:
        """What a function of the user's gets: the :attr:`session`, or what stands for it.

        For a model that was exported from a PyTorch module that is called as the module is.
        """
        return self._sessions.presented(self.session)

    @contextmanager
    def showing_inputs(self, watch: Callable[[Feed], None]) -> Iterator[None]:
        """Show what the method ``run`` of the session is called with, while it lasts.

        Args:
            watch:
                Called with the feed of each call.
        """
        session: Any = self.session
        run = session.run

        @wraps(run)
        def shown(*args: Any, **kwargs: Any) -> Any:
            feed = args[1] if len(args) > 1 else kwargs.get("input_feed")
            if isinstance(feed, Mapping):  # Otherwise ONNX Runtime says what is wrong.
                watch(feed)
            return run(*args, **kwargs)

        session.run = shown
        try:
            yield
        finally:
            del session.run

    def for_concurrent_runs(self, runs: int) -> SessionModel:
        """The model in the session that :meth:`session_for` gives.

        Args:
            runs:
                How often it is run at once.
        """
        return SessionModel(self.session_for(runs))

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The inputs that every run must be given."""
        return SessionModel(self.session).inputs

    @property
    def optional_inputs(self) -> tuple[InputSpec, ...]:
        """The inputs that have a value in the model, which a run may replace."""
        return SessionModel(self.session).optional_inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return SessionModel(self.session).outputs

    @property
    def threads(self) -> int:
        """The threads of a run."""
        return SessionModel(self.session).threads

    @cached_property
    def depends_on_batch(self) -> bool:
        """Whether what it gives for a sample depends on the other samples of the batch."""
        return quantizes_at_run_time(self._model.proto)

    @property
    def nbytes(self) -> int:
        """The size of the model in bytes, external data included."""
        return self._model.nbytes + external_bytes(self._model.proto, self._base_dir)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file.

        A model over 2 GB, the most that one file holds, gets its data in a second file beside it,
        which is named after the first one and its content, and ends in ``.data``.

        Args:
            path:
                The file. It is replaced as a whole, or left as it was if writing fails.
        """
        save_model(self.proto, Path(path), self._base_dir)

    @overload
    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[Any]: ...

    @overload
    def run(self, feed: Sequence[str] | None, outputs: Mapping[str, Any]) -> list[Any]: ...

    def run(
        self,
        feed: Feed | Sequence[str] | None,
        outputs: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Compute outputs.

        The order of ``onnxruntime.InferenceSession.run``, outputs first, is understood as well.

        Args:
            feed:
                An array for each input, by the input's name.
            outputs:
                The names of the outputs; None for all.

        Returns:
            A list with an array for each output.

        Raises:
            TypeError:
                If there is no feed.
        """
        if isinstance(outputs, Mapping):
            feed, outputs = outputs, cast("Sequence[str] | None", feed)
        return SessionModel(self.session).run(cast("Mapping[str, Any]", feed), outputs)

    def __repr__(self) -> str:
        return f"QuantizedModel(fingerprint={self.fingerprint!r}, nbytes={self.nbytes})"
