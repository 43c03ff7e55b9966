"""Find the configuration that a user chooses without a search: by value, by file, or by name."""

from __future__ import annotations

from collections.abc import Mapping
import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.printable import listed
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.tuning.options.quantization import QuantizationOptions
from optuna_quant.tuning.table import LEVEL_COLUMN
from optuna_quant.tuning.table import NOT_SEARCHED
from optuna_quant.tuning.table import RECIPES_COLUMN


if TYPE_CHECKING:
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.keys import RecipeValue
    from optuna_quant.space.space import TuningSpace


ConfigLike: TypeAlias = QuantConfig | str | os.PathLike[str]
"""A configuration; or the path of a file that holds one; or a name."""

DEFAULT = "default"

_FORMS = (
    "a QuantConfig, a JSON file of QuantConfig.to_json, a CSV file of --report, 'default', or the "
    "label of an option for all ops that have it, such as 'dynamic a=... w=...'"
)
# What says which ops have which options, and so goes with a name and not with a configuration.
_OF_SPACE = ("op_types", "op_type_dict", "op_name_dict", "sensitivities")
_REPORT = ("op", "mode", "activation", "weight")


def is_named(config: ConfigLike | None) -> bool:
    """Whether a configuration is made from the tuning space, and not given op by op.

    Args:
        config:
            What the user gave; :obj:`None` for the default.
    """
    return config is None or (isinstance(config, str) and not _is_file(config))


def read_config(config: ConfigLike) -> QuantConfig:
    """The configuration that is given op by op: a value, or a file.

    Args:
        config:
            A value; or the path of a JSON file that holds what :meth:`QuantConfig.to_json
            <optuna_quant.QuantConfig.to_json>` gives, or of a CSV file as ``--report`` and
            ``report().to_csv`` write it.

    Raises:
        TypeError:
            If it is something else.
        ValueError:
            If the file cannot be read, or holds something else.
    """
    if isinstance(config, QuantConfig):
        return config
    if not isinstance(config, str | os.PathLike):
        raise TypeError(f"config must be {_FORMS}, but got {config!r}.")
    path = Path(config)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not a text file" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ValueError(f"config: {str(path)!r} cannot be read: {why}.") from None
    try:
        return _of_report(text) if path.suffix == ".csv" else QuantConfig.from_json(text)
    except ValueError as error:
        raise ValueError(f"config: {str(path)!r}: {error}") from None


def named_config(name: str | None, space: TuningSpace) -> QuantConfig:
    """The configuration that a name stands for in a tuning space.

    Args:
        name:
            ``"default"`` or :obj:`None`: every op in its first option. The label of an option:
            every op that has it in that option, the others in their first one.
        space:
            The tuning space.

    Raises:
        ValueError:
            If there is no such name, or no op has the option.
    """
    config = space.default()
    if name is None or name == DEFAULT:
        return config
    try:
        option = OpConfig.from_label(name)
    except ValueError:
        raise ValueError(
            f"config: {name!r} is neither a file nor a name; give {_FORMS}."
            f"{did_you_mean(name, [DEFAULT])}"
        ) from None
    having = [tunable for tunable in space.tunables if option in tunable.options]
    if not having:
        labels = dict.fromkeys(each.label for t in space.tunables for each in t.options)
        raise ValueError(
            f"config: no op of the tuning space has the option {name!r}; there are: "
            f"{'; '.join(labels)}."
        )
    for tunable in having:
        config = tunable.set(config, option)
    return config


def with_recipes(config: QuantConfig, capability: Capability) -> QuantConfig:
    """A configuration with the default value of each recipe that it does not name.

    Args:
        config:
            The configuration, perhaps of a report, which names none.
        capability:
            What the backend can do, with the recipes that were asked for.
    """
    defaults = {name: values[0] for name, values in capability.recipes.items()}
    return QuantConfig(config.ops, {**defaults, **config.recipes}, config.calibration_size)


