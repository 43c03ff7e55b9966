"""The basic strategy: default, op types, dynamic, recipes, then fallback op by op."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
import math
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._engine.staged import StagedQuantSampler
from optuna_quant.samplers._plans.best import Best
from optuna_quant.samplers._plans.block_fallback import BlockFallback
from optuna_quant.samplers._plans.cheaper_fallback import cheaper_fallback
from optuna_quant.samplers._plans.cheaper_fallback import float_modes
from optuna_quant.samplers._plans.comparisons import Comparisons
from optuna_quant.samplers._plans.grow import Growth
from optuna_quant.samplers._plans.grow import apply
from optuna_quant.samplers._plans.grow import not_applied
from optuna_quant.samplers._plans.halving import changes_to
from optuna_quant.samplers._plans.halving import grow_by_halves
from optuna_quant.samplers._plans.halving import quantize_by_halves
from optuna_quant.samplers._plans.halving import without
from optuna_quant.samplers._plans.op_fallback import OpFallback
from optuna_quant.samplers._plans.settings import Settings
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.space.blocks import Block
from optuna_quant.space.blocks import checked_blocks
from optuna_quant.study.block_signature import check_blocks


if TYPE_CHECKING:
    import optuna

    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_MOST_OP_TYPE_TRIALS = 24

# The name of the stages that look for an answer with most ops quantized.
_BY_HALVES = "fallback by halves"

# One in so many ops in fallback is few.
_FEW = 4


@register_strategy("basic")
class BasicQuantSampler(StagedQuantSampler):
    """Quantize everything, then find the few ops that must stay in FP32.

    The stages, after neural-compressor 2's strategy of the same name:

    1. ``default``: every op in its first option.
    2. ``pre-defined settings``: those that the space has for the whole model (weight-only
       quantization without named algorithms: RTN, GPTQ and AWQ).
    3. ``op-type-wise``: another option (algorithm, granularity, ...) for all ops of one type at
       a time, the types in turn; then ``op-type-wise combined``: combinations of those that
       gained, the most promising first.
    4. ``static to dynamic``: every op that allows it in dynamic mode, on top of the best so far
       (only with ``approach="auto"``).
    5. ``recipes``: every recipe at its last value, then one by one, on top of the best so far
       (only if the space has recipes).
    6. ``calibration size``: the other numbers of calibration samples (only if there are some).
    7. For each floating-point mode of the space (bf16, fp16, fp32): ``instance-wise fallback``,
       one op at a time on top of the best so far, from the last op to the first; then
       ``accumulated fallback``, the ops together, in the order of what each gained.

    If the sampler knows the criterion and the default misses it, an answer with most ops quantized
    is looked for before any question that takes a trial per op: from FP32, ``fallback by halves``
    quantizes op type by op type, and of a type that fails as a whole the halves, quarters, and so
    on that fit. It begins after the second stage, with about ``2 log2(n)`` trials, so that a
    search that ends early has an answer, and goes on before the seventh, in the options that were
    the best. If at most a quarter of the ops stays in fallback, that is the answer; the seventh
    stage is then for a search that goes on.

    Once a configuration meets the criterion (if the sampler knows it), a search that goes on tries
    to quantize what is in fallback again: ``quantized again``, as many ops as fit.

    Before an answer with ops in FP32 these are made cheaper where the space can: ``16-bit
    activations``, ``bf16 instead of fp32``, ``fp16 instead of fp32``, as many of them as fit in
    each of these, in this order.

    Where the quantized model is so far off that no single fallback closes a quarter of the gap,
    the order by gain is noise: then ``instance-wise quantization`` (one op quantized, the rest in
    FP32) ranks the ops by the harm that each does. And when ``patience`` further ops have
    brought nothing, they are quantized again and the others are ranked again on top of what is in
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
            After how many ops in fallback without progress the ops are ranked again.
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
        blocks:
            The parts of the model that repeat, as ``backend.blocks()`` gives them: then each round
            of the seventh stage begins with ``block-wise fallback``, one block at a time from the
            last to the first, and ``accumulated blocks``, the blocks together in the order of what
            each gained, until the criterion is met (if the sampler knows it). What these blocks
            hold is then ``quantized again`` as far as it stays met. Single ops begin from where
            the blocks began, whatever they gave. With ``compat="inc2"`` there are only the blocks
            together, from the last to the first. The study keeps the blocks, and another sampler
            of this kind must be given the same. Default: none.
        **kwargs:
            See :class:`StagedQuantSampler`.

    Raises:
        ValueError:
            If an argument is out of its range.
    """

    tunes_recipes = True

    def __init__(
        self,
        space: TuningSpace,
        *,
        max_op_type_trials: int | str | None = "default",
        patience: int = 4,
        accumulate: str | None = None,
        racing: bool = True,
        compat: str | None = None,
        blocks: Sequence[Block] = (),
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
                "accumulate='bracket' needs criterion=, an AccuracyCriterion, because it asks "
                "whether a configuration meets it."
            )
        self._accumulate = accumulate
        self._racing = racing
        self._compat = compat
        self._blocks = checked_blocks(blocks)

    def _check_study(self, study: optuna.Study) -> None:
        check_blocks(study, self._space.prefix, self._blocks)

    def plan(self, space: TuningSpace) -> Plan:
        """The stages that the class describes."""
        best = Best(later_wins=self._compat == "inc2")
        base: QuantConfig = yield from self._settings(space, best)
        modes = float_modes(space)
        yield from self._settle(space, best, modes, base)
        blocks = BlockFallback(
            self._blocks,
            self._comparisons,
            patience=self._patience,
            knows_criterion=self._criterion is not None,
            is_inc2=self._compat == "inc2",
        )
        fallback = OpFallback(
            self._comparisons,
            patience=self._patience,
            accumulate=self._accumulate,
            knows_criterion=self._criterion is not None,
            by_harm=self.measures_baseline,
            is_inc2=self._compat == "inc2",
        )
        for mode in modes:
            yield from blocks.stages(space, best, mode)
            yield from fallback.stages(space, best, mode)

    def _settle(
        self, space: TuningSpace, best: Best, modes: Sequence[str], base: QuantConfig
    ) -> Plan:
        """Find the answer of fallback by halves; it is the strategy's if few ops are in fallback.

        Args:
            space:
                The tuning space.
            best:
                The best so far, in whose options ops are quantized.
            modes:
                The floating-point modes of the space. Where there are cheaper ones than FP32 they
                are tried first.
            base:
                The best of the default and the presets.
        """
        default: Evaluation
        (default,) = yield Stage("default", [space.default()])
        if not self._is_missed(default) or best.is_promising:
            return
        config = yield from self._answer_by_halves(space, best, base)
        if modes == ["fp32"]:
            config = yield from cheaper_fallback(space, config, best.config)
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

    def _early_answer(self, space: TuningSpace, base: QuantConfig) -> Plan:
        """Look for an answer with most ops quantized, with few trials.

        Args:
            space:
                The tuning space.
            base:
                What ops are quantized to. It does not meet the criterion.
        """
        most = 2 * math.ceil(math.log2(len(space.tunables) + 1))
        yield from self._by_halves(space, base, most)

    def _by_halves(
        self, space: TuningSpace, target: QuantConfig, most: int | None = None
    ) -> Growth:
        return (
            yield from quantize_by_halves(
                _BY_HALVES, space, target, by_sensitivity=self.has_sensitivity, most=most
            )
        )

    def _answer_by_halves(self, space: TuningSpace, best: Best, base: QuantConfig) -> Growth:
        """Fallback by halves in the options of the best configuration."""
        config = yield from self._by_halves(space, base)
        if best.config == base:
            return config
        # What can be quantized in the first options can perhaps in the best ones too.
        changes = changes_to(space, best.config)
        kept = [change for change in changes if config.ops[change[0].ops[0]].is_quantized]
        translated = apply(without(best.config, changes), kept)
        result: Evaluation
        (result,) = yield Stage(_BY_HALVES, [translated], provisional=True)
        if not result.met:
            return (yield from self._by_halves(space, best.config))
        return (
            yield from grow_by_halves(_BY_HALVES, translated, not_applied(translated, changes))
        )

    def _settings(self, space: TuningSpace, best: Best) -> Generator[Request, Any, QuantConfig]:
        """Everything before the fallback: how ops are quantized, not which.

        Returns:
            The best of the default and the presets.
        """
        default: Evaluation
        (default,) = yield Stage("default", [space.default()])
        best.see([default])
        settings = Settings(self._comparisons, self._limit, self._compat == "inc2")
        yield from settings.presets(space, best)
        base = best.config
        if self._is_missed(default) and not best.is_promising:
            yield from self._early_answer(space, base)
        yield from settings.stages(space, best)
        return base

    @property
    def _comparisons(self) -> Comparisons:
        return Comparisons(races=self._compat is None and self._racing)
