"""What backends that score ops say alike: which kinds there are, and why the best is not one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.backends.base import Sensitivity


_logger = get_logger(__name__)

_OF_A_LOSS = ("loss", "labels", "probes")


def factories(
    *,
    best: Callable[..., Sensitivity | None],
    op_error: Callable[..., Sensitivity],
    output_error: Callable[..., Sensitivity],
    curvature: Callable[..., Sensitivity],
    options: Sequence[str] = (),
) -> Mapping[SensitivityKind, SensitivityFactory]:
    """How the sensitivities that strategies ask for are made.

    Args:
        best:
            Makes the best one that is available.
        op_error:
            Makes one by the error of each op's own output.
        output_error:
            Makes one by how far the outputs move.
        curvature:
            Makes one by the curvature of a loss.
        options:
            The names of options of the curvature, besides those that it has in every backend.
    """
    return {
        SensitivityKind.BEST: SensitivityFactory(best),
        SensitivityKind.OP_ERROR: SensitivityFactory(
            lambda *, outputs: op_error()  # Each op has its own.
        ),
        SensitivityKind.OUTPUT_ERROR: SensitivityFactory(output_error),
        SensitivityKind.CURVATURE: SensitivityFactory(curvature, (*_OF_A_LOSS, *options)),
    }


def tell_without_data() -> None:
    """Say that nothing scores the ops."""
    _logger.info(
        "Ops are not scored, because there are no calibration data to run the model "
        "on: the search starts as if all were equally sensitive."
    )


def tell_without_gradients(why: str) -> None:
    """Say that ops are scored by their own errors, and why not by what these do to the outputs."""
    _logger.info(
        "Ops are scored by the error of their own outputs, not by its effect on the "
        f"model's outputs: {why}."
    )
