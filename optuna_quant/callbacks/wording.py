"""What a trial tries, and what was decided about it, in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from optuna_quant.samplers import QuantSampler
from optuna_quant.study.recorded_space import recorded_space


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.study.evidence import Evidence


# So many ops are named; of more the number is enough.
_NAMED = 2
_MOST_DIGITS = 6
# From so many samples on, a metric of any kind is told to a third digit.
_MANY = 1000


@dataclass(frozen=True)
class Reference:
    """A configuration that others are described against.

    Args:
        config:
            The configuration.
        number:
            The number of its trial.
    """

    config: QuantConfig
    number: int


def space_of(study: optuna.Study) -> TuningSpace | None:
    """The tuning space of a study: its sampler's, or the one that the study keeps."""
    if isinstance(study.sampler, QuantSampler):
        return study.sampler.space
    try:
        return recorded_space(study)
    except ValueError:
        return None


def config_of(space: TuningSpace | None, trial: FrozenTrial) -> QuantConfig | None:
    """The configuration of a trial; :obj:`None` if it has none in this space."""
    if space is None:
        return None
    try:
        return space.config_from_params(trial.params)
    except (KeyError, ValueError):
        return None


def shown_config(
    config: QuantConfig,
    space: TuningSpace | None = None,
    *,
    than: Reference | None = None,
    left_out: int = 0,
) -> str:
    """What a configuration tries: how many ops it quantizes to what, and its recipes.

    Args:
        config:
            The configuration.
        space:
            The tuning space, which says what the recipes are by default.
        than:
            What it is compared with.
        left_out:
            How many ops of the model the tuning space does not have.
    """
    total = len(config.ops) + left_out
    counts = Counter(map(_kind, config.ops.values()))
    del counts["FP32"]
    recipes = _shown_recipes(config, space)
    if not counts:
        parts = ["FP32"]
    elif len(counts) == 1:
        ((kind, count),) = counts.items()
        every = "the only op" if total == 1 else f"all {total} ops"
        parts = [f"{every if count == total else f'{count} of {total} ops'} in {kind}"]
    else:
        each = [f"{count} in {kind}" for kind, count in counts.most_common()]
        parts = [f"of {total} ops {', '.join(each)}"]
    if than is not None:
        parts += _changes(config, than)
    return ", ".join([*parts, *recipes])


def _kind(option: OpConfig) -> str:
    """The type that an op runs in, for people."""
    if not option.is_quantized:
        return option.mode.upper()
    narrowest = option.weight or option.activation
    assert narrowest is not None
    dtype = narrowest.dtype
    name = dtype.partition("_")[0].upper() if "fp" in dtype or "nf" in dtype else ""
    name = name or f"INT{narrowest.bits}"
    if option.mode == "weight_only":
        return f"{name} (weights only)"
    return f"dynamic {name}" if option.mode == "dynamic" else name


def _changes(config: QuantConfig, than: Reference) -> list[str]:
    """What is quantized more, less and in another way than in another configuration."""
    now, before = set(config.quantized_ops), set(than.config.quantized_ops)
    more, fewer = sorted(now - before), sorted(before - now)
    trial = f"trial {than.number}"
    parts = []
    if more or fewer:
        counted = [f"{len(more)} more"] if more else []
        counted += [f"{len(fewer)} fewer"] if fewer else []
        named = [f"+{op}" for op in more] + [f"-{op}" for op in fewer]
        names = f" ({' '.join(named)})" if len(named) <= _NAMED else ""
        parts.append(f"{' and '.join(counted)} than {trial}{names}")
    changed = {
        op: shown_changes(option, than.config.ops[op])
        for op, option in config.ops.items()
        if op in than.config.ops and op not in {*more, *fewer} and option != than.config.ops[op]
    }
    if changed:
        others = "other changed" if len(changed) == 1 else "others changed"
        what = others if parts else f"changed from {trial}"
        parts.append(f"{len(changed)} {what} ({_shown_all(changed)})")
    return parts if parts or config != than.config else [f"as {trial}"]


def _shown_all(changed: Mapping[str, Sequence[str]]) -> str:
    """What has changed in ops, the most frequent first; few ops are named."""
    counts = Counter(each for changes in changed.values() for each in changes)
    names = f"{' '.join(sorted(changed))}: " if len(changed) <= _NAMED else ""
    shown = [
        each if count == len(changed) else f"{each} in {count}"
        for each, count in counts.most_common(_NAMED)
    ]
    rest = len(counts) - len(shown)
    return f"{names}{', '.join(shown)}{f', and {rest} more' if rest else ''}"


