"""Options that cost the same, and a few configurations that show what the others cost."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import random
from typing import TYPE_CHECKING

from optuna_quant.space.config import QUANTIZED_MODES


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


FLOAT = "fp32"
"""The class of an op that is left as it is."""


def is_quantized(name: str) -> bool:
    """Whether the options of a class are quantized ones."""
    return name.split(" ")[0] in QUANTIZED_MODES


def is_changed(config: QuantConfig) -> bool:
    """Whether any op is not left as it is."""
    return any(option.mode != FLOAT for option in config.ops.values())


def option_class(option: OpConfig) -> str:
    """What the cost of an option depends on: all but how ranges are found.

    With weights alone that includes zero points, which take space, and what else the runtime then
    computes: at another accuracy level, the factors of AWQ, or with zero points in floats.
    """
    if not option.is_quantized:
        return option.mode
    if option.mode == "weight_only":
        return _weight_only_class(option)
    sides = {"a": option.activation, "w": option.weight}
    return " ".join([option.mode, *(f"{k}={_form(v)}" for k, v in sides.items() if v is not None)])


def _weight_only_class(option: OpConfig) -> str:
    assert option.weight is not None
    parts = [option.mode, f"w={_form(option.weight)}", option.weight.scheme]
    if option.accuracy_level is not None:
        parts.append(f"level={option.accuracy_level}")
    if option.weight.algorithm in ("awq", "hqq_float"):
        parts.append(option.weight.algorithm)
    return " ".join(parts)


def _form(tensor: TensorConfig) -> str:
    group = "" if tensor.group_size is None else f"={tensor.group_size}"
    return f"{tensor.dtype}/{tensor.granularity}{group}"


def nearest_class(wanted: str, known: Sequence[str]) -> str:
    """The class that is likest: of the same mode, with the most equal parts."""

    def likeness(name: str) -> tuple[bool, bool, int]:
        mode, *parts = name.split(" ")
        wanted_mode, *wanted_parts = wanted.split(" ")
        return (
            is_quantized(name) == is_quantized(wanted),
            mode == wanted_mode,
            len(set(parts) & set(wanted_parts)),
        )

    return max(known, key=likeness)


def classes_of(tunable: Tunable) -> dict[str, OpConfig]:
    """An option of each class of an op but FP32, in the order of its options."""
    found: dict[str, OpConfig] = {}
    for option in tunable.options:
        if option.mode != FLOAT:
            found.setdefault(option_class(option), option)
    return found


def design(
    space: TuningSpace, neighbours: Neighbours, *, mixtures: int, seed: int
) -> list[QuantConfig]:
    """The configurations to measure.

    FP32, everything quantized (as often as the op with the most classes has classes), and mixtures
    in which neighbours differ: each is chosen so that as many pairs of neighbours as can be are
    seen in a combination of floats and integers in which they have not been seen.

    Args:
        space:
            The tuning space.
        neighbours:
            Which ops meet.
        mixtures:
            How many mixtures.
        seed:
            Of what is chosen at random.
    """
    rng = random.Random(seed)
    options = {t.name: list(classes_of(t).values()) for t in space.tunables}
    rounds = max(map(len, options.values()), default=0)
    configs = [space.fp32()]
    configs += [
        space.fp32().with_ops(
            {
                op: options[t.name][k % len(options[t.name])]
                for t in space.tunables
                if options[t.name]
                for op in t.ops
            }
        )
        for k in range(rounds)
    ]
    seen: dict[tuple[str, str, bool, bool], int] = {}
    home = {op: t.name for t in space.tunables for op in t.ops}
    order = sorted(home, key=lambda op: neighbours.position.get(op, 0))
    met: dict[str, list[str]] = {t.name: [] for t in space.tunables}
    for op in order:
        for other in (*neighbours.before.get(op, ()), *neighbours.beside.get(op, ())):
            if home[other] != home[op]:
                met[home[op]].append(home[other])
                # FP32, and everything quantized.
                seen[home[other], home[op], False, False] = 1
                seen[home[other], home[op], True, True] = rounds
    times = {t.name: 0 for t in space.tunables}
    used = {name: list(range(len(chosen))) for name, chosen in options.items()}
    for chosen in used.values():
        rng.shuffle(chosen)
    for k in range(mixtures):
        state: dict[str, bool] = {}
        for name in dict.fromkeys(home[op] for op in order):
            others = [other for other in met[name] if other in state]
            new = {
                # Both about equally often, where nothing else decides.
                choice: sum(0.25 ** seen.get((m, name, state[m], choice), 0) for m in others)
                + 0.1 * (times[name] if not choice else k - times[name])
                + 0.05 * rng.random()
                for choice in (False, True)
            }
            state[name] = bool(options[name]) and new[True] > new[False]
            times[name] += state[name]
            for m in others:
                pair = (m, name, state[m], state[name])
                seen[pair] = seen.get(pair, 0) + 1
        chosen_options = {}
        for t in space.tunables:
            if state.get(t.name):
                which = used[t.name][k % len(used[t.name])]
                chosen_options.update(dict.fromkeys(t.ops, options[t.name][which]))
        configs.append(space.fp32().with_ops(chosen_options))
    return configs


def random_configs(space: TuningSpace, count: int, *, seed: int) -> list[QuantConfig]:
    """Configurations with any share of ops quantized, and any of their options.

    Args:
        space:
            The tuning space.
        count:
            How many.
        seed:
            Of what is chosen at random.
    """
    rng = random.Random(f"random {seed}")
    configs = []
    for k in range(count):
        # Shares from all of the range, also of few.
        share = (k + rng.random()) / count
        changes: Mapping[str, OpConfig] = {
            op: option
            for t in space.tunables
            if t.quantized and rng.random() < share
            for option in [rng.choice(t.quantized)]
            for op in t.ops
        }
        configs.append(space.fp32().with_ops(changes))
    rng.shuffle(configs)
    return configs
