"""The FP32 model as it is handed out, with the session that checked it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
import weakref

from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel


if TYPE_CHECKING:
    import onnxruntime

    from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


class FP32Model:
    """Hands out the FP32 model: the same one, with its sessions, as long as somebody has it.

    Its session is given up before each fork: the session's threads would not be there.

    Args:
        model:
            The user's model.
        sessions:
            Makes its sessions.
        session:
            The session that was made to see whether it loads.
    """

    def __init__(
        self, model: OpenedModel, sessions: SessionMaker, session: onnxruntime.InferenceSession
    ) -> None:
        self._model = model
        self._sessions = sessions
        self._first_session: onnxruntime.InferenceSession | None = session
        self._kept: QuantizedModel | None = None
        self._given: weakref.ref[QuantizedModel] | None = None
        _release_before_forks(self)

    def get(self, fingerprint: str) -> QuantizedModel:
        """The model.

        Args:
            fingerprint:
                Its content hash.
        """
        model = None if self._given is None else self._given()
        if model is None:
            model = QuantizedModel(
                self._model.compact,
                self._sessions,
                base_dir=self._model.base_dir,
                fingerprint=fingerprint,
                session=self._first_session,
            )
            self._given = weakref.ref(model)
            if self._first_session is not None:
                # Until there is a candidate: what comes first asks for it several times.
                self._kept, self._first_session = model, None
        return model

    def release(self) -> None:
        """Free the memory of its sessions, unless others have them."""
        self._kept = self._first_session = None


def _release_before_forks(model: FP32Model) -> None:
    found = weakref.ref(model)

    def release() -> None:
        alive = found()
        if alive is not None:
            alive.release()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=release)
