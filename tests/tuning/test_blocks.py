"""Blocks in a whole search: found in the model, tried in fallback, kept in the study."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from fake_backend import FakeBackend
import numpy as np
import onnx_models
import optuna
import pytest
from spaces import STATIC
from spaces import STATIC_TENSOR

from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.samplers import Plan
from optuna_quant.samplers import Stage
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers import register_strategy
from optuna_quant.samplers import strategies
from optuna_quant.space.blocks import Block
from optuna_quant.space.config import FP32
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.kept_blocks import keep_blocks
from optuna_quant.study.kept_blocks import kept_blocks
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.strategies import needs_sensitivity


class BackendWithBlocks(FakeBackend):
    """Eight ops in blocks of two."""

    def blocks(self) -> Sequence[Block]:
        names = list(self.damage)
        pairs = zip(names[::2], names[1::2], strict=True)
        return [Block(f"b{i}", "f", pair) for i, pair in enumerate(pairs)]


@pytest.fixture
def plan_with_blocks() -> Iterator[str]:
    """A plan that is given blocks by default: the last ones in FP32, more and more of them."""

    @register_strategy("plan_with_blocks")
    class PlanWithBlocks(StagedQuantSampler):
        learns_from_blocks = True

        def __init__(
            self, space: TuningSpace, *, blocks: Sequence[Block] = (), **kwargs: Any
        ) -> None:
            super().__init__(space, **kwargs)
            self._blocks = blocks

        def _plan_in(self, study: optuna.Study) -> Plan:
            return self._plan_of(keep_blocks(study, self.space.prefix, self._blocks))

        def _plan_of(self, blocks: Sequence[Block]) -> Plan:
            config = self.space.default()
            for block in reversed(blocks):
                config = config.with_fallback(*block.ops)
                yield Stage("blocks", [config])

        def plan(self, space: TuningSpace) -> Plan:
            return self._plan_of(self._blocks)

    yield "plan_with_blocks"
    del PlanWithBlocks._strategy_name


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


def test_any_strategy_goes_on_after_any_other(plan_with_blocks: str) -> None:
    """There and back again, so that of each two one comes first, and then the other."""
    damage = {f"op{i}": 0.2 for i in range(6)}
    backend = BackendWithBlocks(damage, options=(STATIC, STATIC_TENSOR, FP32))
    more: Any = {"storage": optuna.storages.InMemoryStorage(), "study_name": "mine"}
    ours = [n for n, each in strategies().items() if each.__module__.startswith("optuna_quant.")]
    assert len(ours) > 10
    for count, name in enumerate([*ours, plan_with_blocks, *ours[::-1]], start=1):
        options: dict[str, Any] = {}
        if needs_sensitivity(name):
            options["sensitivity"] = lambda config, ops: dict.fromkeys(ops, 0.2)
        result = tune(
            backend=backend, evaluate=lambda model: model.accuracy, strategy=name,
            strategy_kwargs=options, objective="ops", criterion="absolute", tolerable_loss=0.01,
            max_trials=count, **more
        )  # fmt: skip
        assert len(result.study.trials) == 1 + count, name
    assert kept_blocks(result.study, result.space.prefix) == tuple(backend.blocks())


def test_a_plan_goes_on_with_the_blocks_that_the_study_keeps(plan_with_blocks: str) -> None:
    backend = BackendWithBlocks({f"op{i}": 0.2 for i in range(8)})
    study = optuna.create_study(direction="maximize")
    space = backend.tuning_space()
    keep_blocks(study, space.prefix, backend.blocks()[:2])
    study.sampler = strategies()[plan_with_blocks](space, blocks=backend.blocks())
    study.optimize(lambda trial: backend.accuracy(space.suggest(trial)))
    tried = [space.config_from_params(trial.params).fallback_ops for trial in study.trials]
    assert tried[1:] == [("op2", "op3"), ("op0", "op1", "op2", "op3")]
