"""The configuration entries of a target are in every session of the model and its candidates."""

from __future__ import annotations

from typing import Any

from onnx_models import convnet
from onnx_models import samples
import onnxruntime
import pytest

from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.content import config_entry
from optuna_quant.backends.onnxruntime.targets.target import IN_FLOATS
from optuna_quant.backends.onnxruntime.targets.target import Target
from optuna_quant.space.config import OpConfig


DATA = {"x": samples(20, 2, 8, 8)}


@pytest.fixture
def in_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is run here, and that has an entry."""
    monkeypatch.setattr(Target, "session_entries", property(lambda self: IN_FLOATS))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each session that is made whether its options have the entry."""
    made = []
    usual = onnxruntime.InferenceSession

    class Noted(usual):  # type: ignore[misc, valid-type]
        def __init__(self, model: Any, sess_options: Any = None, **others: Any) -> None:
            made.append(
                all(config_entry(sess_options, name) == value for name, value in IN_FLOATS.items())
            )
            super().__init__(model, sess_options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Noted)
    return made


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize("is_given", [False, True])
def test_every_session_has_the_entries(is_given: bool, sessions: list[bool]) -> None:
    options = onnxruntime.SessionOptions() if is_given else None
    backend = OnnxRuntimeBackend(convnet(), calibration_data=DATA, session_options=options)
    space = backend.tuning_space()
    config = space.default()
    steps = {
        "calibration": lambda: backend.quantize(config),
        "runs": lambda: backend.quantize(config).run(DATA),
        "executed": lambda: backend.executed(config),
        "costs": lambda: backend.costs(space, seconds=0.1),
    }
    for kind in (SensitivityKind.OP_ERROR, SensitivityKind.OUTPUT_ERROR):
        scores = backend.sensitivities()[kind].make(outputs=None)
        steps[str(kind)] = lambda scores=scores: scores(config, list(config.ops))
    weights = OpConfig.from_label("weight_only w=int4/asym/per_group=16/gptq level=4")
    steps["moments"] = lambda: backend.quantize(space.fp32().with_ops({"Gemm0": weights}))
    for step, take in steps.items():
        sessions.clear()
        take()
        assert sessions, step
        assert all(sessions), step


@pytest.mark.usefixtures("in_floats")
def test_what_is_executed_is_told_of_sessions_with_the_entries() -> None:
    backend = OnnxRuntimeBackend(convnet(), calibration_data=DATA)
    found = backend.executed(backend.tuning_space().default())
    assert not any(op.integer for op in found.values())
