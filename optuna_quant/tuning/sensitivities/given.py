"""Sensitivities that a user gives, as strategies take them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.backends.base import SensitivityKind
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.sensitivities.table import SensitivityTable


_logger = get_logger(__name__)


class GivenSensitivity:
    """Scores ops by a table; a :class:`~optuna_quant.backends.base.Sensitivity`.

    Args:
        table:
            The table; it has a score for each op in each option that is asked for.
    """

    def __init__(self, table: SensitivityTable) -> None:
        self._scores = table.scores
        text = json.dumps([table.kind, table.scores], sort_keys=True)
        self._key = f"given:{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def key(self) -> str:
        """Tells these scores from others, so that a study keeps those of each table."""
        return self._key

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        """The score of each op in its option; 0 for an op that is not quantized."""
        chosen = {op: config.ops[op] for op in ops}
        return {
            op: self._scores[op][option.label] if option.is_quantized else 0.0
            for op, option in chosen.items()
        }


def given_sensitivity(
    table: SensitivityTable | None,
    space: TuningSpace,
    *,
    wanted: SensitivityKind | None,
    strategy: str,
) -> GivenSensitivity | None:
    """The sensitivities of a table, if they are of the kind that a strategy uses.

    Args:
        table:
            The table; :obj:`None` if the user gives none.
        space:
            The tuning space.
        wanted:
            The kind that the strategy uses; :obj:`None` if it uses none.
        strategy:
            The name of the strategy, for messages.

    Returns:
        The sensitivities. :obj:`None` if there are none, or they are of another kind: a warning
        says so.

    Raises:
        ValueError:
            If the kind fits, but an option of the space has no score.
    """
    if table is None or not table.scores:
        return None
    if table.kind != wanted:
        uses = "no sensitivities" if wanted is None else f"those of the kind '{wanted}'"
        if this_rank().is_leader:
            _logger.warning(
                f"The scores of the given sensitivities are of the kind '{table.kind}' and are "
                f"not used: the strategy {strategy!r} uses {uses}. What they disable is left out."
            )
        return None
    for tunable in space.tunables:
        for op in tunable.ops:
            for option in tunable.quantized:
                if option.label not in table.scores.get(op, {}):
                    raise ValueError(
                        f"sensitivities: there is no score for op {op!r} in option "
                        f"{option.label!r}. Write them again with the same options, disable it or "
                        'remove all scores and "kind" to give only what is disabled.'
                    )
    tuned = [name for name, values in space.recipes.items() if len(values) > 1]
    if tuned and this_rank().is_leader:
        _logger.warning(
            "The given sensitivities say nothing of recipes: a strategy that tries recipes by "
            f"what they promise tries none of {', '.join(tuned)}. Fix them, or search without "
            "the given scores."
        )
    return GivenSensitivity(table)