def check_config(config: QuantConfig, capability: Capability) -> None:
    """Refuse a configuration that a backend cannot build.

    Args:
        config:
            The configuration. Ops that it does not name run in FP32.
        capability:
            What the backend can do.

    Raises:
        ValueError:
            If it has an op, an option, a recipe's value or a calibration size that the backend
            does not have; the message names the first.
    """
    ops = {op.name: op for op in capability.ops}
    for name, option in config.ops.items():
        if not option.is_quantized:
            continue
        if name not in ops:
            reason = "cannot be quantized" if name in capability.known_names else "is not there"
            raise ValueError(
                f"config: op {name!r} {reason} in this model.{did_you_mean(name, ops)}"
            )
        offered = (*ops[name].options, *(each.option for each in ops[name].on_request))
        if option not in offered:
            raise ValueError(
                f"config: op {name!r} has no option {option.label!r} here; it has: "
                f"{'; '.join(each.label for each in offered)}."
                f"{other_approach(option, ops[name].options)}"
            )
    for recipe, value in config.recipes.items():
        values = capability.recipes.get(recipe)
        if values is None or value not in values:
            have = "none" if values is None else listed([repr(each) for each in values])
            asked = json.dumps({recipe: value})
            raise ValueError(
                f"config: recipe {recipe!r} cannot be {value!r} here; it has: {have}. Ask for it "
                f"with recipes={asked} (--recipes '{asked}')."
            )
    size = config.calibration_size
    if size is not None and size not in capability.calibration_sizes:
        raise ValueError(
            f"config: it uses {size} calibration samples, which is not one of the sampling sizes "
            f"here: give calibration_sizes=[{size}] (--calibration-samples {size})."
        )


def check_whole(options: QuantizationOptions, said_by: str) -> None:
    """Refuse what narrows a tuning space beside what says the option of each op.

    Args:
        options:
            The options that were given.
        said_by:
            What says it, for the message.

    Raises:
        ValueError:
            If one of them narrows the space.
    """
    usual = QuantizationOptions()
    said = [name for name in _OF_SPACE if getattr(options, name) != getattr(usual, name)]
    if said:
        raise ValueError(
            f"{', '.join(said)} cannot be given with {said_by} says the option of each op: leave "
            "one of the two out."
        )


def other_approach(option: OpConfig, offered: tuple[OpConfig, ...]) -> str:
    """What to do if an op has no option of the mode of an option at all.

    Args:
        option:
            The option, which the op does not have.
        offered:
            Those that it has.

    Returns:
        A sentence with a space before it; empty if the op has options of that mode.
    """
    if option.mode in {each.mode for each in offered}:
        return ""
    return (
        f" Options in {option.mode} mode are there with approach={option.mode!r} "
        f"(--approach {option.mode}) or 'auto'."
    )


def _is_file(name: str) -> bool:
    return name.endswith((".json", ".csv")) or Path(name).exists()


def _of_report(text: str) -> QuantConfig:
    """What each op was asked to run, of a report."""
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in _REPORT if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"this is not a report: it has no column {', '.join(missing)}.")
    ops: dict[str, OpConfig] = {}
    recipes: dict[str, RecipeValue] | None = None
    for number, row in enumerate(reader, start=2):
        if (row.get("note") or "").startswith(NOT_SEARCHED):
            continue  # It may be one that no configuration can name.
        if row["op"] in ops:
            raise ValueError(f"line {number}: op {row['op']!r} comes twice.")
        try:
            ops[row["op"]] = OpConfig.from_label(_label(row))
        except ValueError as error:
            raise ValueError(f"line {number}: op {row['op']!r}: {error}") from None
        found = _recipes(row.get(RECIPES_COLUMN), number)
        if recipes not in (None, found):
            raise ValueError(f"line {number}: other recipes than before: all ops have the same.")
        recipes = found
    return QuantConfig(ops, recipes or {})


def _recipes(text: str | None, line: int) -> dict[str, RecipeValue]:
    """The recipes that a row of a report names."""
    if not text:
        return {}
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("they are no JSON object")
    except ValueError as error:
        raise ValueError(f"line {line}: {RECIPES_COLUMN} cannot be read: {error}.") from None
    return found


def _label(row: Mapping[str, str | None]) -> str:
    sides = {"a": row["activation"], "w": row["weight"]}
    sides["level"] = row.get(LEVEL_COLUMN)
    return " ".join([row["mode"] or "", *(f"{s}={label}" for s, label in sides.items() if label)])
