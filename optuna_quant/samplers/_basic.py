"""The basic strategy: default, op types, dynamic, recipes, then fallback op by op."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Sequence
import itertools
import math
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.config import OpConfig
from optuna_quant.samplers import _op_types
from optuna_quant.samplers._fallback import Ranking
from optuna_quant.samplers._fallback import one_by_one
from optuna_quant.samplers._fallback import prefixes
from optuna_quant.samplers._fallback import rank
from optuna_quant.samplers._fallback import walk
from optuna_quant.samplers._grow import grow_to_the_end
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._replay import Evaluation
from optuna_quant.samplers._replay import Plan
from optuna_quant.samplers._replay import Stage
from optuna_quant.samplers._staged import StagedQuantSampler


if TYPE_CHECKING:
    from optuna_quant.config import QuantConfig
    from optuna_quant.space import TuningSpace
    from optuna_quant.tunable import Tunable


_BATCH = 32
_MOST_OP_TYPE_TRIALS = 24

# Single fallbacks that close less than this part of the gap to FP32 do not rank the ops.
_FAR_OFF = 0.25


@register_strategy("basic")
class BasicQuantSampler(StagedQuantSampler):
    """Quantize everything, then find the few ops that must not be.

    The stages, after neural-compressor 2's strategy of the same name:

    1. ``default``: every op in its first option.
    2. ``op-type-wise``: another option (algorithm, granularity, ...) for all ops of one type at
       a time, the types in turn; then ``op-type-wise combined``: combinations of those that
       gained, the most promising first.
    3. ``static to dynamic``: every op that allows it in dynamic mode, on top of the best so far
       (only with ``approach="auto"``).
    4. ``recipes``: every recipe at its last value, then one by one, on top of the best so far
       (only if the space has recipes).
    5. ``calibration size``: the other numbers of calibration samples (only if there are some).
    6. For each floating-point mode of the space (bf16, fp16, fp32): ``instance-wise fallback``,
       one op at a time on top of the best so far, from the last op to the first; then
       ``accumulated fallback``, the ops together, in the order of what each gained.

    Once a configuration meets the criterion (if the sampler knows it), a search that goes on tries
    to quantize what is in fallback again: ``quantized again``, as many ops as fit.

    Where the quantized model is so far off that no single fallback closes a quarter of the gap,
    the order by gain is noise: then ``instance-wise quantization`` (one op quantized, the rest in
    FP32) ranks the ops by the harm that each does. And when ``patience`` further ops have
    brought nothing, they are quantized again and the others are ranked anew on top of what is in
    fallback, since ops can matter only together.

    "Best" is the highest metric (the lowest, if the study minimizes); of equal ones, the earlier.
    Whether one of them is good enough is not asked here: the exit policy does that.

    Example:

        .. code-block:: python

            study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))

    Args:
        space:
            The tuning space.
        max_op_type_trials:
            The most configurations that the two op-type-wise stages may take together; 24 by
            default (no limit with ``compat="inc2"``). With :obj:`None` they take all combinations
            there are, those that promise nothing last.
        patience:
            After how many ops in fallback without progress the ops are ranked anew.
        compat:
            ``"inc2"`` for the order of neural-compressor 2: recipes all together come second,
            op-type-wise is the plain product of the types' options (the last type fastest, not
            limited unless ``max_op_type_trials`` is given), of equal configurations the later is
            the best, ops that the best has in fallback already are tried again (they cost
            nothing here), and the order of the fallback is never revised.
        **kwargs:
            See :class:`StagedQuantSampler`.

    Raises:
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        max_op_type_trials: int | str | None = "default",
        patience: int = 4,
        compat: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(space, **kwargs)
        if max_op_type_trials == "default":
            max_op_type_trials = None if compat == "inc2" else _MOST_OP_TYPE_TRIALS
        if isinstance(max_op_type_trials, str):
            raise ValueError(
                f"max_op_type_trials must be a number or None, but got {max_op_type_trials!r}."
            )
        if max_op_type_trials is not None and max_op_type_trials < 0:
            raise ValueError(
                f"max_op_type_trials must not be negative, but got {max_op_type_trials}."
            )
        if patience < 1:
            raise ValueError(f"patience must be at least 1, but got {patience}.")
        if compat not in (None, "inc2"):
            raise ValueError(f"compat must be None or 'inc2', but got {compat!r}.")
        self._limit = max_op_type_trials
        self._patience = patience
        self._compat = compat

    def plan(self, space: TuningSpace) -> Plan:
        """The stages that the class describes."""
        best = Best(later_wins=self._compat == "inc2")
        yield from self._settings(space, best)
        for mode in _float_modes(space):
            yield from self._fallback(space, best, mode)

    def _settings(self, space: TuningSpace, best: Best) -> Plan:
        """Everything before the fallback: how ops are quantized, not which."""
        best.see((yield Stage("default", [space.default()])))
        if self._compat == "inc2":
            best.see((yield from _all_recipes(space, space.default())))
            yield from self._product(space, best)
        else:
            yield from self._op_types(space, best)
        dynamic = _all_dynamic(space, best.config)
        if dynamic != best.config:
            best.see((yield Stage("static to dynamic", [dynamic])))
        yield from self._recipes(space, best)
        sizes = [size for size in space.calibration_sizes if size != best.config.calibration_size]
        if sizes:
            configs = [best.config.with_calibration_size(size) for size in sizes]
            best.see((yield Stage("calibration size", configs)))

    def _op_types(self, space: TuningSpace, best: Best) -> Plan:
        options = _op_types.type_options(space)
        default = space.default()
        reference = best.score
        singles = _op_types.single_changes(options)[: self._limit]
        configs = [_op_types.apply(space, default, [choice]) for choice in singles]
        if not configs:
            return
        results = yield Stage("op-type-wise", configs)
        best.see(results)
        gains = {
            choice: _gain(result.score, reference)
            for choice, result in zip(singles, results, strict=True)
        }
        combined: Iterable[QuantConfig] = (
            _op_types.apply(space, default, changes)
            for changes in _op_types.combinations(gains, only_gains=self._limit is not None)
        )
        if self._limit is not None:
            combined = itertools.islice(combined, self._limit - len(singles))
        yield from _batches("op-type-wise combined", combined, best)

    def _product(self, space: TuningSpace, best: Best) -> Plan:
        options = _op_types.inc2_order(_op_types.type_options(space))
        configs = (
            _op_types.apply(space, space.default(), choices)
            for choices in _op_types.product(options)
        )
        # The first is the default.
        limit = None if self._limit is None else self._limit + 1
        yield from _batches("op-type-wise", itertools.islice(configs, 1, limit), best)

    def _recipes(self, space: TuningSpace, best: Best) -> Plan:
        base = best.config
        if self._compat is None:
            best.see((yield from _all_recipes(space, base)))
        single = [
            base.with_recipe(name, value)
            for name, values in space.recipes.items()
            for value in values
            if value != base.recipes[name]
        ]
        if single:
            best.see((yield Stage("recipes one by one", single)))

    def _fallback(self, space: TuningSpace, best: Best, mode: str) -> Plan:
        base = best.config
        tunables = [
            tunable
            for tunable in reversed(space.tunables)
            if OpConfig(mode) in tunable.fallbacks
            and (self._compat == "inc2" or base.ops[tunable.ops[0]].is_quantized)
        ]
        if not tunables:
            return
        suffix = "" if mode == "fp32" else f" ({mode})"
        singles = [base.with_fallback(*tunable.ops, mode=mode) for tunable in tunables]
        results: list[Evaluation] = yield Stage(f"instance-wise fallback{suffix}", singles)
        gains = [result.score for result in results]
        ranked = rank(tunables, gains)
        accumulated = f"accumulated fallback{suffix}"
        if self._compat == "inc2":
            # The first prefix is one of the single fallbacks.
            yield Stage(accumulated, prefixes(base, ranked, mode)[1:])
            return
        if self.measures_baseline and mode == "fp32":
            ranked = yield from self._other_view(space, best, tunables, gains, ranked)
        found = yield from walk(
            accumulated,
            base,
            best.score,
            ranked,
            mode=mode,
            patience=self._patience,
            rerank=one_by_one(f"instance-wise fallback{suffix}", mode),
        )
        if found is not None:
            # For a search that goes on: what of it has to stay?
            back = [
                (tunable, base.ops[tunable.ops[0]])
                for tunable in ranked
                if found.ops[tunable.ops[0]] != base.ops[tunable.ops[0]]
            ]
            config = yield from grow_to_the_end("quantized again", found, back)
            yield Stage("answer", [config])

    def _other_view(
        self,
        space: TuningSpace,
        best: Best,
        tunables: Sequence[Tunable],
        gains: Sequence[float],
        ranked: list[Tunable],
    ) -> Ranking:
        """Rank by the harm of each op alone, where taking one back hardly moves the metric."""
        baseline: Evaluation
        (baseline,) = yield Stage("baseline", [space.fp32()], provisional=True)
        gap = baseline.score - best.score
        if not max(gains) - best.score < _FAR_OFF * gap:
            return ranked
        alone = [
            space.fp32().with_ops({op: best.config.ops[op] for op in tunable.ops})
            for tunable in tunables
        ]
        results: list[Evaluation] = yield Stage(
            "instance-wise quantization", alone, provisional=True
        )
        harm = [-result.score for result in results]
        # Of ops that do equal harm, the one whose fallback helped more comes first.
        return rank(rank(tunables, gains), [harm[tunables.index(t)] for t in ranked])


