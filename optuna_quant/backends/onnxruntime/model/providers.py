"""The execution providers that the user names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.session_maker import Providers


def checked_providers(providers: Providers | None) -> Providers:
    """The execution providers; that of the CPU where the user names none.

    Raises:
        ValueError:
            If there are none, or this ONNX Runtime lacks one.
    """
    if providers is None:
        return ("CPUExecutionProvider",)
    available = onnxruntime.get_available_providers()
    for provider in providers:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise ValueError(
                f"There is no execution provider {name!r} in this ONNX Runtime; available are: "
                f"{', '.join(available)}."
            )
    if not providers:
        raise ValueError("providers must name at least one execution provider.")
    return tuple(providers)
