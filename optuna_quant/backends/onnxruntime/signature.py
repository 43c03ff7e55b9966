"""What every configuration of a backend depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.weight_algorithms.quantize import ALGORITHM_VERSIONS


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.samples import Samples


def signature(
    *,
    model: str,
    samples: Samples,
    approach: str,
    reduce_range: bool,
    saturates: bool,
    target: str = "",
    float16_storage: bool = False,
    recipes_use_data: bool = False,
) -> dict[str, str]:
    """What the models of a backend depend on, part by part.

    All calibration data that are used are read for it.

    Args:
        model:
            The content hash of the user's model.
        samples:
            The calibration data, which do not matter in dynamic quantization without recipes.
        approach:
            The approach.
        reduce_range:
            Whether weights use 7 bits only.
        saturates:
            Whether sums of 8-bit products saturate.
        target:
            The target, in words; empty for the usual one.
        float16_storage:
            Whether weights that stay in floats are stored in float16.
        recipes_use_data:
            Whether a recipe that is offered uses the calibration data.
    """
    options: dict[str, object] = {"approach": approach, "reduce_range": reduce_range}
    if target:
        options["target"] = target
    if float16_storage:
        options["float16_storage"] = True
    data = "none"
    if samples.calibration is not None and (approach != "dynamic" or recipes_use_data):
        options["calibration_sizes"] = list(samples.sizes) or None
        data = samples.fingerprint
    algorithms = " ".join(f"{name}:{version}" for name, version in ALGORITHM_VERSIONS.items())
    if approach == "weight_only":
        options["algorithms"] = algorithms
    return {
        "model": model,
        "calibration data": data,
        "options": ", ".join(f"{name}={value!r}" for name, value in options.items()),
        "arithmetic": "saturating" if saturates else "exact",
        # Only some spaces have weight-only options then, so it is a part of its own.
        **({"algorithms": algorithms} if approach == "auto" else {}),
    }
