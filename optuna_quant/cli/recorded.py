"""The study that a command reads, where all that it needs is in a storage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_quant.cli.options import add_config
from optuna_quant.cli.options import add_some
from optuna_quant.cli.options import given_options
from optuna_quant.cli.options import storage_given
from optuna_quant.tuning.options.request import TuneOptions


if TYPE_CHECKING:
    import optuna


_JOURNALS = "*.optuna_quant.journal"
_HELP = {
    "storage": "where the study is kept, as for tune (default: the environment variable "
    f"OPTUNA_STORAGE, otherwise the only file {_JOURNALS} in this directory)",
    "study_name": "its name there (default: {default})",
}


def add_recorded(parser: argparse.ArgumentParser, default: str = "the only study") -> None:
    """Add the options that say which study is read.

    Args:
        parser:
            The parser.
        default:
            Which study that is without a name, for the help.
    """
    add_config(parser)
    add_some(
        parser,
        TuneOptions,
        _HELP,
        {name: told.replace("{default}", default) for name, told in _HELP.items()},
    )


def recorded_storage(args: argparse.Namespace) -> tuple[str, str | None]:
    """The address of the storage, and the name of the study if one was given.

    Args:
        args:
            The arguments.

    Raises:
        ValueError:
            If none is given and this directory does not have one journal file.
    """
    given = given_options(args, TuneOptions, only=_HELP)
    name = given.get("study_name")
    return storage_given(given) or _only_journal(), None if name is None else str(name)


def recorded_studies(args: argparse.Namespace) -> list[optuna.Study]:
    """The study of the name that was given, otherwise all of the storage.

    Args:
        args:
            The arguments.

    Raises:
        ValueError:
            If the storage is not there, or has no such study, or none.
    """
    import optuna

    from optuna_quant.storages.address import check_file_exists
    from optuna_quant.storages.open import open_storage
    from optuna_quant.tuning.recorded_study import find_recorded

    storage, name = recorded_storage(args)
    if name is not None:
        return [find_recorded(storage, name, "")]
    check_file_exists(storage, "--storage")
    opened = open_storage(storage, heartbeat=False)
    found = [
        optuna.load_study(storage=opened, study_name=each)
        for each in optuna.get_all_study_names(opened)
    ]
    if not found:
        raise ValueError("--storage: it holds no study yet.")
    return found


def recorded_study(args: argparse.Namespace) -> optuna.Study:
    """The study of the name that was given, otherwise the only one of the storage.

    Args:
        args:
            The arguments.

    Raises:
        ValueError:
            As :func:`recorded_studies`; or if there are several.
    """
    found = recorded_studies(args)
    if len(found) > 1:
        names = ", ".join(repr(study.study_name) for study in found)
        raise ValueError(f"--study-name: the storage has several studies; name one of {names}.")
    return found[0]


def _only_journal() -> str:
    """The only journal file in this directory.

    Raises:
        ValueError:
            If there is none, or there are several.
    """
    found = sorted(map(str, Path().glob(_JOURNALS)))
    if len(found) == 1:
        return found[0]
    there = f"several files {_JOURNALS}: {', '.join(found)}" if found else f"no file {_JOURNALS}"
    raise ValueError(f"Give --storage: this directory has {there}.")
