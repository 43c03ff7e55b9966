"""Check that an existing study was started with the same model, data, options and criterion."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.base import HasSignature
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.study.criterion import keep_criterion
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.space_signature import check_space
from optuna_quant.study.trial_view import views


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

_ARITHMETIC = "arithmetic"
_ALGORITHMS = "algorithms"
# Studies that an earlier version began lack them.
_MAY_BE_MISSING = (_ARITHMETIC, _ALGORITHMS)
_DATA = "calibration data"
_RUNTIME = "runtime"
# Options on which it depends which of the calibration data are used, if any.
_DECIDE_DATA = frozenset({"approach", "calibration_sizes"})
SIGNATURE = "optuna_quant:signature"


def check_continued(
    study: optuna.Study, backend: Backend, space: TuningSpace, criterion: AccuracyCriterion
) -> None:
    """Refuse a study that was started with something else; write down what a new one begins with.

    Args:
        study:
            The study.
        backend:
            Builds the models. If it :class:`~optuna_quant.backends.base.HasSignature`, that must
            be the same as in the study, but for ``"arithmetic"`` and ``"algorithms"``, which may
            be missing on either side, as in studies that an earlier version began.
        space:
            The tuning space.
        criterion:
            When a metric is good enough; another one than before is allowed, with a warning.

    Raises:
        ChangedError:
            If the calibration data or the backend's options differ, of the same model.
        ValueError:
            If the model, the direction or the tuning space differ.
    """
    criterion.check_direction(study)
    signature = signature_of_models(backend, space)
    known = study.user_attrs.get(SIGNATURE)
    if known is None:
        study.set_user_attr(SIGNATURE, signature)
    else:
        _check_signature(study, known, signature)
    check_space(study, space)
    keep_criterion(study, criterion)
    judged = recorded_criterion(study)
    if judged != criterion:
        _logger.warning(
            f"The study {study.study_name!r} was started with another criterion "
            f"({judged}). Its trials are judged by the new one here, but "
            "study.best_trial still goes by the old one for trials that have ended."
        )


def signature_of_models(backend: Backend, space: TuningSpace) -> dict[str, str]:
    """What the models of a backend depend on, by part; ``"model"`` is among them.

    The versions of algorithms of weights alone are not, where the space has no such options.

    Raises:
        TypeError:
            If the backend's signature is no mapping of strings to strings.
    """
    own = _own_signature(backend) if isinstance(backend, HasSignature) else {}
    if not any(o.mode == "weight_only" for t in space.tunables for o in t.options):
        own.pop(_ALGORITHMS, None)
    return {"model": backend.fingerprint(space.fp32()), **own}


def _own_signature(backend: HasSignature) -> dict[str, str]:
    """What a backend says of itself; a study can keep text alone."""
    found: object = backend.signature()
    who = f"{type(backend).__name__}.signature()"
    if not isinstance(found, Mapping):
        raise TypeError(f"{who} must give a mapping of strings, not {type(found).__name__}.")
    for part, text in found.items():
        if not isinstance(part, str) or not isinstance(text, str):
            wrong = text if isinstance(part, str) else part
            raise TypeError(
                f"{who} must give strings by name, but the part {part!r} is of the type "
                f"{type(wrong).__name__}: {wrong!r}."
            )
    return dict(found)


def check_models(study: optuna.Study, signature: Mapping[str, str]) -> None:
    """Refuse a study whose configurations are other models here; nothing is written.

    Models do not depend on the processor's arithmetic, only their metrics do.

    Args:
        study:
            The study.
        signature:
            What the models depend on here, as :func:`signature_of_models` gives it.

    Raises:
        ValueError:
            If the model, the calibration data or the backend's options differ, or the study does
            not say what it was started with.
    """
    known = study.user_attrs.get(SIGNATURE)
    if known is None:
        raise ValueError(f"The study {study.study_name!r} {_without_model(study)}")
    other = _other_models(known, signature)
    if other:
        raise ValueError(
            f"The study {study.study_name!r} was started with {other}, so its configurations are "
            "different models here. Give the model, the calibration data and the options that it "
            "was started with."
        )


def _without_model(study: optuna.Study) -> str:
    if not any(view.is_finished and view.in_space for view in views(study)):
        return (
            "does not say which model it is about: it was not made by optuna_quant, or never "
            "started."
        )
    return (
        "does not say which model it is about: an objective of your own has evaluated its trials, "
        "and only QuantObjective and tune() record the model. Build it with optuna_quant.quantize("
        "model, config=space.config_from_params(study.trials[N].params), ...), where space is the "
        "tuning space of that objective."
    )


def _check_signature(
    study: optuna.Study, known: Mapping[str, str], signature: Mapping[str, str]
) -> None:
    parts = _different_parts(known, signature)
    if parts == [_ARITHMETIC]:
        raise ValueError(
            f"The study {study.study_name!r} was started on another kind of processor: 8-bit "
            f"arithmetic was {known[_ARITHMETIC]} there and is {signature[_ARITHMETIC]} here, "
            "so their metrics cannot be compared. Continue it on processors of the kind it was "
            "started on, or use another study name or storage; workers of both kinds can share "
            "a study whose backend has reduce_range=True."
        )
    other = _other_models(known, signature)
    if not other:
        return
    raise (ValueError if "model" in parts else ChangedError)(
        f"The study {study.study_name!r} was started with {other}, so its configurations are "
        "different models here. Use what it was started with, or another study name or storage."
    )


def _other_models(known: Mapping[str, str], signature: Mapping[str, str]) -> str:
    """In what the models of two signatures differ, in words; empty if they are the same."""
    # Other options may bring other arithmetic with them.
    parts = [name for name in _different_parts(known, signature) if name != _ARITHMETIC]
    there, here = _options_of(known), _options_of(signature)
    if "model" in parts:
        return f"another model{_other_runtime(there.get(_RUNTIME), here.get(_RUNTIME))}"
    changed = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if not _DECIDE_DATA.isdisjoint(changed):
        # The data differ in which of them are used, and that is said already.
        parts = [name for name in parts if name != _DATA]
    other = " and ".join(f"other {part}" for part in parts)
    if "options" in parts and changed:
        other += f" (it has {_shown(there, changed)}; here {_shown(here, changed)})"
    return other


def _other_runtime(there: str | None, here: str | None) -> str:
    """For which runtimes the models of two backends are, if that differs and is known."""
    if there == here:
        return ""
    if there is None:
        return f", not for {here} as those of the backend here"
    ours = "other ones" if here is None else f"those for {here}"
    return f", for {there}, and the backend here makes {ours}"


def _options_of(signature: Mapping[str, str]) -> dict[str, str]:
    """The options of a signature, by name."""
    given = signature.get("options", "")
    if "=" not in given:  # Of a backend that has other words for them.
        return {"": given} if given else {}
    pairs = [each.partition("=") for each in re.split(r", (?=\w+=)", given)]
    return {name: value for name, _, value in pairs if name}


def _shown(options: Mapping[str, str], names: Sequence[str]) -> str:
    shown = (f"{n}={options[n]}" if n in options else f"no {n}" for n in names)
    return options[""] if "" in options else ", ".join(shown)


def _different_parts(known: Mapping[str, str], signature: Mapping[str, str]) -> list[str]:
    parts = [name for name in {**known, **signature} if known.get(name) != signature.get(name)]
    return [
        name
        for name in parts
        if name not in _MAY_BE_MISSING or (name in known and name in signature)
    ]
