"""Blocks in a whole search: found in the model, tried in fallback, kept in the study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fake_backend import FakeBackend
import numpy as np
import onnx_models
import optuna
import pytest

from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.blocks import Block
from optuna_quant.study.kept_blocks import kept_blocks
from optuna_quant.study.trial_view import TrialView


class BackendWithBlocks(FakeBackend):
    """Eight ops in blocks of two."""

    def blocks(self) -> Sequence[Block]:
        names = list(self.damage)
        pairs = zip(names[::2], names[1::2], strict=True)
        return [Block(f"b{i}", "f", pair) for i, pair in enumerate(pairs)]


def stages_of(result: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for trial in result.study.trials:
        stage = TrialView(trial).claim.stage
        found[stage] = found.get(stage, 0) + 1
    return found


def search(backend: Any, evaluate: Any, **more: Any) -> Any:
    kwargs = {"blocks": True, **more.pop("kwargs", {})}
    return tune(
        backend=backend, evaluate=evaluate, strategy="basic", strategy_kwargs=kwargs,
        objective="ops", criterion="absolute", **more
    )  # fmt: skip


def test_blocks_are_found_and_end_in_an_answer() -> None:
    """More than a quarter of the ops has to stay, so fallback by halves is no answer yet."""
    backend = BackendWithBlocks({f"op{i}": 0.1 * (i in (0, 3, 6)) for i in range(8)})
    result = search(backend, lambda model: model.accuracy, tolerable_loss=0.01)
    assert result.met
    assert result.config.fallback_ops == ("op0", "op3", "op6")
    found = stages_of(result)
    assert found["block-wise fallback"] == 4
    assert found["accumulated blocks"] == 2
    assert "instance-wise fallback" not in found


def test_a_backend_without_blocks_is_an_error() -> None:
    with pytest.raises(ValueError, match="blocks=True needs a backend that knows blocks"):
        search(FakeBackend(3), lambda model: model.accuracy, tolerable_loss=0.01)


def test_another_process_with_other_blocks_is_refused() -> None:
    backend = BackendWithBlocks({f"op{i}": 0.01 for i in range(8)})
    storage = optuna.storages.InMemoryStorage()
    more: Any = {"storage": storage, "study_name": "mine", "tolerable_loss": 0.001}
    search(backend, lambda model: model.accuracy, max_trials=3, **more)
    with pytest.raises(ValueError, match="was started with other blocks"):
        search(
            backend,
            lambda model: model.accuracy,
            max_trials=6,
            kwargs={"blocks": backend.blocks()[:2]},
            **more,
        )


@pytest.mark.parametrize("compat", [None, "inc2"])
def test_blocks_of_a_real_model(compat: str | None) -> None:
    """Every quantized op moves the output, and nothing may: all blocks are tried."""
    maker = onnx_models.Maker()
    h = maker.node("MatMul", [maker.input("x", ["N", 8]), maker.weight(8, 8)], name="stem")
    for i in range(3):
        up = maker.node("MatMul", [h, maker.weight(8, 16)], name=f"up{i}")
        down = maker.node(
            "MatMul", [maker.node("Relu", [up]), maker.weight(16, 8)], name=f"down{i}"
        )
        h = maker.node("Add", [h, down])
    model, x = maker.model([h]), onnx_models.samples(40, 8)
    backend = OnnxRuntimeBackend(model, calibration_data={"x": x})
    (expected,) = onnx_models.run(model, {"x": x})

    def closeness(session: Any) -> float:
        return -float(np.abs(session.run(None, {"x": x})[0] - expected).mean())

    result = search(
        backend,
        closeness,
        tolerable_loss=1e-9,
        max_trials=50,
        kwargs={"compat": compat, "max_op_type_trials": 0},
    )
    assert not result.met
    evaluated = [
        result.space.config_from_params(trial.params).fallback_ops
        for trial in result.study.trials
        if "block" in TrialView(trial).claim.stage or compat is None
    ]
    first, second, third = (("up0", "down0"), ("up1", "down1"), ("up2", "down2"))
    wanted = [third, second + third] if compat else [third, second, first]
    assert [ops for ops in evaluated if ops in wanted] == wanted


@pytest.mark.parametrize("strategy", ["auto", "surrogate", "pareto"])
def test_a_model_of_the_loss_learns_from_blocks_by_default(strategy: str) -> None:
    """A strategy without one neither needs them nor minds that the study keeps them."""
    backend = BackendWithBlocks({f"op{i}": 0.01 for i in range(8)})
    storage = optuna.storages.InMemoryStorage()
    for name, kwargs, known in (("mine", None, 4), ("other", {"blocks": False}, 0)):
        more: Any = {"storage": storage, "study_name": name, "criterion": "absolute"}
        for each, options in ((strategy, kwargs), ("basic", None)):
            result = tune(
                backend=backend, evaluate=lambda model: model.accuracy, strategy=each,
                strategy_kwargs=options, objective="ops", max_trials=6, tolerable_loss=0.01, **more
            )  # fmt: skip
            assert len(kept_blocks(result.study, result.space.prefix)) == known
