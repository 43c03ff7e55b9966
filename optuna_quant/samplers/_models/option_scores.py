"""How sensitive the model is to each op in each option: computed once per study, kept in it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import hashlib
import json
import re
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant._common.steps import doing
from optuna_quant.backends.base import CountsPasses
from optuna_quant.backends.base import ScoresTogether
from optuna_quant.backends.base import ScoresWeightsApart
from optuna_quant.backends.base import TakesSamples
from optuna_quant.samplers._engine.scores import check_scores
from optuna_quant.samplers._engine.scores import key_of
from optuna_quant.samplers._models.scored_options import scored_options
from optuna_quant.study import record
from optuna_quant.study.blobs import find_bytes
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.compute_once import LeaseMonitor


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs import CostTable
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


_logger = get_logger(__name__)

_KEPT = rf"optuna_quant:({record.OPTION_SCORES}:[0-9a-f]{{16}})"


@dataclass(frozen=True)
class OptionScores:
    """The sensitivity of each op in each option.

    Args:
        scores:
            By the op's name and the option's label; not negative. What was not scored is missing.
        passes:
            How many samples were run through models for it.
        of_weights:
            What part of the score of ops in their first scored option comes from their weights
            and not from their activations, from 0 to 1; what is not known is missing.
    """

    scores: Mapping[str, Mapping[str, float]]
    passes: float
    of_weights: Mapping[str, float] = field(default_factory=dict)


class OptionSensitivityCache:
    """The option scores that a study keeps.

    Args:
        space:
            The tuning space.
        table:
            What configurations cost: it says which options are worth a look.
        sensitivity:
            What computes them.
    """

    def __init__(self, space: TuningSpace, table: CostTable, sensitivity: Sensitivity) -> None:
        self._space = space
        self._table = table
        self._sensitivity = sensitivity
        self._monitor = LeaseMonitor()
        self._has_warned = False
        self._found: dict[str, OptionScores] = {}
        self._configs: dict[tuple[str, ...], list[QuantConfig]] = {}

    def read(
        self, study: optuna.Study, samples: int | None, tunables: Sequence[Tunable]
    ) -> OptionScores | None:
        """The scores of some ops, if the study holds them."""
        place = self._place(study, samples, tunables)
        if place.name not in self._found:
            data = place.read()
            if data is None:
                return None
            self._found[place.name] = _parsed(data)
        return self._found[place.name]

    def compute(
        self, study: optuna.Study, samples: int | None, tunables: Sequence[Tunable]
    ) -> bool:
        """Compute and keep the scores; :obj:`False` if another worker is doing so.

        Args:
            study:
                The study.
            samples:
                The most samples to use; :obj:`None` for as many as the sensitivity uses.
            tunables:
                The ops; all others run in floating point meanwhile.
        """
        place = self._place(study, samples, tunables)
        return place.offer(lambda: self._computed(samples, tunables)) is not None

    def _configs_of(self, tunables: Sequence[Tunable]) -> list[QuantConfig]:
        """The configurations that are scored; asked for at each step of a search."""
        names = tuple(tunable.name for tunable in tunables)
        if names not in self._configs:
            self._configs[names] = option_configs(self._space, self._table, tunables)
        return self._configs[names]

    def _place(
        self, study: optuna.Study, samples: int | None, tunables: Sequence[Tunable]
    ) -> ComputeOnce:
        key = key_of(self._sensitivity)
        wanted = [config.key for config in self._configs_of(tunables)]
        text = json.dumps([key, samples, wanted])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return ComputeOnce(study, f"{record.OPTION_SCORES}:{digest}", monitor=self._monitor)

    def _computed(self, samples: int | None, tunables: Sequence[Tunable]) -> bytes:
        sensitivity = self._sensitivity
        if samples is not None and isinstance(sensitivity, TakesSamples):
            sensitivity = sensitivity.with_samples(samples)
        configs = self._configs_of(tunables)
        ops = [op for tunable in tunables for op in tunable.ops]
        of_weights: Mapping[str, float] = {}
        with doing("Scoring how much the quantization of each op hurts"):
            if isinstance(sensitivity, ScoresWeightsApart):
                scored, of_weights = sensitivity.score_with_weights(configs, ops)
                found = [check_scores(each, ops) for each in scored]
            else:
                found = score_options(sensitivity, configs, ops)
        if not self._has_warned:
            self._has_warned = _warn_of_negative(found)
        scores: dict[str, dict[str, float]] = {op: {} for op in ops}
        for config, of_config in zip(configs, found, strict=True):
            for op in ops:
                if config.ops[op].is_quantized:
                    scores[op][config.ops[op].label] = max(0.0, of_config[op])
        counted = 0.0
        if isinstance(sensitivity, ScoresWeightsApart):
            counted = float(sensitivity.passes(len(configs), with_weights=True))
        elif isinstance(sensitivity, CountsPasses):
            counted = float(sensitivity.passes(len(configs)))
        kept = {"scores": scores, "passes": counted, "of_weights": dict(of_weights)}
        return json.dumps(kept).encode()


def _warn_of_negative(found: Sequence[Mapping[str, float]]) -> bool:
    """Say that a sensitivity has scores below 0, which are taken for 0; whether it has any."""
    negative = {op: score for scores in found for op, score in scores.items() if score < 0}
    if negative:
        op, score = min(negative.items(), key=lambda item: item[1])
        _logger.warning(
            f"Scores of the sensitivity are negative (least {score:g}, of {op!r}). They count as "
            "0, as if quantizing these ops lost nothing: scores must not be negative."
        )
    return bool(negative)


def kept_scores(study: optuna.Study) -> list[OptionScores]:
    """All option scores that a study keeps, those of the fewest options first."""
    attrs = _optuna.study_system_attrs(study)
    found = (re.fullmatch(_KEPT, name) for name in sorted(attrs))
    names = [each[1] for each in found if each]
    texts = (find_bytes(attrs, name, study_name=study.study_name) for name in names)
    known = [_parsed(text) for text in texts if text is not None]
    return sorted(known, key=lambda each: sum(map(len, each.scores.values())))


def merged(scores: Sequence[OptionScores]) -> OptionScores:
    """The scores of all ops; where several have one, the last counts."""
    return OptionScores(
        {op: of_op for each in scores for op, of_op in each.scores.items()},
        sum(each.passes for each in scores),
        {op: part for each in scores for op, part in each.of_weights.items()},
    )


def _parsed(data: bytes) -> OptionScores:
    stored = json.loads(data)
    # Studies of earlier versions do not have the part of the weights.
    return OptionScores(stored["scores"], stored["passes"], stored.get("of_weights", {}))


def score_options(
    sensitivity: Sensitivity, configs: Sequence[QuantConfig], ops: Sequence[str]
) -> list[dict[str, float]]:
    """The scores of ops in several configurations, together if the sensitivity can do that."""
    found: Sequence[Mapping[str, float]]
    if isinstance(sensitivity, ScoresTogether):
        found = sensitivity.score_options(configs, ops)
    else:
        found = [sensitivity(config, ops) for config in configs]
    return [check_scores(each, ops) for each in found]


def option_configs(
    space: TuningSpace, table: CostTable, tunables: Sequence[Tunable]
) -> list[QuantConfig]:
    """Configurations that together have some ops in each of their options that is scored.

    All other ops run in floating point.
    """
    rows = [(tunable, scored_options(tunable, table)) for tunable in tunables]
    most = max(len(options) for _, options in rows)
    configs = []
    for i in range(most):
        config = space.fp32()
        for tunable, options in rows:
            if options:
                config = tunable.set(config, options[min(i, len(options) - 1)])
        configs.append(config)
    return configs
