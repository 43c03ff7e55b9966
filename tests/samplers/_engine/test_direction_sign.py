"""A sampler without a criterion sees by the first trials that the direction is the wrong one."""

from __future__ import annotations

import logging

from fake_backend import FakeBackend
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler


@pytest.mark.parametrize(
    ("direction", "sign", "damage", "warns"),
    [
        ("minimize", 1, 0.1, True),  # An accuracy: the direction was forgotten.
        ("maximize", -1, 0.1, True),  # A loss.
        ("maximize", 1, 0.1, False),
        ("minimize", -1, 0.1, False),
        ("maximize", 1, -0.001, False),  # As good as FP32, by chance a little better.
    ],
)
def test_forgotten_direction(
    direction: str, sign: int, damage: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FakeBackend({"op0": damage, "op1": damage, "op2": damage})
    space = backend.tuning_space()
    study = optuna.create_study(direction=direction, sampler=BasicQuantSampler(space))
    study.optimize(lambda trial: sign * backend.accuracy(space.suggest(trial)), n_trials=5)
    told = [m for m in caplog.messages if "every quantized model so far is better" in m]
    assert len(told) == warns
    if warns:
        other = "maximize" if direction == "minimize" else "minimize"
        assert f"direction={other!r}" in told[0]


def test_criterion_needs_no_sign(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    backend = FakeBackend({"op0": 0.1, "op1": 0.1})
    space = backend.tuning_space()
    criterion = AccuracyCriterion()
    study = optuna.create_study(sampler=BasicQuantSampler(space, criterion=criterion))
    with pytest.raises(ValueError, match="must be 'maximize'"):
        study.optimize(lambda trial: backend.accuracy(space.suggest(trial)), n_trials=3)
    assert not any("every quantized model" in message for message in caplog.messages)
