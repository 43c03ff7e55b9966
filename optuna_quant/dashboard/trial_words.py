"""What a trial asks for and what came out of it, in short strings for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant._common.printable import listed
from optuna_quant._common.printable import printable
from optuna_quant.costs.objective import SIZE
from optuna_quant.dashboard.overview import shown_gain
from optuna_quant.sequential import Decision
from optuna_quant.study.stage_words import shown_stage


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.study.trial_view import TrialView


STAGE = "stage"
RESULT = "result"
GAIN = "gain"
CONFIGURATION = "configuration"
"""The user attributes that people read; each is a short string."""

_MOST_NAMES = 6


@dataclass(frozen=True, kw_only=True)
class TrialWords:
    """Puts trials of one study into words.

    Args:
        criterion:
            The criterion of the study.
        fp32:
            What the FP32 model costs, by measure.
        space:
            The tuning space; None if the study keeps none.
        left_out:
            How many ops the tuning space does not have because of what they cost.
    """

    criterion: AccuracyCriterion
    fp32: Mapping[str, float]
    space: TuningSpace | None = None
    left_out: int = 0

    def of(self, view: TrialView) -> dict[str, str]:
        """The strings of a trial, by name; what is not known is left out."""
        texts = {
            STAGE: shown_stage(view.stage or ""),
            RESULT: self.result(view),
            GAIN: self._gain(view),
            CONFIGURATION: self._configuration(view),
        }
        return {name: text for name, text in texts.items() if text}

    def result(self, view: TrialView) -> str:
        """What came out of a trial."""
        if view.failure is not None or view.state == TrialState.FAIL:
            return printable(f"failed: {view.failure or 'no reason is known'}")
        evidence = view.evidence
        if evidence is not None and evidence.estimate is not None:
            about = f"about {evidence.estimate:.4g} after {evidence.samples} of {evidence.of}"
            return f"{_SAID.get(evidence.decision, 'not decided')}: {about} samples"
        if view.loss is None:
            return ""
        if view.is_baseline or not view.is_quantized:
            return "FP32 model, not an answer"
        same = "" if view.reused_from is None else f" (same model as trial {view.reused_from})"
        return f"{'met' if view.met else 'not met'}: loss {self.criterion.show(view.loss)}{same}"

    def _gain(self, view: TrialView) -> str:
        if view.is_baseline:
            return ""
        measures = dict(view.costs)
        if view.model_bytes is not None:
            measures[SIZE] = float(view.model_bytes)
        return shown_gain(measures, self.fp32)

    def _configuration(self, view: TrialView) -> str:
        if self.space is None:
            return ""
        try:
            config = self.space.config_from_params(view.known_params)
        except (KeyError, ValueError):  # It has no parameters yet, or those of another space.
            return ""
        return shown_config(config, left_out=self.left_out)


_SAID: Mapping[str, str] = {
    Decision.FAILS: "not met",
    Decision.MEETS: "certainly met, not fully evaluated",
    Decision.PROVISIONALLY_MET: "probably met, not fully evaluated",
}


def shown_config(config: QuantConfig, *, left_out: int = 0) -> str:
    """A configuration in a line: ``54 of 62 ops in INT8; FP32: conv1, fc``.

    Args:
        config:
            The configuration.
        left_out:
            How many ops the tuning space does not have because of what they cost. They count, as
            in the summary of a search.
    """
    names: dict[str, list[str]] = {}
    for op, option in config.ops.items():
        names.setdefault(precision(option), []).append(op)
    quantized = Counter(
        {kind: len(ops) for kind, ops in names.items() if config.ops[ops[0]].is_quantized}
    )
    total = len(config.ops) + left_out
    parts = [", ".join(f"{count} of {total} ops in {kind}" for kind, count in _sorted(quantized))]
    if not quantized:
        parts = [f"none of {total} ops quantized"]
    else:
        parts += [
            f"{kind}: {listed(ops, _MOST_NAMES)}"
            for kind, ops in names.items()
            if kind not in quantized
        ]
        if left_out:
            parts.append(f"{left_out} left in FP32")
    parts += [f"{name}: {value}" for name, value in config.recipes.items() if value]
    return printable("; ".join(parts))


def _sorted(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def precision(option: OpConfig) -> str:
    """The precision of an op as people call it: ``INT8``, ``INT8 dynamic``, ``FP32``."""
    if not option.is_quantized:
        return option.mode.upper()
    tensor = option.weight or option.activation
    assert tensor is not None
    bits = tensor.dtype.upper()
    return {"static": bits, "dynamic": f"{bits} dynamic"}.get(option.mode, f"{bits} weights")
