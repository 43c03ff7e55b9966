"""Sessions of ONNX Runtime whose threads do not spin, which takes longer than to make them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
import sys
from types import ModuleType
from typing import Any


_MODULE = "onnxruntime.capi.onnxruntime_inference_collection"
_ENTRY = "session.intra_op.allow_spinning"


def sessions_do_not_spin() -> None:
    """Have no session in this process spin, unless its options say so.

    The threads of a new session wait for work in a loop for milliseconds, several times as long as
    it takes to make the session. Nothing that is computed depends on it. ONNX Runtime is not
    imported for it.
    """
    if _MODULE in sys.modules:
        _patch(sys.modules[_MODULE])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Changes the module as soon as it has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_patch(module: ModuleType) -> None:
            execute(module)
            _patch(module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def _patch(module: ModuleType) -> None:
    make = module.InferenceSession.__init__
    if hasattr(make, "does_not_spin"):
        return

    def make_without_spinning(
        self: Any, path_or_bytes: Any, sess_options: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        options = module.C.SessionOptions() if sess_options is None else sess_options
        try:
            options.get_session_config_entry(_ENTRY)
        except RuntimeError:
            options.add_session_config_entry(_ENTRY, "0")
        make(self, path_or_bytes, options, *args, **kwargs)

    make_without_spinning.does_not_spin = True  # type: ignore[attr-defined]
    module.InferenceSession.__init__ = make_without_spinning
