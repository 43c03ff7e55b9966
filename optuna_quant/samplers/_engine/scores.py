"""Sensitivities: computed once per study, kept in it, used by every worker and later run."""

from __future__ import annotations

import hashlib
import json
import math
from numbers import Real
from typing import TYPE_CHECKING

from optuna_quant.backends.base import HasKey
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.compute_once import LeaseMonitor


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.samplers._engine.requests import Scoring


def key_of(sensitivity: Sensitivity | None) -> str:
    """A key for the options of a sensitivity; empty if it has none."""
    return sensitivity.key if isinstance(sensitivity, HasKey) else ""


class SensitivityCache:
    """The sensitivities that a study keeps.

    Args:
        name:
            Whose scores they are; different strategies keep theirs apart.
        sensitivity:
            What computes them; :obj:`None` if the strategy was given nothing.
    """

    def __init__(self, name: str, sensitivity: Sensitivity | None) -> None:
        self._name = name
        self._sensitivity = sensitivity
        self._monitor = LeaseMonitor()

    @property
    def is_given(self) -> bool:
        """Whether the strategy was given a sensitivity."""
        return self._sensitivity is not None

    def _place(self, study: optuna.Study, wanted: Scoring) -> ComputeOnce:
        options = key_of(self._sensitivity)
        text = json.dumps([options, wanted.config.key, list(wanted.ops)])
        name = f"scores:{self._name}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return ComputeOnce(study, name, monitor=self._monitor)

    def read(self, study: optuna.Study, wanted: Scoring) -> Mapping[str, float] | None:
        """The scores, if the study holds them."""
        text = self._place(study, wanted).read()
        return None if text is None else json.loads(text)

    def compute(self, study: optuna.Study, wanted: Scoring) -> bool:
        """Compute and keep the scores; :obj:`False` if another worker is doing so.

        Raises:
            TypeError:
                If the strategy was given no sensitivity.
            ValueError:
                If the sensitivity gives something else than a number for each op.
        """
        sensitivity = self._sensitivity
        if sensitivity is None:
            raise TypeError(
                f"{self._name} needs sensitivity=, a callable (config, ops) -> {{op: score}}; "
                "a backend provides them, such as backend.mse_sensitivity()."
            )

        def compute() -> bytes:
            found = sensitivity(wanted.config, wanted.ops)
            return json.dumps(check_scores(found, wanted.ops)).encode()

        return self._place(study, wanted).offer(compute) is not None


def check_scores(found: Mapping[str, float], ops: Sequence[str]) -> dict[str, float]:
    """Check that a sensitivity has given a number for each op.

    Raises:
        ValueError:
            If they are not.
    """
    scores: dict[str, float] = {}
    for op in ops:
        score = found.get(op)
        if not isinstance(score, Real) or isinstance(score, bool) or math.isnan(score):
            raise ValueError(
                f"The sensitivity must give a number for each op, but gave {score!r} for {op!r}."
            )
        # Infinity is not JSON.
        scores[op] = max(min(float(score), 1e308), -1e308)
    return scores
