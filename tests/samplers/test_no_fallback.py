"""Model-based strategies where no op may stay in FP32, and nothing tells what ops cost."""

from __future__ import annotations

from fake_backend import FakeBackend
import pytest
from spaces import STATIC
from spaces import STATIC_TENSOR

import optuna_quant


@pytest.mark.parametrize("strategy", ["surrogate", "auto", "pareto"])
@pytest.mark.parametrize("options", [(STATIC,), (STATIC, STATIC_TENSOR)])
@pytest.mark.parametrize(("damage", "met"), [(0.0, True), (0.05, False)])
def test_the_search_ends_with_what_there_is(
    strategy: str, options: tuple[optuna_quant.OpConfig, ...], damage: float, met: bool
) -> None:
    backend = FakeBackend({f"op{i}": damage for i in range(4)}, options=options)
    result = optuna_quant.tune(
        backend=backend,
        evaluate=lambda model: model.accuracy,
        strategy=strategy,
        max_trials=8,
    )
    assert result.met is met
    assert len(result.study.trials) <= 9
    tried = [config for config in backend.built if config.quantized_ops]
    assert tried
    assert all(len(config.quantized_ops) == 4 for config in tried)
