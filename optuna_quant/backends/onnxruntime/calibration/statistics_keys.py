"""The keys that calibration statistics are kept under."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.content import model_fingerprint


if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterable
    from collections.abc import Sequence
    import os
    from typing import Any

    import onnx

    from optuna_quant.backends.calibration.channel_means import Place
    from optuna_quant.backends.calibration.data import CalibrationData

    Providers = Sequence[str | tuple[str, dict[str, Any]]]


DEFAULT_PROVIDERS = ("CPUExecutionProvider",)

# Part of every cache key: raise it when the statistics or their file format change.
_FORMAT_VERSION = 2


def statistics_keys(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    data: CalibrationData,
    sizes: Iterable[int],
    *,
    means: Collection[Place] = (),
    base_dir: str | os.PathLike[str] | None = None,
    providers: Providers = DEFAULT_PROVIDERS,
) -> dict[int, str]:
    """For each sampling size a hash of all that the statistics come from; reads the data once.

    For the arguments see :func:`collect_statistics`.
    """
    names = [name if isinstance(name, str) else name[0] for name in providers]
    shared = [_FORMAT_VERSION, model_fingerprint(model, base_dir), sorted(tensors), names]
    if means:
        shared.append(sorted(means))
    return {
        size: hashlib.sha256(json.dumps([*shared, size, content]).encode()).hexdigest()
        for size, content in data.fingerprints(sizes).items()
    }
