"""Accumulate as many changes as the criterion allows, with few evaluations."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Stage


if TYPE_CHECKING:
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.tunable import Tunable


# On how many of the samples single changes are ranked: what matters is tried again, together.
_FRACTION = 1 / 16

Change: TypeAlias = "tuple[Tunable, OpConfig]"
Growth: TypeAlias = "Generator[Request, Any, QuantConfig]"


def apply(config: QuantConfig, changes: Sequence[Change]) -> QuantConfig:
    """``config`` with these options for these ops."""
    return config.with_ops({op: option for tunable, option in changes for op in tunable.ops})


def not_applied(config: QuantConfig, changes: Sequence[Change]) -> list[Change]:
    """The changes that ``config`` lacks."""
    return [
        (tunable, option)
        for tunable, option in changes
        if any(config.ops[op] != option for op in tunable.ops)
    ]


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


def _is_open(result: Evaluation) -> bool:
    """Whether it is not known if the criterion is met, because few samples were seen."""
    return result.met is None and result.scores is not None


def grow_to_the_end(stage: str, config: QuantConfig, changes: Sequence[Change]) -> Growth:
    """As :func:`grow`, again and again until no single change that is left fits any more.

    Before each round every change that is left is tried alone, which ranks them: the best first,
    without those that break the criterion by themselves. Where samples are evaluated one by one
    that is a race, a change of which it is not clear whether it fits counts as one that does
    until it is tried, and there is one round: what did not fit on top of less is taken not to fit
    on top of more.

    Args:
        stage:
            The name of the stages.
        config:
            The configuration to start from; it meets the criterion.
        changes:
            The changes.

    Returns:
        The configuration with the changes that hold together.
    """
    left = list(changes)
    sees_samples: bool = yield HasPerSampleScores()
    while left:
        alone = [apply(config, [change]) for change in left]
        name = f"{stage}, one by one"
        results: list[Evaluation]
        if sees_samples:
            results = yield Race(name, alone, top_k=len(alone), rounds=1, fraction=_FRACTION)
        else:
            results = yield Stage(name, alone, provisional=True)
        order = sorted(range(len(left)), key=lambda i: -results[i].score)
        fitting = [left[i] for i in order if results[i].met or _is_open(results[i])]
        if not fitting:
            break
        if results[order[0]].met:
            # The best one fits, as was just seen; the others are tried on top of it.
            config = apply(config, fitting[:1])
            fitting = fitting[1:]
        config = yield from grow(stage, config, fitting)
        if sees_samples:
            break
        left = not_applied(config, left)
    return config
