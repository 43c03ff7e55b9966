"""How candidates are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How candidates are written, beside what their configurations say of single ops.

    A field for each recipe that changes it, whose default is what is done without the recipe.
    """


AS_USUAL = WriteOptions()
"""How they are written without any recipe."""
