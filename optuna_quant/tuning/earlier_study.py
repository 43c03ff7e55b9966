"""Find the earlier study that a user names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from typing import Protocol
from typing import TypeAlias

import optuna

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.storages.address import check_file_exists
from optuna_quant.storages.open import open_storage


if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from optuna_quant.storages.open import Storage


class HasStudy(Protocol):
    """An object with a study, such as a :class:`~optuna_quant.TuningResult`."""

    @property
    def study(self) -> optuna.Study:
        """The study."""
        ...


FromStudy: TypeAlias = "optuna.Study | HasStudy | str | tuple[Storage, str | None]"
"""An earlier study: itself, a result, its name in the same storage, or ``(storage, name)``, where
a name of :obj:`None` stands for the only study there."""

_FORMS = (
    "a study, a TuningResult, the name of a study in the same storage, or a pair "
    "(storage, name), such as ('old.journal', None) for the only study of a file"
)
_SHOWN = 5


def check_from_study(value: object) -> None:
    """Check that something can stand for an earlier study; it is not opened.

    Raises:
        TypeError:
            If it cannot.
    """
    if isinstance(value, optuna.Study) or (isinstance(value, str) and value):
        return
    if isinstance(getattr(value, "study", None), optuna.Study):
        return
    if isinstance(value, tuple) and len(value) == 2:
        storage, name = value
        if storage is not None and isinstance(name, str | None):
            return
    raise TypeError(f"from_study must be {_FORMS}, but got {value!r}.")


def parse_from_study(text: str) -> FromStudy:
    """What ``--from-study`` says: ``NAME``, ``NAME@STORAGE`` or ``@STORAGE``.

    Raises:
        ValueError:
            If a part that is announced is missing.
    """
    name, at, storage = text.partition("@")
    if (at and not storage) or not text:
        raise ValueError(
            f"--from-study must be NAME (of the same storage), NAME@STORAGE or @STORAGE (for its "
            f"only study), but is {text!r}."
        )
    return (storage, name or None) if at else name


def name_of(value: FromStudy) -> str | None:
    """The name of the study, as far as it is said."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return value[1]
    return _study_of(value).study_name


def find_study(value: FromStudy, storage: BaseStorage, *, own: str) -> optuna.Study:
    """Open an earlier study.

    Args:
        value:
            What stands for it.
        storage:
            The storage of the new study, in which a bare name is looked up.
        own:
            The name of the new study, which is not meant.

    Raises:
        NotOpenedError:
            If its storage cannot be opened.
        ValueError:
            If there is no such study, or a storage whose only study is meant has several.
    """
    if isinstance(value, tuple):
        place = value[0]
        if isinstance(place, str | os.PathLike):
            check_file_exists(os.fspath(place), "from_study")
        return _load(open_storage(place, heartbeat=False), value[1], own="")
    if isinstance(value, str):
        if value == own:
            raise ValueError(
                f"from_study: the study {own!r} cannot start from itself. To continue it, leave "
                "from_study out; to start a new study from it, give the new one another study "
                "name."
            )
        return _load(storage, value, own=own)
    return _study_of(value)


def trial_of(value: FromStudy) -> int | None:
    """The number of the trial that was the answer, where a result says it."""
    trial = getattr(value, "trial", None)
    return None if trial is None or not value.met else int(trial.number)  # type: ignore[union-attr]


def _study_of(value: optuna.Study | HasStudy) -> optuna.Study:
    return value if isinstance(value, optuna.Study) else value.study


def _load(storage: BaseStorage, name: str | None, *, own: str) -> optuna.Study:
    names = [known for known in optuna.get_all_study_names(storage) if known != own]
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        has = f"{len(names)} studies: {_listed(names)}" if names else "no study"
        raise ValueError(f"from_study: the storage has {has}. Name the one to start from.")
    if name not in names:
        hint = did_you_mean(name, names)
        known = (
            f" It has: {_listed(names)}."
            if names
            else " It has no other study; one in another storage is given as (storage, name), on "
            "the command line as NAME@STORAGE."
        )
        raise ValueError(f"from_study: there is no study {name!r} in the storage.{hint}{known}")
    return optuna.load_study(storage=storage, study_name=name)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