def shown_changes(now: OpConfig, before: OpConfig) -> list[str]:
    """What is different in how an op runs, each as ``weights per_tensor -> per_channel``.

    Args:
        now:
            How it runs.
        before:
            How it ran.
    """
    if now.mode != before.mode:
        return [f"{_mode(before)} -> {_mode(now)}"]
    changes = []
    sides = {
        "activations": (before.activation, now.activation),
        "weights": (before.weight, now.weight),
    }
    for side, (old, new) in sides.items():
        if old is None or new is None:
            if old != new:
                changes.append(f"{side} {'quantized' if old is None else 'not quantized'}")
            continue
        for name in ("dtype", "scheme", "granularity", "algorithm"):
            one, other = _shown_field(old, name), _shown_field(new, name)
            if one != other:
                changes.append(f"{side} {one} -> {other}")
    if now.accuracy_level != before.accuracy_level:
        changes.append(f"level {before.accuracy_level} -> {now.accuracy_level}")
    return changes


def _mode(option: OpConfig) -> str:
    """The way in which an op runs, as people call it."""
    return option.mode.replace("_", "-") if option.is_quantized else option.mode.upper()


def _shown_field(tensor: TensorConfig, name: str) -> str:
    """A field of how a tensor is quantized, as labels have it."""
    value = str(getattr(tensor, name))
    if name == "granularity" and tensor.group_size is not None:
        return f"{value}={tensor.group_size}"
    return value


def _shown_recipes(config: QuantConfig, space: TuningSpace | None) -> list[str]:
    """The recipes that are in use, and the calibration size where there is a choice."""
    found = []
    for name, value in config.recipes.items():
        default = space.recipes[name][0] if space is not None and name in space.recipes else False
        if value != default:
            found.append(name if value is True else f"{name} {value}")
    sizes = () if space is None else space.calibration_sizes
    if len(sizes) > 1 and config.calibration_size is not None:
        found.append(f"calibrated on {config.calibration_size} samples")
    return found


def shown_bound(evidence: Evidence, threshold: float | None) -> str:
    """What a metric is at most, or at least, where that shows that the criterion is missed.

    Args:
        evidence:
            What was seen.
        threshold:
            What is missed.
    """
    low, high = evidence.bounds or (-math.inf, math.inf)
    if threshold is not None and low > threshold:
        return shown_interval_of(low, math.inf, threshold)
    if threshold is not None and high < threshold:
        return shown_interval_of(-math.inf, high, threshold)
    return rounded_estimate(evidence.estimate, evidence.samples)


def shown_sureness(evidence: Evidence) -> str:
    """How sure it is that a metric misses its criterion; empty if that is not known."""
    if evidence.error_probability is None:
        return ""
    if evidence.error_probability == 0:
        return "certain"
    return f"{100 * (1 - evidence.error_probability):.10g}% sure"


def shown_interval_of(low: float, high: float, threshold: float | None = None) -> str:
    """An interval, rounded outwards to two digits of its width; to three where it has one end.

    Args:
        low:
            Its lower end; may be infinite.
        high:
            Its upper end; may be infinite.
        threshold:
            A value that the rounded ends have to stay on the same side of.
    """
    width = high - low
    digits = _digits(width) if math.isfinite(width) and width > 0 else 3
    shown = _outwards(low, high, digits)
    while threshold is not None and digits < _MOST_DIGITS and _hides(threshold, low, high, shown):
        digits += 1
        shown = _outwards(low, high, digits)
    below, above = (f"{each:.{digits}f}" if math.isfinite(each) else "" for each in shown)
    if below == above:
        return below
    if not below:
        return f"at most {above}"
    return f"{below} to {above}" if above else f"at least {below}"


def _digits(width: float) -> int:
    """How many decimals two digits of a width have."""
    return min(_MOST_DIGITS, max(0, 1 - math.floor(math.log10(width))))


def _outwards(low: float, high: float, digits: int) -> tuple[float, float]:
    scale, slack = 10.0**digits, 1e-9
    rounded_low = math.floor(low * scale + slack) / scale if math.isfinite(low) else low
    rounded_high = math.ceil(high * scale - slack) / scale if math.isfinite(high) else high
    return rounded_low, rounded_high


def _hides(threshold: float, low: float, high: float, shown: tuple[float, float]) -> bool:
    """Whether rounding moves an end of the interval over a threshold."""
    return (high < threshold <= shown[1]) or (shown[0] <= threshold < low)


def rounded_estimate(estimate: float | None, samples: int) -> str:
    """An estimate with as many digits as the number of samples can tell apart.

    Args:
        estimate:
            The estimate.
        samples:
            On how many samples.
    """
    if estimate is None or not math.isfinite(estimate):
        return "unknown"
    if not 0 <= estimate <= 1:
        # Twice, so that large ones are no powers of ten.
        return f"about {float(f'{estimate:.{2 if samples < _MANY else 3}g}'):.10g}"
    # As of a share; of one that was seen always, or never, the next sample may be the first.
    share = (estimate * samples + 1) / (samples + 2)
    error = math.sqrt(share * (1 - share) / max(samples, 1))
    return f"about {estimate:.{max(1, math.ceil(-math.log10(error)))}f}"


def shown_loss(value: float, baseline: float, criterion: AccuracyCriterion) -> str:
    """A metric that was measured in full, with its loss."""
    return f"metric {value:.6g}, loss {criterion.show(criterion.loss(value, baseline))}"
