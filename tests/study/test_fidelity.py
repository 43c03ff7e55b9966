"""How far a trial evaluates its configuration, as its claim keeps it."""

from __future__ import annotations

import json

import pytest

from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


@pytest.mark.parametrize("fidelity", [FULL, DECIDED, Fidelity(0), Fidelity(63)])
def test_a_fidelity_is_read_as_it_was_written(fidelity: Fidelity) -> None:
    assert Fidelity.from_attr(json.loads(json.dumps(fidelity.to_attr()))) == fidelity


@pytest.mark.parametrize("value", ["far", -1, True, 1.5])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=f"number of samples, but got {value!r}"):
        Fidelity.from_attr(value)  # type: ignore[arg-type]


def test_samples_and_until_decided_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="but got 63; give one of the two"):
        Fidelity(63, until_decided=True)
