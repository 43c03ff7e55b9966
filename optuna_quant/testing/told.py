"""What a backend says of its model and data, by which a study refuses others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.base import HasSignature


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace


def told(backend: Backend, space: TuningSpace) -> tuple[str, dict[str, str]]:
    """The fingerprint of FP32, and the signature."""
    signature = backend.signature() if isinstance(backend, HasSignature) else {}
    return backend.fingerprint(space.fp32()), dict(signature)
