"""Take over as many changes as the criterion allows, with few evaluations."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.samplers._replay import Evaluation
from optuna_quant.samplers._replay import Scoring
from optuna_quant.samplers._replay import Stage


if TYPE_CHECKING:
    from optuna_quant.config import OpConfig
    from optuna_quant.config import QuantConfig
    from optuna_quant.tunable import Tunable


Change: TypeAlias = "tuple[Tunable, OpConfig]"
Growth: TypeAlias = "Generator[Stage | Scoring, Any, QuantConfig]"


def apply(config: QuantConfig, changes: Sequence[Change]) -> QuantConfig:
    """``config`` with these options for these ops."""
    return config.with_ops({op: option for tunable, option in changes for op in tunable.ops})


def grow(stage: str, config: QuantConfig, changes: Sequence[Change]) -> Growth:
    """Apply as many of the changes as the criterion allows.

    All of them are tried together; if that fails, the first half, and then the rest on top of
    what held. Of ``n`` changes with ``k`` that do not fit it takes about ``2 k log2(n / k)``
    evaluations (group testing: Hwang, "A method for detecting all defective members in a
    population by group testing", 1972, splits in the same way). Each configuration of it is
    provisional.

    Args:
        stage:
            The name of the stages.
        config:
            The configuration to start from; it meets the criterion.
        changes:
            The changes, the most promising first.

    Returns:
        The configuration with the changes that hold together.
    """
    if not changes:
        return config
    changed = apply(config, changes)
    result: Evaluation
    (result,) = yield Stage(stage, [changed], provisional=True)
    if result.met:
        return changed
    if len(changes) == 1:
        return config
    half = (len(changes) + 1) // 2
    config = yield from grow(stage, config, changes[:half])
    return (yield from grow(stage, config, changes[half:]))


def grow_to_the_end(stage: str, config: QuantConfig, changes: Sequence[Change]) -> Growth:
    """As :func:`grow`, again and again until no single change that is left fits any more.

    Before each round every change that is left is tried alone, which ranks them: the best first,
    without those that break the criterion by themselves.
    """
    left = list(changes)
    while left:
        alone = [apply(config, [change]) for change in left]
        results: list[Evaluation] = yield Stage(f"{stage}, one by one", alone, provisional=True)
        order = sorted(range(len(left)), key=lambda i: -results[i].score)
        fitting = [left[i] for i in order if results[i].met]
        if not fitting:
            break
        # The best one fits, as was just seen; the others are tried on top of it.
        config = apply(config, fitting[:1])
        config = yield from grow(stage, config, fitting[1:])
        left = [
            (tunable, option)
            for tunable, option in left
            if any(config.ops[op] != option for op in tunable.ops)
        ]
    return config
