"""A loss that compares outputs with labels, in the form of neural-compressor's HAWQ-V2."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    import torch


LABELS = "labels"
NAME = "hawq_v2_loss"


@dataclass(frozen=True)
class TargetLoss:
    """A loss of outputs and batch, made from one of output and target.

    Args:
        function:
            ``function(output, target)`` gives a scalar tensor. ``output`` is the model's output,
            or a tuple of all if it has several; ``target`` are the labels of the batch.
    """

    function: Callable[[Any, Any], torch.Tensor]

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> torch.Tensor:
        """The loss of a batch.

        Raises:
            ValueError:
                If the batch has no labels.
        """
        if LABELS not in batch:
            raise ValueError(
                f"{NAME} compares the outputs with labels, and calibration data have none: give "
                "those of the calibration samples, in their order, as strategy_kwargs={"
                f"'{NAME}': ..., '{LABELS}': ...}}."
            )
        found = tuple(outputs.values())
        return self.function(found[0] if len(found) == 1 else found, batch[LABELS])


def with_target_loss(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a strategy, with ``hawq_v2_loss`` as the ``loss`` that it stands for.

    Raises:
        TypeError:
            If it is no function.
        ValueError:
            If ``loss`` is given as well.
    """
    found = dict(kwargs)
    if NAME not in found:
        return found
    function = found.pop(NAME)
    if function is None:
        return found
    if not callable(function):
        raise TypeError(f"{NAME} must be a function of output and target, but got {function!r}.")
    if found.get("loss") is not None:
        raise ValueError(f"strategy_kwargs: give either loss or {NAME}, which is the same.")
    return {**found, "loss": TargetLoss(function)}
