"""Say of each op in words why it runs as it does in the answer of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant._common.nearest import nearest_names
from optuna_quant._common.printable import listed
from optuna_quant.backends.base import HasGraph
from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.gain_per_op import type_of
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import show_measure
from optuna_quant.evaluation.backend_checks import executed_of
from optuna_quant.samplers._models.explanation_text import COST
from optuna_quant.samplers._models.explanation_text import NOT_ALLOWED
from optuna_quant.samplers._models.explanation_text import OPEN
from optuna_quant.samplers._models.explanation_text import cause_of
from optuna_quant.samplers._models.explanation_text import percent
from optuna_quant.samplers._models.explanation_text import probability
from optuna_quant.samplers._models.explanation_text import shown_saving
from optuna_quant.space.config import OpConfig
from optuna_quant.study.missing_ranges import never_quantized
from optuna_quant.tuning.tried_ops import TriedOp
from optuna_quant.tuning.tried_ops import tried_ops
from optuna_quant.tuning.what_runs import op_runs
from optuna_quant.tuning.what_runs import runs_as_asked


if TYPE_CHECKING:
    from optuna_quant.costs.gain_per_op import OpGain
    from optuna_quant.samplers import FallbackOp
    from optuna_quant.samplers import OpError
    from optuna_quant.space.tunable import Tunable
    from optuna_quant.tuning.outcome import Outcome


# What is a smaller part of the cost, or of the error, is called hardly anything.
_HARDLY = 0.001
_NO_ERROR = 0.01
# A part of the cost that is none: such an op is the same however it is asked to run.
_NOTHING = 1e-6
_MOST_NAMED = 3

_OF_WHAT = {LATENCY: "of the time", SIZE: "of the size"}


def explain_op(result: Outcome, op: str) -> str:
    """Why one op runs as it does in the answer.

    Args:
        result:
            The result.
        op:
            The name of the op.

    Raises:
        ValueError:
            If nothing is known of such an op; it names those that are most like it.
    """
    searched = [*({} if result.config is None else result.config.ops), *result.left_out]
    if result.config is None and op in {name for t in result.space.tunables for name in t.ops}:
        raise ValueError(f"explain: nothing is known of {op!r}, as no model was evaluated.")
    others = OthersInModel(result)
    if op in others.reasons and op not in searched:
        return others.reasons[op]
    known = [*dict.fromkeys([*searched, *others.reasons])]
    if op not in known:
        if not searched:
            raise ValueError(f"explain: nothing is known of {op!r}, as no model was evaluated.")
        # In a module that has it, or much like it.
        inside = [name for name in known if name.endswith((f".{op}", f"/{op}"))][:_MOST_NAMED]
        near = " or ".join(map(repr, inside or nearest_names(op, known)))
        meant = f" Did you mean {near}?" if near else f" There are: {listed(known)}."
        rest = len(known) - len(searched)
        beside = f" and the {rest} others of the model" if rest else ""
        raise ValueError(
            f"explain: there is no op {op!r} among the {len(searched)} ops of this search"
            f"{beside}.{meant}"
        )
    return OpReasons(result).of(op)


@dataclass(frozen=True, eq=False)
class OthersInModel:
    """The ops of a model that its search did not look at.

    Args:
        result:
            The result.
    """

    result: Outcome

    @cached_property
    def reasons(self) -> Mapping[str, str]:
        """Why each was not searched, by name; empty if the backend does not tell."""
        original, backend = self.result.original, self.result.backend
        found = {}
        if isinstance(backend, HasGraph):
            found = {
                node.name: f"not searched: {node.op_type} has no quantized form of its own; it "
                "follows the op before it, or computes in floats"
                for node in backend.graph_nodes()
            }
        for each in self.result.not_searched:
            remedy = f": {each.remedy}" if each.remedy else ""
            found[each.op] = f"in {original}, not searched: {each.reason}{remedy}"
        return found


@dataclass(frozen=True, eq=False)
class OpReasons:
    """The reasons of all ops of a result.

    Args:
        result:
            The result.
        asks_runtime:
            Whether models are built, one for each op that would save nothing, to ask the runtime
            what it would compute for it.
    """

    result: Outcome
    asks_runtime: bool = True

    def of(self, op: str) -> str:
        """Why an op runs as it does, in a sentence without its end."""
        config = self.result.config
        if op in self.result.left_out or config is None:
            return self._left_out(self.result.left_out.get(op))
        option = config.ops[op]
        return self._quantized(op, option) if option.is_quantized else self._fallback(op, option)

    def _left_out(self, gain: OpGain | None) -> str:
        if gain is None:
            return "left out of the search, because of what it costs quantized"
        known = self.result.known_objective
        here = "by the given costs" if known and known.times_are_given else "on this machine"
        worse = "slower" if gain.measure == LATENCY else "more expensive"
        return f"left out of the search: {worse} in {_int_of(gain)} {here} ({gain} in FP32)"

    def _fallback(self, op: str, option: OpConfig) -> str:
        """Why an op is in fallback: what keeps it there, and what a trial has shown."""
        where = f"in {precision_of(option)}"
        it = self._it(op)
        missing = self._missing_range(op)
        if missing:
            return f"{where}: {missing}"
        if self.result.is_fp32:
            gain = self._gains.get(self._tunable(op).name)
            said = "" if gain is None else f" ({_alone(it, gain)})"
            return f"{where}: no quantized model is better here by {self.result.objective}{said}"
        found = self._in_fallback.get(op)
        told = [self._cause(op, it), *self._tried_words(op)]
        if found is None or found.error is None:
            told.reverse()  # What a trial has shown is the reason then.
        return f"{where}: {'; '.join(filter(None, told))}"

    def _missing_range(self, op: str) -> str:
        """That an op has no range, if it could not be quantized without."""
        missing = self.result.missing_ranges
        if op not in never_quantized(self.result.space, missing):
            return ""
        return str(missing[op])

    def _cause(self, op: str, it: str) -> str:
        found = self._in_fallback.get(op)
        if not self._tunable(op).quantized:
            return "nothing else is allowed for it"
        if found is None:
            return self._unexplained(op, it, self._saving(op))
        measure = self.result.objective
        cause = cause_of(found, measure)
        if cause == NOT_ALLOWED:
            return "nothing else is allowed for it"
        if cause == COST:
            floats = self._floats_anyway(op) if abs(found.saving or 0.0) <= _NOTHING else ""
            if floats:
                return floats
            return f"with {it} quantized the model would be {shown_saving(found, measure)}"
        if cause == OPEN:
            return self._open(found, it)
        error = self._error(found.error, it)
        if not error:
            return self._unexplained(op, it, found.saving)
        saving = self._saving_words(found.saving)
        said = f"{error}, and {it} {saving}" if saving else error
        if not self.result.recipes_may_help:
            return said
        return f"{said}; recipes that may lower its error were not searched"

    def _floats_anyway(self, op: str) -> str:
        """That the runtime computes an op in floats even if it is asked for integers, and why."""
        tunable, config, backend = self._tunable(op), self.result.config, self.result.backend
        if backend is None or config is None or not self.asks_runtime:
            return ""
        option = tunable.quantized[0]
        try:
            runs = op_runs(executed_of(backend, tunable.set(config, option)), op)
        except Exception:  # A runtime that cannot be asked is no error: then nothing is known.
            return ""
        if runs_as_asked(option, runs) is not False:
            return ""
        note = f": {runs.note}" if runs.note else ""
        return f"asked for {precision_of(option)}, the runtime computes it in floats as well{note}"

    def _unexplained(self, op: str, it: str, saving: float | None) -> str:
        """What can be said of an op of whose error nothing is known."""
        words = self._saving_words(saving)
        saves = f"{it} {words}" if words else ""
        if self._tunable(op).name in self._tried:
            return saves
        told = "no better model was found with it quantized"
        return f"{told}; {saves}" if saves else told

    def _open(self, found: FallbackOp, it: str) -> str:
        assert found.probability is not None
        explanation = self.result.explanation
        samples = None if explanation is None else explanation.samples
        likely = probability(found.probability, samples)
        return (
            f"with {it} quantized as well the model is believed to meet the criterion with a "
            f"probability of {likely}; the search ended before it was tried"
        )

    def _error(self, error: OpError | None, it: str) -> str:
        """What an op would lose, and how much of the whole error is its own."""
        if error is None:
            return ""
        alone = ""
        if error.loss is not None:
            alone = f"alone {it} is expected to bring {self._points(error.loss)}"
        if error.share < _NO_ERROR:
            return alone or "it adds less than 1% of the error of quantizing every op"
        share = f"{percent(error.share)} of the error of quantizing every op"
        side = _side(error)
        mostly = f", most of it from its {side}" if side else ""
        return f"{alone} ({share}{mostly})" if alone else f"it adds {share}{mostly}"

    def _points(self, loss: float) -> str:
        """A loss for people: what is next to nothing is called that."""
        criterion = self.result.criterion
        if 0 <= loss < _HARDLY * criterion.tolerable_loss or loss == 0:
            return "next to no loss"
        return f"a loss of {criterion.show(loss)}"

    def _saving_words(self, saving: float | None) -> str:
        measure = self.result.objective
        if saving is None or measure == OPS:
            return ""
        if saving <= 0:
            return "would save nothing"
        part = "less than 0.1%" if saving < _HARDLY else f"{100 * saving:.2g}%"
        return f"would save {part} {_OF_WHAT.get(measure, f'of the {measure}')}"

    def _tried_words(self, op: str) -> list[str]:
        found = self._tried.get(self._tunable(op).name)
        if found is None:
            return []
        return [f"with it quantized as well {found.shown(self.result.criterion)}"]

    def _quantized(self, op: str, option: OpConfig) -> str:
        where = f"in {precision_of(option)}"
        runs = op_runs(self.result.known_executed, op)
        if runs_as_asked(option, runs) is False:
            kernel = f" ({runs.kernel})" if runs.kernel else ""
            note = f": {runs.note}" if runs.note else ""
            return f"asked for {precision_of(option)}, but the runtime computes it in floats" + (
                f"{kernel}{note}"
            )
        error = None if self.result.explanation is None else self.result.explanation.errors.get(op)
        said = ", and ".join(filter(None, [self._added(op, error), self._saved(op)]))
        return (
            f"{where}: {said}"
            if said
            else f"{where}, as this model has it; nothing is known of it by itself"
        )

    def _added(self, op: str, error: OpError | None) -> str:
        if error is None:
            return ""
        noise = self._noise
        if error.loss is not None and noise is not None and abs(error.loss) < noise:
            return "the loss it adds is below the noise of the evaluation"
        return self._error(error, self._it(op))

    def _saved(self, op: str) -> str:
        gain = self._gains.get(self._tunable(op).name)
        if gain is None or gain.measure == OPS:
            return ""
        if gain.gain <= 0:
            return "beside the others as they are it saves nothing"
        of_what = {LATENCY: "time", SIZE: "size"}.get(gain.measure, "cost")
        fp32 = self._fp32_cost
        part = f" ({100 * gain.gain / fp32:.2g}% of FP32's {of_what})" if fp32 else ""
        saved = f"it saves {show_measure(gain.measure, gain.gain)}{part}"
        if self.result.is_better_than_fp32 is not False:
            return saved
        # Conversions that it shares with its neighbours are paid in any case.
        return f"{saved} beside the others as they are, and all of them together save nothing"

    @cached_property
    def _noise(self) -> float | None:
        """The loss that the evaluation cannot tell from none: half of its interval's width."""
        interval = self.result.loss_interval
        return None if interval is None else (interval[1] - interval[0]) / 2

    @cached_property
    def _fp32_cost(self) -> float | None:
        known = self.result.known_objective
        if known is None or known.table is None:
            return None
        return known.fp32_cost if 0 < known.fp32_cost < float("inf") else None

    @cached_property
    def _in_fallback(self) -> Mapping[str, FallbackOp]:
        explanation = self.result.explanation
        return {} if explanation is None else {each.op: each for each in explanation.fallback}

    @cached_property
    def _tried(self) -> Mapping[str, TriedOp]:
        return tried_ops(self.result)

    @cached_property
    def _tunables(self) -> Mapping[str, Tunable]:
        return {op: tunable for tunable in self.result.space.tunables for op in tunable.ops}

    def _tunable(self, op: str) -> Tunable:
        return self._tunables[op]

    def _it(self, op: str) -> str:
        count = len(self._tunable(op).ops)
        return "it" if count == 1 else f"its group of {count} ops"

    @cached_property
    def _gains(self) -> Mapping[str, OpGain]:
        """What each op or group gains quantized, by the objective; empty if that is not known."""
        known, config = self.result.known_objective, self.result.config
        if known is None or known.table is None or config is None:
            return {}
        return op_gains(known.table, self.result.space, config, own=True)

    def _saving(self, op: str) -> float | None:
        """What quantizing an op would save, as a part of what the answer costs."""
        gain, config = self._gains.get(self._tunable(op).name), self.result.config
        known = self.result.known_objective
        if gain is None or known is None or known.table is None or config is None:
            return None
        cost = known.table.cost(config)
        return gain.gain / cost if cost > 0 else None


def _alone(it: str, gain: OpGain) -> str:
    """What an op costs where it alone is quantized, by which such costs cannot be added up."""
    changes = " with the conversions around it" if gain.measure == LATENCY else ""
    return f"{it} alone in {_int_of(gain)}{changes}: {gain} in FP32"


def _int_of(gain: OpGain) -> str:
    """The type of the quantized option of which a gain is."""
    return type_of(OpConfig.from_label(gain.label))


def precision_of(option: OpConfig) -> str:
    """In what an op is asked to compute, for people: FP32, INT8, INT4 weights.

    Args:
        option:
            How it is asked to run.
    """
    if not option.is_quantized:
        return option.mode.upper()
    found = type_of(option)
    if option.mode == "weight_only":
        return f"{found} weights"
    return found


def _side(error: OpError) -> str:
    """Which of the two tensors most of an op's error comes from; empty if neither or unknown."""
    if error.activations is None:
        return ""
    if error.activations >= 0.7:
        return "activations"
    return "weights" if error.activations <= 0.3 else ""
