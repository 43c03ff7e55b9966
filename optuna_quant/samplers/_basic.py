"""The basic strategy: default, op types, dynamic, recipes, then fallback op by op."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Sequence
import itertools
import math
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import SeesSamples
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._engine.staged import StagedQuantSampler
from optuna_quant.samplers._plans import op_types
from optuna_quant.samplers._plans.fallback import Ranking
from optuna_quant.samplers._plans.fallback import bracket
from optuna_quant.samplers._plans.fallback import one_by_one
from optuna_quant.samplers._plans.fallback import prefixes
from optuna_quant.samplers._plans.fallback import rank
from optuna_quant.samplers._plans.fallback import walk
from optuna_quant.samplers._plans.grow import Growth
from optuna_quant.samplers._plans.grow import apply
from optuna_quant.samplers._plans.grow import grow
from optuna_quant.samplers._plans.grow import grow_to_the_end
from optuna_quant.samplers._plans.halving import changes_to
from optuna_quant.samplers._plans.halving import grow_by_halves
from optuna_quant.samplers._plans.halving import left
from optuna_quant.samplers._plans.halving import quantize_by_halves
from optuna_quant.samplers._plans.halving import without
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


Comparison: TypeAlias = "Generator[Request, Any, list[Evaluation]]"

_BATCH = 32
_MOST_OP_TYPE_TRIALS = 24

# Single fallbacks that close less than this part of the gap to FP32 do not rank the ops.
_FAR_OFF = 0.25

# The name of the stages that look for an answer with most ops quantized.
_BY_HALVES = "fallback by halves"

# One in so many ops in fallback is few.
_FEW = 4

# At least so many of the best are told apart where ops are ranked.
_FEWEST_RANKED = 4


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

    If the sampler knows the criterion and the default misses it, an answer with most ops quantized
    is looked for before any question that takes a trial per op: from FP32, ``fallback by halves``
    quantizes op type by op type, and of a type that fails as a whole the halves, quarters, and so
    on that fit. It begins after the first stage, with about ``2 log2(n)`` trials, so that a search
    that ends early has an answer, and goes on before the sixth, in the options that were the best.
    If at most a quarter of the ops stays in fallback, that is the answer; the sixth stage is then
    for a search that goes on.

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
        accumulate:
            How ``accumulated fallback`` finds the ops that are needed. ``"walk"``: one more at a
            time. ``"bracket"``: by doubling and halving the number of ops, then taking back those
            that turn out not to be needed; about ``log2`` of the evaluations where many are
            needed. Default: ``"bracket"`` where samples are evaluated one by one (most of what it
            tries fails soon), otherwise ``"walk"``.
        racing:
            Whether configurations that only have to be ordered are evaluated on a part of the
            samples, where samples are evaluated one by one; see :class:`Race`.
        compat:
            ``"inc2"`` for the order of neural-compressor 2: recipes all together come second,
            op-type-wise is the plain product of the types' options (the last type fastest, not
            limited unless ``max_op_type_trials`` is given), of equal configurations the later is
            the best, ops that the best has in fallback already are tried again (they cost
            nothing here), nothing is looked for by halves, and the order of the fallback is never
            revised.
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
        accumulate: str | None = None,
        racing: bool = True,
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
        if accumulate not in (None, "walk", "bracket"):
            raise ValueError(f"accumulate must be 'walk' or 'bracket', but got {accumulate!r}.")
        if accumulate == "bracket" and self._criterion is None:
            raise ValueError(
                "accumulate='bracket' needs criterion=, an AccuracyCriterion: it asks whether a "
                "configuration meets it."
            )
        self._accumulate = accumulate
        self._racing = racing
        self._compat = compat

    def plan(self, space: TuningSpace) -> Plan:
        """The stages that the class describes."""
        best = Best(later_wins=self._compat == "inc2")
        yield from self._settings(space, best)
        modes = _float_modes(space)
        yield from self._settle(space, best, modes)
        for mode in modes:
            yield from self._fallback(space, best, mode)

    def _settle(self, space: TuningSpace, best: Best, modes: Sequence[str]) -> Plan:
        """Find the answer of fallback by halves; it is the strategy's if few ops are in fallback.

        Args:
            space:
                The tuning space.
            best:
                The best so far, in whose options ops are quantized.
            modes:
                The floating-point modes of the space. Where there are cheaper ones than FP32 they
                are tried first.
        """
        default: Evaluation
        (default,) = yield Stage("default", [space.default()])
        if not self._is_missed(default) or best.is_promising:
            return
        config = yield from self._answer_by_halves(space, best)
        if config.quantized_ops:
            few = len(config.fallback_ops) * _FEW <= len(config.ops)
            yield Stage(_BY_HALVES, [config], provisional=not few or modes != ["fp32"])

    def _is_missed(self, result: Evaluation) -> bool:
        """Whether it is known that a configuration does not meet the criterion."""
        return (
            self._criterion is not None
            and self._compat is None
            and (result.met is False or not math.isfinite(result.score))
        )

    def _early_answer(self, space: TuningSpace) -> Plan:
        """Look for an answer with most ops quantized, with few trials.

        Args:
            space:
                The tuning space. Its default does not meet the criterion.
        """
        most = 2 * math.ceil(math.log2(len(space.tunables) + 1))
        yield from self._by_halves(space, space.default(), most)

    def _by_halves(
        self, space: TuningSpace, target: QuantConfig, most: int | None = None
    ) -> Growth:
        return (
            yield from quantize_by_halves(
                _BY_HALVES, space, target, by_sensitivity=self._scores.is_given, most=most
            )
        )

    def _answer_by_halves(self, space: TuningSpace, best: Best) -> Growth:
        """Fallback by halves in the options of the best configuration."""
        config = yield from self._by_halves(space, space.default())
        if best.config == space.default():
            return config
        # What can be quantized by default can perhaps in the best options too.
        changes = changes_to(space, best.config)
        kept = [change for change in changes if config.ops[change[0].ops[0]].is_quantized]
        translated = apply(without(best.config, changes), kept)
        result: Evaluation
        (result,) = yield Stage(_BY_HALVES, [translated], provisional=True)
        if not result.met:
            return (yield from self._by_halves(space, best.config))
        return (yield from grow_by_halves(_BY_HALVES, translated, left(translated, changes)))

    def _compare(
        self, name: str, configs: Sequence[QuantConfig], best: Best
    ) -> Generator[Request, Any, tuple[float, list[Evaluation]]]:
        """Evaluate what may be better than the best so far, and see whether it is good enough.

        Where samples are evaluated one by one it is a race, in which the best so far takes part.

        Returns:
            The score of what was the best so far, and the results.
        """
        score = best.score
        if self._compat is None and self._racing and (yield SeesSamples()):
            results: list[Evaluation] = yield Race(name, [best.config, *configs])
            best.settle(results)
            if best.is_promising:
                yield Stage(name, [best.config])
            # On the samples of the race, as the others.
            return results[0].score, results[1:]
        results = yield Stage(name, configs)
        best.see(results)
        return score, results

    def _settings(self, space: TuningSpace, best: Best) -> Plan:
        """Everything before the fallback: how ops are quantized, not which."""
        default: Evaluation
        (default,) = yield Stage("default", [space.default()])
        best.see([default])
        if self._is_missed(default):
            yield from self._early_answer(space)
        if self._compat == "inc2":
            yield from self._all_recipes(space, best)
            yield from self._product(space, best)
        else:
            yield from self._op_types(space, best)
        dynamic = _all_dynamic(space, best.config)
        if dynamic != best.config:
            yield from self._compare("static to dynamic", [dynamic], best)
        yield from self._recipes(space, best)
        sizes = [size for size in space.calibration_sizes if size != best.config.calibration_size]
        if sizes:
            configs = [best.config.with_calibration_size(size) for size in sizes]
            yield from self._compare("calibration size", configs, best)

    def _op_types(self, space: TuningSpace, best: Best) -> Plan:
        options = op_types.type_options(space)
        default = space.default()
        singles = op_types.single_changes(options)[: self._limit]
        configs = [op_types.apply(space, default, [choice]) for choice in singles]
        if not configs:
            return
        reference, results = yield from self._compare("op-type-wise", configs, best)
        gains = {
            choice: _gain(result.score, reference)
            for choice, result in zip(singles, results, strict=True)
        }
        combined: Iterable[QuantConfig] = (
            op_types.apply(space, default, changes)
            for changes in op_types.combinations(gains, only_gains=self._limit is not None)
        )
        if self._limit is not None:
            combined = itertools.islice(combined, self._limit - len(singles))
        yield from self._batches("op-type-wise combined", combined, best)

    def _product(self, space: TuningSpace, best: Best) -> Plan:
        options = op_types.inc2_order(op_types.type_options(space))
        configs = (
            op_types.apply(space, space.default(), choices)
            for choices in op_types.product(options)
        )
        # The first is the default.
        limit = None if self._limit is None else self._limit + 1
        yield from self._batches("op-type-wise", itertools.islice(configs, 1, limit), best)

    def _recipes(self, space: TuningSpace, best: Best) -> Plan:
        base = best.config
        if self._compat is None:
            yield from self._all_recipes(space, best)
        single = [
            base.with_recipe(name, value)
            for name, values in space.recipes.items()
            for value in values
            if value != base.recipes[name]
        ]
        if single:
            yield from self._compare("recipes one by one", single, best)

    def _all_recipes(self, space: TuningSpace, best: Best) -> Plan:
        config = base = best.config
        for name, values in space.recipes.items():
            config = config.with_recipe(name, values[-1])
        if config != base:
            yield from self._compare("all recipes", [config], best)

    def _batches(self, name: str, configs: Iterable[QuantConfig], best: Best) -> Plan:
        configs = iter(configs)
        while batch := list(itertools.islice(configs, _BATCH)):
            yield from self._compare(name, batch, best)

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
        results = yield from self._rank(f"instance-wise fallback{suffix}", singles)
        gains = [result.score for result in results]
        ranked = rank(tunables, gains)
        accumulated = f"accumulated fallback{suffix}"
        if self._compat == "inc2":
            # The first prefix is one of the single fallbacks.
            yield Stage(accumulated, prefixes(base, ranked, mode)[1:])
            return
        if self.measures_baseline and mode == "fp32":
            ranked = yield from self._other_view(space, best, tunables, gains, ranked)
        if (yield from self._brackets()) and (
            yield from self._bracket(accumulated, base, ranked, mode)
        ):
            return
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

    def _rank(
        self, name: str, configs: Sequence[QuantConfig], *, provisional: bool = False
    ) -> Comparison:
        """Evaluate what only has to be ordered."""
        if self._compat is None and self._racing and (yield SeesSamples()):
            top = max(_FEWEST_RANKED, len(configs) // 4)
            results: list[Evaluation] = yield Race(name, configs, top=top)
            return results
        results = yield Stage(name, configs, provisional=provisional)
        return results

    def _brackets(self) -> Generator[Request, Any, bool]:
        """Whether accumulated fallback is searched by halves."""
        if self._accumulate is not None:
            return self._accumulate == "bracket"
        sees_samples: bool = yield SeesSamples()
        return sees_samples and self._criterion is not None

    def _bracket(
        self, stage: str, base: QuantConfig, ranked: Sequence[Tunable], mode: str
    ) -> Generator[Request, Any, bool]:
        """Search accumulated fallback by halves; whether something was found.

        If not, not even all ops together meet the criterion, and what may do so is walked for.
        """
        found = yield from bracket(stage, base, ranked, mode=mode)
        if found is None:
            return False
        config, ops = found
        # The last one made the difference; the others may not have to stay.
        back = [(tunable, base.ops[tunable.ops[0]]) for tunable in reversed(ops[:-1])]
        config = yield from grow("quantized again", config, back)
        if not config.quantized_ops:
            return False
        yield Stage("answer", [config])
        return True

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
        results = yield from self._rank("instance-wise quantization", alone, provisional=True)
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

    def settle(self, results: Sequence[Evaluation]) -> None:
        """Take the best of a race in which the best so far took part."""
        self._best = None
        self.see(results)

    @property
    def is_promising(self) -> bool:
        """Whether it meets the criterion, as far as was seen."""
        return self._evaluation.met is True

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
