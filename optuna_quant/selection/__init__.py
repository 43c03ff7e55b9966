"""Which trial of a study is the answer, and the front of all: functions of the record.

May import: `costs` and what is below it.
"""

from __future__ import annotations

from optuna_quant.selection.answer import best_met_trial
from optuna_quant.selection.answer import closest_trial
from optuna_quant.selection.front import FrontPoint
from optuna_quant.selection.front import front_points


__all__ = ["FrontPoint", "best_met_trial", "closest_trial", "front_points"]
