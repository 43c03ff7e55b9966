"""Group testing, the largest groups first: most ops are quantized after few evaluations."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.fallback import by_score
from optuna_quant.samplers._plans.grow import Change
from optuna_quant.samplers._plans.grow import Growth
from optuna_quant.samplers._plans.grow import apply


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# The types that come first: where integer kernels pay most.
_FIRST = (("Conv", "ConvTranspose", "FusedConv"), ("MatMul", "Gemm", "Attention", "Linear"))

# So many tests are always allowed: few ops are not worth a limit.
_FEWEST_TESTS = 16


@dataclass(eq=False)
class _Group:
    """Changes that are tested together.

    Args:
        changes:
            The changes.
        sibling:
            The other half of the group that this one was split off.
        fails:
            Whether it is known to break the criterion on top of what has been applied.
    """

    changes: Sequence[Change]
    sibling: _Group | None = None
    fails: bool = False


def grow_by_halves(
    stage: str,
    config: QuantConfig,
    changes: Sequence[Change],
    *,
    fails: bool = True,
    most: int | None = None,
) -> Growth:
    """Apply as many of the changes as the criterion allows, large groups before small ones.

    A group that fits on top of what has been applied is applied; one that does not is split into
    halves. Until a first group fits, the first half of the last one is tested next, which gives
    something to hand out after about ``log2(n)`` evaluations; then always the largest, so that
    most of the changes that fit are applied early, wherever the others are. Where one half of a
    group that failed fits, the other is taken to fail without a test.

    Of ``n`` changes with ``k`` that do not fit it takes at most about ``2 k log2(n / k) + 2 k``
    evaluations (adaptive group testing by binary splitting; Du and Hwang, "Combinatorial group
    testing and its applications", 2000, chapter 2). It rests on the metric being nearly monotone
    in the set of changes. Each configuration is provisional.

    Args:
        stage:
            The name of the stages.
        config:
            The configuration to start from; it meets the criterion.
        changes:
            The changes, the most promising first.
        fails:
            Whether all of them together are known to break the criterion.
        most:
            The most configurations that are tested; what is still open then is not applied.
            :obj:`None` for no limit.

    Returns:
        The configuration with the changes that hold together.
    """
    if not changes:
        return config
    waiting = [_Group(changes, fails=fails)]
    applied, tested = False, 0
    while waiting:
        # Of equally large ones the first, as min() does.
        group = min(waiting, key=lambda group: len(group.changes) * (-1 if applied else 1))
        waiting.remove(group)
        if not group.fails:
            if tested == most:
                break
            tested += 1
            changed = apply(config, group.changes)
            result: Evaluation
            (result,) = yield Stage(stage, [changed], provisional=True)
            if result.met:
                config, applied = changed, True
                if group.sibling is not None:
                    group.sibling.fails = True
                continue
        if len(group.changes) > 1:
            half = (len(group.changes) + 1) // 2
            first, second = _Group(group.changes[:half]), _Group(group.changes[half:])
            first.sibling, second.sibling = second, first
            waiting += [first, second]
    return config


def grow_by_type(
    config: QuantConfig,
    changes: Sequence[Change],
    stage: str,
    stage_of_halves: str,
    *,
    most: int | None = None,
) -> Growth:
    """Apply the changes to all ops of a type together; if that fails, by halves.

    Args:
        config:
            The configuration to start from; it meets the criterion.
        changes:
            The changes, the most promising first.
        stage:
            The name of the stage that applies all of them.
        stage_of_halves:
            The name of the stages that apply parts of them.
        most:
            The most configurations that are tested by halves; by default as many as ranking the
            changes one by one would take, but at least 16.

    Returns:
        The configuration with the changes that hold together.
    """
    whole = apply(config, changes)
    result: Evaluation
    (result,) = yield Stage(stage, [whole], provisional=True)
    if result.met:
        return whole
    if len(changes) == 1:
        return config
    most = max(len(changes), _FEWEST_TESTS) if most is None else most
    return (yield from grow_by_halves(stage_of_halves, config, changes, most=most))


def grow_few(stage: str, config: QuantConfig, changes: Sequence[Change]) -> Growth:
    """Apply changes by halves, in at most as many tests as there are changes, but at least 16.

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
    most = max(len(changes), _FEWEST_TESTS)
    return (yield from grow_by_halves(stage, config, changes, fails=False, most=most))


def quantize_by_halves(
    stage: str,
    space: TuningSpace,
    target: QuantConfig,
    *,
    by_sensitivity: bool = False,
    most: int | None = None,
) -> Growth:
    """Quantize as much of a configuration that misses the criterion as the criterion allows.

    It begins with the ops that can fall back in FP32; see :func:`grow_by_type` for each type.

    Args:
        stage:
            The name of the stages.
        space:
            The tuning space.
        target:
            The configuration, with all ops quantized that may be.
        by_sensitivity:
            Whether to ask how sensitive the ops are, and to quantize the least sensitive first.
        most:
            The most configurations that are tested by halves.

    Returns:
        The configuration with as many ops as in ``target`` as hold together.
    """
    changes: Sequence[Change] = changes_to(space, target)
    if by_sensitivity:
        changes = yield from least_sensitive_first(target, changes)
    config = without(target, changes)
    for part in by_type(changes).values():
        config = yield from grow_by_type(config, part, stage, stage, most=most)
    return config


def changes_to(space: TuningSpace, target: QuantConfig) -> list[Change]:
    """What has to be changed in FP32 to have the quantized ops of a configuration.

    Ops that cannot fall back to FP32 are left out. The types come in the order in which they pay,
    the ops of a type in that of the model.
    """
    changes = [
        (tunable, target.ops[tunable.ops[0]])
        for tunable in space.tunables
        if target.ops[tunable.ops[0]].is_quantized
        and any(option.mode == "fp32" for option in tunable.fallbacks)
    ]
    return [change for part in by_type(changes).values() for change in part]


def by_type(changes: Sequence[Change]) -> dict[str, list[Change]]:
    """The changes by op type; types where integer kernels pay most come first."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(change[0].op_type, []).append(change)

    def place(op_type: str) -> int:
        return next((i for i, kinds in enumerate(_FIRST) if op_type in kinds), len(_FIRST))

    return {op_type: groups[op_type] for op_type in sorted(groups, key=place)}


def least_sensitive_first(
    config: QuantConfig, changes: Sequence[Change]
) -> Generator[Request, Any, list[Change]]:
    """The changes by the sensitivity of their ops in a configuration, lowest first."""
    if not changes:
        return []
    ranked = yield from by_score(config, [tunable for tunable, _ in changes])
    options = {tunable.name: option for tunable, option in changes}
    return [(tunable, options[tunable.name]) for tunable in reversed(ranked)]


def without(config: QuantConfig, changes: Sequence[Change]) -> QuantConfig:
    """``config`` with the ops of the changes in FP32."""
    return config.with_fallback(*(op for tunable, _ in changes for op in tunable.ops))
