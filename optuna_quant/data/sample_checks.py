"""Whether samples fit the inputs of a model, and where their labels are."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.data.constant_inputs import cure_of_missing
from optuna_quant.data.shape_cures import cure_of_shape


if TYPE_CHECKING:
    from optuna_quant.data.inputs import InputSpec


LABELS = ("labels", "label", "targets", "target", "y")
"""Under one of these names the labels are looked for; otherwise in what is no model input."""


def find_labels(given: Iterable[str], inputs: Sequence[InputSpec], where: str) -> str:
    """The name of the labels, where there is all that the model needs.

    Raises:
        ValueError:
            If an input is missing, or it is not clear which array holds the labels.
    """
    given, names = list(given), [spec.name for spec in inputs]
    check_inputs(given, names, where)
    rest = [name for name in given if name not in names]
    named = [name for name in LABELS if name in rest] or rest
    if not rest or (named == rest and len(rest) > 1):
        raise ValueError(
            f"There must be one array of labels in {where}, named 'labels', next to the model's "
            f"inputs ({', '.join(names)}); there are: {', '.join(given)}. Without labels, "
            "metric='agreement' (--metric agreement) of classes, or 'cosine' or 'relative_error' "
            "in its place, compares a model with the FP32 model."
        )
    return named[0]


def check_inputs(
    given: Iterable[str], names: Sequence[str], where: str, *, labels: bool = True
) -> None:
    """Check that the samples hold all inputs of the model.

    Raises:
        ValueError:
            Naming the first that is missing.
    """
    given = list(given)
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(
            f"Input {missing[0]!r} is missing in {where}, which holds: "
            f"{', '.join(given) or 'nothing'}. Name the arrays as the model's inputs "
            f"({', '.join(names)}){', and the labels ' + repr('labels') if labels else ''}."
            f"{cure_of_missing(missing[0], names)}"
        )


def check_fits(spec: InputSpec, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    """Check that samples have the type and the shape that a model's input has.

    Raises:
        ValueError:
            If they do not, or are empty.
    """
    if spec.dtype == object:
        fits = dtype.kind in "OUS"
    else:
        fits = dtype == spec.dtype or dtype.kind == spec.dtype.kind == "f"
        fits = fits or loses_nothing(dtype, spec.dtype)
    if spec.shape is not None:
        fits = fits and len(shape) == len(spec.shape)
        fits = fits and all(
            not isinstance(wanted, int) or wanted == size
            for wanted, size in zip(spec.shape, shape, strict=True)
        )
    if not fits:
        cure = cure_of_texts(dtype) or cure_of_shape(spec.shape, shape)
        raise ValueError(
            f"Input {spec.name!r}: {where} is {dtype} of shape {shape}, but the model expects "
            f"{spec}.{cure}{cure_of_wide(dtype, spec.dtype)} Prepare the evaluation data exactly "
            "as for inference; transform= (--transform) can do that."
        )
    if 0 in shape[1:]:
        raise ValueError(
            f"Input {spec.name!r}: {where} is empty, with shape {shape}; the model expects {spec}."
        )


def loses_nothing(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether numbers become integers of a model's input as a module takes them.

    Truth values and narrower integers do, such as the tokens of a tokenizer in int32.
    """
    return wanted.kind in "iu" and np.can_cast(given, wanted, "safe")


def cure_of_wide(given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """What to do about integers that are wider than the model's; empty if they are not."""
    if not (given.kind in "iu" and wanted.kind in "iu"):
        return ""
    return (
        f" The model was exported for {wanted}: export it with an example (example_inputs) of "
        f"{given}, or cast the data to {wanted}."
    )


def warn_of_others(
    given: Iterable[object], inputs: Sequence[InputSpec], where: str, told: set[str]
) -> None:
    """Warn once of each name in data that is no input of the model and no labels.

    Args:
        given:
            All names.
        inputs:
            The inputs of the model.
        where:
            What the data are, for the message.
        told:
            The names that it has been told of; those that are new are added.
    """
    names = [spec.name for spec in inputs]
    others = [str(name) for name in given if name not in names and name not in LABELS]
    new = [name for name in dict.fromkeys(others) if name not in told]
    if new:
        told.update(new)
        is_one = len(new) == 1
        warn_user(
            f"{', '.join(map(repr, new))} in {where} "
            f"{'is no input' if is_one else 'are no inputs'} that the model takes from them and "
            f"{'is' if is_one else 'are'} ignored: those are {names}."
        )


def cure_of_texts(given: object) -> str:
    """What to do about texts where numbers are expected; empty if they are none.

    Args:
        given:
            What was given, or its type.
    """
    while isinstance(given, list | tuple) and given:
        given = given[0]
    kind = given if isinstance(given, np.dtype) else getattr(given, "dtype", None)
    is_text = isinstance(given, str) or (isinstance(kind, np.dtype) and kind.kind == "U")
    return " Tokenize texts first, and give what the tokenizer returns." if is_text else ""


def are_whole(inputs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether samples of these shapes have all of the model's axes: none could be added."""
    known = [(spec.shape, shapes[spec.name]) for spec in inputs if spec.shape is not None]
    return bool(known) and all(
        len(wanted) == len(shape)
        and all(
            not isinstance(size, int) or size == have
            for size, have in zip(wanted[1:], shape[1:], strict=True)
        )
        for wanted, shape in known
    )


def have_batch_of_one(inputs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether samples of these shapes are batches of one sample: their first axis can go."""
    return are_whole(inputs, shapes) and all(shapes[spec.name][:1] == (1,) for spec in inputs)


def unwrapped(given: object) -> object:
    """The one input of a sample or batch, also where it comes as a tuple or list of one array.

    Args:
        given:
            What stands for the inputs.
    """
    if isinstance(given, tuple | list) and len(given) == 1 and getattr(given[0], "ndim", 0) > 0:
        return given[0]
    return given


def at_least_one(samples: int, where: str) -> int:
    """A number of samples that is not zero.

    Raises:
        ValueError:
            If it is.
    """
    if samples < 1:
        raise ValueError(f"There are no samples in {where}; at least one is needed.")
    return samples
