"""Why a search is not started, or ends: no quantized model is better than FP32, with figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.cheapest import cheapest_quantized
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import WeightedObjective


if TYPE_CHECKING:
    from optuna_quant.costs.known import KnownObjective
    from optuna_quant.costs.table import CostTable


# What is smaller by a lesser part is not worth a word.
_WORTH_SAYING = 0.005


@dataclass(frozen=True)
class NoGain:
    """Why no search is started or continued; its string says the best cost, and what to do.

    Args:
        known:
            The objective, by which no quantized model is better than FP32.
        table:
            Its costs.
        original:
            What the model is called with nothing quantized.
        searched:
            Whether quantized ones were tried all the same, and none has met the criterion.
    """

    known: KnownObjective
    table: CostTable
    original: str = "FP32"
    searched: bool = False

    def __str__(self) -> str:
        return f"{self.reason}{self._what_to_do()}"

    @property
    def reason(self) -> str:
        """The best costs, in a sentence."""
        known, everything = self.known, self.known.of(self.known.space.default())
        better, best, _ = _words(known.name)
        by = " by more than noise" if self._is_within_noise else ""
        is_relative = isinstance(known.objective, WeightedObjective)
        compared = "" if is_relative else f" ({self._compared()})"
        # What was measured of whole models, beside this or elsewhere, is of other runs.
        predicted = "predicted " if LATENCY in known.measures else ""
        parts = [f"{predicted}{known.show(self._cost)} for the {best} one{compared}"]
        if everything != self._cost:
            parts.append(f"{known.show(everything)} with everything quantized")
        if not is_relative:
            of = "in FP32" if self.original == "FP32" else f"of {self.original}"
            parts.append(f"against {known.show(known.fp32_cost)} {of}")
        return (
            f"By the cost table no quantized model is {better} than {self.original}{by} "
            f"(objective {known.name!r}): {', '.join(parts)}."
        )

    @cached_property
    def _cost(self) -> float:
        """What the best quantized model costs."""
        return self.known.of(cheapest_quantized(self.table, self.known.space))

    @property
    def _noise(self) -> float:
        """By how much the measured times of one model differ, if costs are such times."""
        validation = self.known.costs.validation
        is_time = self.known.measures == (LATENCY,)
        return validation.noise if is_time and validation is not None else 0.0

    @property
    def _is_within_noise(self) -> bool:
        return 0 < abs(self._cost - self.known.fp32_cost) <= self._noise

    def _compared(self) -> str:
        fp32 = self.known.fp32_cost
        if self._is_within_noise:
            return f"no difference beyond noise, {self.known.show(self._noise)}"
        if self._cost == fp32:
            return "no difference"
        *_, worse = _words(self.known.name)
        if not 0 < fp32 < math.inf:
            return worse
        ratio = self._cost / fp32
        return (
            f"{ratio:.2g} times {worse}" if ratio >= 1.1 else f"{100 * ratio - 100:.2g}% {worse}"
        )

    def _what_to_do(self) -> str:
        advice = []
        size = self.known.costs.tables.get(SIZE)
        smaller = None
        if size is not None:
            space = self.known.space
            smaller = 1 - size.cost(cheapest(size, space)) / size.cost(space.fp32())
        if SIZE not in self.known.measures and (smaller is None or smaller > _WORTH_SAYING):
            by = "" if smaller is None else f" (up to {100 * smaller:.0f}% smaller)"
            advice.append(f"for the smallest model{by} use objective='size' (--objective size)")
        if self.searched and OPS not in self.known.measures:
            better, *_ = _words(self.known.name)
            advice.append(
                "for as many quantized ops as the criterion allows, though the model is no "
                f"{better}, use objective='ops' (--objective ops)"
            )
        elif self._is_within_noise:
            advice.append("to try quantized ones all the same use op_types='all' (--op-types all)")
        if LATENCY in self.known.measures and not self.known.times_are_given:
            if self.known.costs.conditions.get("batch") == "1":
                advice.append(
                    "for the times of batches use latency_batch_size=64 (--latency-batch-size 64)"
                )
            advice.append("for another device give what ops cost there: costs= (--costs)")
        text = "; ".join(advice)
        return f" {text[0].upper()}{text[1:]}." if text else ""


def _words(objective: str) -> tuple[str, str, str]:
    """What a model is that is better, the best, and worse."""
    if objective == LATENCY:
        return "faster", "fastest", "slower"
    if objective == SIZE:
        return "smaller", "smallest", "larger"
    return "better", "best", "more expensive"
