"""The ops that a sensitivity is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna_quant.space.config import QuantConfig


def check_ops(config: QuantConfig, ops: Iterable[str]) -> None:
    """Refuse ops that cannot be scored, because the configuration does not have them.

    Raises:
        ValueError:
            Naming the first one.
    """
    for op in ops:
        if op not in config.ops:
            raise ValueError(f"There is no op {op!r} in the configuration to be scored.")


def quantized_ops(config: QuantConfig, ops: Iterable[str]) -> list[str]:
    """Those of the ops that a configuration quantizes.

    Raises:
        ValueError:
            Naming the first one that it does not have.
    """
    asked = list(ops)
    check_ops(config, asked)
    return [op for op in asked if config.ops[op].is_quantized]
