"""Detect that a study was deleted, or its file removed, while a process works on it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import TYPE_CHECKING

from optuna_quant import _optuna


if TYPE_CHECKING:
    import optuna


class StudyGoneError(ValueError):
    """The study that a process works on is no longer there."""


def why_gone(study: optuna.Study) -> str | None:
    """What has become of a study that is no longer there; :obj:`None` if it is there.

    Args:
        study:
            The study. Its name is known without its storage.
    """
    storage, study_id = _optuna.study_identity(study)
    if not _optuna.has_file(storage):
        return (
            f"The study {study.study_name!r} is gone: {str(_optuna.file_of(storage))!r}, which "
            "held it, was removed or replaced while this process worked on it. What was "
            "evaluated is lost; start again."
        )
    try:
        name = _optuna.stored_study_name(storage, study_id)
    except KeyError:
        name = None
    except Exception:  # Whatever ails the storage, the study may be there.
        return None
    if name == study.study_name:
        return None
    return (
        f"The study {study.study_name!r} was deleted while this process worked on it, perhaps "
        "by another one with --fresh, or in a dashboard. What was evaluated is lost; the same "
        "call starts it again, or joins a new study of that name (then leave --fresh out)."
    )


def check_file(study: optuna.Study) -> None:
    """Refuse to continue if the file of the storage was removed: results would be lost.

    Raises:
        StudyGoneError:
            If it is not there. SQLite would go on to write to a file without a name.
    """
    storage, _ = _optuna.study_identity(study)
    if not _optuna.has_file(storage):
        raise StudyGoneError(why_gone(study))


@contextlib.contextmanager
def named_if_gone(study: optuna.Study) -> Iterator[None]:
    """Say that the study is gone, instead of whatever error that leads to.

    Raises:
        StudyGoneError:
            If an error was raised and the study is no longer there.
    """
    try:
        yield
    except StudyGoneError:
        raise
    except Exception as error:
        reason = why_gone(study)
        if reason is None:
            raise
        raise StudyGoneError(reason) from error
