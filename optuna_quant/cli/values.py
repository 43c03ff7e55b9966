"""The values of the command's options, as a search takes them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common import option_kinds as kinds
from optuna_quant._common.option import options_of
from optuna_quant.cli.loading import data_path
from optuna_quant.cli.loading import existing_file
from optuna_quant.cli.loading import function_file
from optuna_quant.cli.loading import load
from optuna_quant.cli.loading import read_json
from optuna_quant.data.constant_inputs import files_of_inputs
from optuna_quant.data.constant_inputs import parse_inputs
from optuna_quant.evaluation.holdout_split import as_fraction
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.tuning.earlier_study import parse_from_study


if TYPE_CHECKING:
    from optuna_quant._common.option import Option
    from optuna_quant._common.option_kinds import Kind
    from optuna_quant._common.option_kinds import Plain
    from optuna_quant.data.forms import InputValues
    from optuna_quant.tuning.earlier_study import FromStudy


def read_values(given: Mapping[str, Plain], cls: type) -> dict[str, Any]:
    """The values of options as Python takes them.

    Args:
        given:
            The options, as flags or a file say them.
        cls:
            The class that declares them.

    Raises:
        ValueError:
            If a value cannot be read.
    """
    options = options_of(cls)
    return {name: _read(options[name], value) for name, value in given.items()}


def _read(option: Option, value: Plain) -> object:
    assert option.flag is not None
    reader = _READERS.get(option.flag.kind)
    return value if reader is None else reader(option, value)


def _function(option: Option, spec: str) -> object:
    return load(option.flags[0], spec, option.name, ())


def _metric(option: Option, spec: str) -> object:
    """One of our metrics by its name, or one of a file."""
    if ".py" not in spec:
        return spec
    return load(option.flags[0], spec, "metric", (SampleMetric, CorpusMetric))


def _table(option: Option, value: Plain) -> Plain:
    return read_json(option.flags[0], value) if isinstance(value, str) else value


def _inputs(option: Option, value: Any) -> InputValues:
    return parse_inputs(_input_texts(value))


def _input_texts(value: Any) -> list[str]:
    """What ``--input`` would say for a table of a file."""
    if not isinstance(value, dict):
        return list(value)
    is_file = {n: isinstance(v, str) and v.startswith("@") for n, v in value.items()}
    return [f"{n}={v if is_file[n] else json.dumps(v)}" for n, v in value.items()]


def _op_types(option: Option, value: Plain) -> Plain:
    if value in ("default", "all") or not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _choices(option: Option, value: Plain) -> Plain:
    """A table as JSON or in a file, or names separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith(("{", "@")):
        return read_json(option.flags[0], value)
    names: list[Plain] = [part.strip() for part in value.split(",") if part.strip()]
    return names[0] if len(names) == 1 else names


def _counts(option: Option, value: Plain) -> Plain:
    return value if isinstance(value, list) else [value]


def _bounds(option: Option, value: list[float]) -> tuple[float, ...]:
    return tuple(value)


def _study(option: Option, value: str) -> FromStudy:
    return parse_from_study(value)


_READERS: dict[Kind, Callable[[Option, Any], object]] = {
    kinds.FUNCTION: _function,
    kinds.METRIC: _metric,
    kinds.TABLE: _table,
    kinds.INPUTS: _inputs,
    kinds.OP_TYPES: _op_types,
    kinds.CHOICES: _choices,
    kinds.COUNTS: _counts,
    kinds.BOUNDS: _bounds,
    kinds.STUDY: _study,
}


def files_read(given: Mapping[str, Plain], cls: type) -> dict[str, Path]:
    """The files that are read for options, by what they are called.

    Args:
        given:
            The options, as flags or a file say them.
        cls:
            The class that declares them.

    Raises:
        ValueError:
            If a file does not exist.
    """
    options = options_of(cls)
    found: dict[str, Path] = {}
    for name, value in given.items():
        flag = options[name].flag
        assert flag is not None
        if flag.kind is kinds.INPUTS:
            found |= files_of_inputs(_input_texts(value))
        path = None if flag.reads is None else _file(options[name], flag.kind, value, given)
        if flag.reads is not None and path is not None:
            found[flag.reads] = path
    return found


def _file(option: Option, kind: Kind, value: Any, given: Mapping[str, Plain]) -> Path | None:
    flag = option.flags[0]
    if kind is kinds.HOLDOUT:
        if fraction_of(value) is not None:
            return None
        kind = kinds.DATA if given.get("evaluate") is None else kinds.FUNCTION
    if kind is kinds.DATA:
        return data_path(flag, value)
    if kind is kinds.FUNCTION:
        default = "evaluate" if option.name == "holdout" else option.name
        return function_file(value, flag, default)[0]
    if kind in (kinds.TABLE, kinds.CHOICES):
        return Path(value[1:]) if isinstance(value, str) and value.startswith("@") else None
    if kind is kinds.TARGET and kind.path(value) is None:
        return None
    return existing_file(flag, value)


def fraction_of(holdout: Plain) -> float | None:
    """The part of the data that ``--holdout`` says; :obj:`None` if it names a file.

    Raises:
        ValueError:
            If it is not a fraction between 0 and 1.
    """
    try:
        number = float(str(holdout))
    except ValueError:
        return None
    return None if Path(str(holdout)).exists() else as_fraction(number)


def read_holdout(given: Mapping[str, Any]) -> object:
    """The hold-out set: a part of the data, or data or a function, as the search is given.

    Args:
        given:
            The options, as flags or a file say them.

    Raises:
        ValueError:
            If it is the function that the search itself calls, or cannot be read.
    """
    holdout, evaluate = given.get("holdout"), given.get("evaluate")
    fraction = None if holdout is None else fraction_of(holdout)
    if fraction is not None:
        return fraction
    if holdout is None or evaluate is None:
        return holdout
    file, name = function_file(holdout, "--holdout")
    searched, its_name = function_file(evaluate)
    if name == its_name and file.samefile(searched):
        raise ValueError(
            f"--holdout and --evaluate are the same function ({evaluate}): the one of --holdout "
            "must evaluate other samples, which the search does not see."
        )
    return load("--holdout", holdout, "evaluate", ())
