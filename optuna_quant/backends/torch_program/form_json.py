"""How a module is called, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
import inspect
import json
from typing import TYPE_CHECKING
from typing import Any

from torch.utils import _pytree as pytree

from optuna_quant.backends.torch_program.call import CallForm
from optuna_quant.backends.torch_program.call import Constant


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant._common.json_value import Json


def form_to_json(form: CallForm) -> dict[str, Json]:
    """How a module is called, as a value that JSON can hold.

    Args:
        form:
            How it is called.

    Raises:
        ValueError:
            If its arguments or outputs are in a class whose name is not registered.
    """
    return {
        "signature": None if form.signature is None else _signature(form.signature),
        "arguments": list(form.arguments),
        "in_spec": _dumped(form.in_spec, "arguments"),
        "inputs": _places(form.inputs),
        "out_spec": _dumped(form.out_spec, "outputs"),
        "outputs": _places(form.outputs),
    }


def form_from_json(value: Mapping[str, Any]) -> CallForm:
    """Read what :func:`form_to_json` gave.

    Args:
        value:
            What it gave.

    Raises:
        ValueError:
            If arguments or outputs are in a class that is not registered in this process.
    """
    signature = value["signature"]
    return CallForm(
        None if signature is None else _parsed(signature),
        tuple(value["arguments"]),
        _loaded(value["in_spec"]),
        _constants(value["inputs"]),
        _loaded(value["out_spec"]),
        _constants(value["outputs"]),
    )


def _signature(signature: inspect.Signature) -> list[Json]:
    return [
        {
            "name": each.name,
            "kind": each.kind.name,
            "optional": each.default is not inspect.Parameter.empty,
        }
        for each in signature.parameters.values()
    ]


def _parsed(parameters: Sequence[Mapping[str, Any]]) -> inspect.Signature:
    return inspect.Signature(
        [
            inspect.Parameter(
                each["name"],
                getattr(inspect.Parameter, each["kind"]),
                default=None if each["optional"] else inspect.Parameter.empty,
            )
            for each in parameters
        ]
    )


def _places(places: Sequence[str | Constant]) -> list[Json]:
    found: list[Json] = []
    for place in places:
        if isinstance(place, str):
            found.append(place)
            continue
        try:
            json.dumps(place.value)
        except TypeError:
            raise ValueError(
                f"The model has the constant argument or output {place.value!r}, which cannot be "
                "saved: only numbers, strings, truth values and None can."
            ) from None
        found.append({"constant": place.value})  # type: ignore[dict-item]
    return found


def _constants(places: Sequence[Any]) -> list[str | Constant]:
    return [each if isinstance(each, str) else Constant(each["constant"]) for each in places]


def _dumped(spec: pytree.TreeSpec, what: str) -> str:
    try:
        return pytree.treespec_dumps(spec)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"The {what} of the model are in a class that cannot be saved by name ({error}). "
            "Register it with torch.export.register_dataclass(THE_CLASS, "
            "serialized_type_name='the name') before the module is exported."
        ) from error


def _loaded(text: str) -> pytree.TreeSpec:
    try:
        return pytree.treespec_loads(text)
    except (NotImplementedError, KeyError, ValueError) as error:
        raise ValueError(
            f"The model takes or returns a class that this process does not know ({error}). "
            "Register it with torch.export.register_dataclass(THE_CLASS, "
            "serialized_type_name='the name'), as it was when the model was saved, before the "
            "model is loaded."
        ) from error
