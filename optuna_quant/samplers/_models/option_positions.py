"""Encode configurations for the model of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


def option_positions(space: TuningSpace, config: QuantConfig) -> NDArray[np.int64]:
    """The position of each tunable's option in a configuration, also where there is only one."""
    return np.array(
        [t.options.index(config.ops[t.ops[0]]) for t in space.tunables], dtype=np.int64
    )
