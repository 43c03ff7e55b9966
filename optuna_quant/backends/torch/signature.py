"""What every configuration of a backend depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.samples import Samples
    from optuna_quant.backends.torch.qat.training import Training


def signature(
    *,
    model: str,
    samples: Samples,
    approach: str,
    training: Training | None,
    reduce_range: bool,
    saturates: bool,
) -> dict[str, str]:
    """What the models of a backend depend on, part by part.

    All calibration data that are used are read for it.

    Args:
        model:
            The content hash of the program.
        samples:
            The calibration data, which do not matter in dynamic quantization.
        approach:
            The approach.
        training:
            How models are trained; None without ``train``.
        reduce_range:
            Whether 8-bit weights that meet 8-bit activations use 7 bits.
        saturates:
            Whether sums of 8-bit products saturate.
    """
    options: dict[str, object] = {"runtime": "PyTorch", "approach": approach}
    if training is not None:
        options["training"] = training.digest
    if reduce_range:
        options["reduce_range"] = True
    data = "none"
    if samples.calibration is not None and approach != "dynamic":
        options["calibration_sizes"] = list(samples.sizes) or None
        data = samples.fingerprint
    return {
        "model": model,
        "calibration data": data,
        "options": ", ".join(f"{name}={value!r}" for name, value in options.items()),
        "arithmetic": "saturating" if saturates else "exact",
    }