class Best:
    """The best configuration so far."""

    def __init__(self, *, later_wins: bool = False) -> None:
        self._later_wins = later_wins
        self._best: Evaluation | None = None

    def see(self, results: Iterable[Evaluation]) -> None:
        for result in results:
            if (
                self._best is None
                or result.score > self._best.score
                or (self._later_wins and result.score == self._best.score)
            ):
                self._best = result

    @property
    def _evaluation(self) -> Evaluation:
        if self._best is None:
            raise RuntimeError("Nothing has been evaluated yet.")
        return self._best

    @property
    def config(self) -> QuantConfig:
        return self._evaluation.config

    @property
    def score(self) -> float:
        return self._evaluation.score


def _gain(score: float, reference: float) -> float:
    # Where the default itself failed there is nothing to gain over; zero takes its place.
    return score - (reference if math.isfinite(reference) else 0.0)


def _batches(name: str, configs: Iterable[QuantConfig], best: Best) -> Plan:
    configs = iter(configs)
    while batch := list(itertools.islice(configs, _BATCH)):
        best.see((yield Stage(name, batch)))


def _all_recipes(
    space: TuningSpace, base: QuantConfig
) -> Generator[Stage, list[Evaluation], list[Evaluation]]:
    config = base
    for name, values in space.recipes.items():
        config = config.with_recipe(name, values[-1])
    if config == base:
        return []
    return (yield Stage("all recipes", [config]))


def _all_dynamic(space: TuningSpace, base: QuantConfig) -> QuantConfig:
    changes = {}
    for tunable in space.tunables:
        dynamic = [option for option in tunable.quantized if option.mode == "dynamic"]
        if dynamic and base.ops[tunable.ops[0]].mode == "static":
            changes.update(dict.fromkeys(tunable.ops, dynamic[0]))
    return base.with_ops(changes)


def _float_modes(space: TuningSpace) -> list[str]:
    """The floating-point modes of the space, the cheapest first."""
    have = {option.mode for tunable in space.tunables for option in tunable.fallbacks}
    return [mode for mode in ("bf16", "fp16", "fp32") if mode in have]
