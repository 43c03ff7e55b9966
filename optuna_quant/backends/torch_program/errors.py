"""Why a module cannot be exported: the place in the user's code, and what to do."""

from __future__ import annotations

import linecache
from pathlib import Path
import re
import sys
import traceback


_NO_CONVERSION = re.compile(r"No ONNX function found for .*?op='([\w.]+)'")
_LONGEST_REASON = 300
_OTHERS = ("torch", "onnxscript", "onnx_ir", "optuna_quant")
"""The packages whose code is not the user's; the standard library lies in a folder "lib"."""
_AXES_CURE = (
    "an axis cannot have any size: give dynamic_shapes to "
    "optuna_quant.backends.onnxruntime.export_module and pass what it returns"
)
_CURES = (
    (
        re.compile(r"data-dependent|Could not guard|GuardOnDataDependent|_local_scalar_dense"),
        "an if or a loop depends on the values of a tensor: use torch.where or torch.cond, or "
        "export only the part of the model without it",
    ),
    (
        re.compile(r"\.numpy\(\) is not supported|SymFloat|SymInt' object has no attribute"),
        "what forward computes with NumPy or Python's numbers cannot be followed: compute it with "
        "torch",
    ),
    (
        re.compile(
            r"Input type \(.*\) and (bias|weight) type|must have the same dtype|"
            r"expected (m1 and m2|mat1 and mat2|scalar type)"
        ),
        "give example_inputs in the dtype that forward takes, mostly torch.float32",
    ),
    (
        re.compile(r"specialized it to be a constant|Constraints violated|marked .* as dynamic"),
        _AXES_CURE,
    ),
    (
        re.compile(r"not a known type|register a pytree"),
        "a data class that goes in or out has to be registered: "
        "torch.export.register_dataclass(THE_CLASS)",
    ),
    (
        re.compile(r"missing .* required positional|unexpected keyword|positional arguments? but"),
        "example_inputs do not fit forward(): give a tuple of its arguments, or a dict by name",
    ),
)
_USUAL_CURE = (
    "make torch.export.export(module, example_inputs) work, or export the model yourself and pass "
    "the path of the ONNX file"
)


_CURES_IN_TORCH = {
    _AXES_CURE: "an axis cannot have any size: give dynamic_shapes",
    _USUAL_CURE: "make torch.export.export(module, example_inputs) work",
}
"""Where a module stays in PyTorch."""


class ModuleExportError(ValueError):
    """A PyTorch module cannot be exported."""


def export_error(module: str, error: BaseException, *, to: str = "") -> ModuleExportError:
    """What to raise for an error of the exporter.

    Args:
        module:
            What the module is called, as in "the module Net".
        error:
            What the exporter has raised.
        to:
            What it is exported to: ``"ONNX"``, or nothing.
    """
    causes = _causes(error)
    whole = "\n".join(str(each) for each in causes)
    missing = _NO_CONVERSION.search(whole)
    if missing:
        return ModuleExportError(
            f"T{module[1:]} cannot be exported to ONNX: the exporter has no conversion for the "
            f"operator {missing[1]}{_place(causes)}. Write that part with other operators, or "
            "export the model yourself (torch.onnx.export with custom_translation_table) and pass "
            "the path of the ONNX file."
        )
    cure = next((cure for pattern, cure in _CURES if pattern.search(whole)), _USUAL_CURE)
    if not to:
        cure = _CURES_IN_TORCH.get(cure, cure)
    target = f" to {to}" if to else ""
    return ModuleExportError(
        f"T{module[1:]} cannot be exported{target}: {_reason(causes[-1])}{_place(causes)}. "
        f"{cure[:1].upper()}{cure[1:]}."
    )


def reason_of(error: BaseException) -> str:
    """Why the exporter refuses a module, and at which line, in a few words.

    Args:
        error:
            What the exporter has raised.
    """
    causes = _causes(error)
    return f"{_reason(causes[-1])}{_place(causes)}"


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    return causes


def _reason(cause: BaseException) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    first = lines[0] if lines else type(cause).__name__
    if len(first) > _LONGEST_REASON:
        first = first[: _LONGEST_REASON - 3] + "..."
    return first.rstrip(".:")


def _place(causes: list[BaseException]) -> str:
    """The last line of the user's code that was at work, if there is one."""
    for cause in reversed(causes):
        frames = [
            frame
            for frame in traceback.extract_tb(cause.__traceback__)
            if _is_users(frame.filename)
        ]
        if frames:
            last = frames[-1]
            line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
            return f" (in {last.name}, {Path(last.filename).name}:{last.lineno}: {line})"
    return ""


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if filename.startswith("<") or "lib" in path.parts:
        return False
    modules = (sys.modules.get(name) for name in _OTHERS)
    places = [Path(str(module.__file__)).parent for module in modules if module is not None]
    return not any(path.is_relative_to(place) for place in places)
