"""Default names of studies, and the model that a study is about."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING

import optuna

from optuna_quant.study.compatibility import SIGNATURE
from optuna_quant.study.compatibility import signature_of_models


if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace


# What Optuna calls a study without a name.
_MADE_UP = re.compile(r"no-name-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def model_of(backend: Backend, space: TuningSpace) -> str:
    """A key that identifies the FP32 model of a backend."""
    return signature_of_models(backend, space)["model"]


def model_of_study(study: optuna.Study) -> str | None:
    """The same of the model that a study is about; :obj:`None` if it does not say."""
    signature = study.user_attrs.get(SIGNATURE)
    return signature.get("model") if isinstance(signature, dict) else None


def given_name(study_name: str) -> str | None:
    """The name of a study, if somebody has given it one; one that Optuna made up says nothing.

    Args:
        study_name:
            What it is called.

    Returns:
        The name; :obj:`None` if Optuna has made it up.
    """
    return None if _MADE_UP.fullmatch(study_name) else study_name


def default_name(stem: str, model: str) -> str:
    """The name of a study that was given none: models with the same stem have different ones.

    Args:
        stem:
            What it begins with: the name of the model's file, say.
        model:
            What tells the model from others.
    """
    return f"{stem}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def find_name(storage: BaseStorage, stem: str, model: str) -> str:
    """The name of a model's study: one to continue, or a new one.

    An earlier version gave it the stem alone; such a study is gone on with if it is about the
    same model.
    """
    name = default_name(stem, model)
    if _load(storage, name) is None:
        earlier = _load(storage, stem)
        if earlier is not None and model_of_study(earlier) == model:
            return stem
    return name


def _load(storage: BaseStorage, name: str) -> optuna.Study | None:
    with contextlib.suppress(KeyError):
        return optuna.load_study(storage=storage, study_name=name)
    return None
