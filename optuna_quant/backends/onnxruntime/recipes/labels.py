"""The labels that values of recipes are: ``"off"``, ``"on"``, or settings as ``"name=value"``."""

from __future__ import annotations

from collections.abc import Mapping


OFF = "off"
ON = "on"


def settings_label(settings: Mapping[str, object]) -> str:
    """The label of settings, such as ``"alpha=0.5, folding=false"``.

    Args:
        settings:
            Numbers, truth values and strings by name, in the order in which they are to stand.
    """
    return ", ".join(f"{name}={_text(value)}" for name, value in settings.items())


def read_settings(label: str) -> dict[str, str]:
    """The settings that a label holds, as strings.

    Raises:
        ValueError:
            If it holds none.
    """
    found: dict[str, str] = {}
    for part in label.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not (name and equals and value) or name in found:
            raise ValueError(f"{label!r} is not of the form 'name=value, name=value'")
        found[name] = value
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # All digits, so that different numbers have different labels.
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
