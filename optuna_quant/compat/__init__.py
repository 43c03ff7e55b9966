"""Reading what users of other tools have.

May import: `visualization` and what is below it.
"""

from __future__ import annotations

from optuna_quant.compat import inc


__all__ = ["inc"]
