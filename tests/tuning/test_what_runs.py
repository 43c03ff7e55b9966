from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fake_backend import FakeBackend
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.tuning.what_runs import describe_runs


INT8 = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax")


def ran(kernel: str, integer: bool, note: str = "") -> Any:
    return SimpleNamespace(kernel=kernel, integer=integer, note=note)


CONFIG = QuantConfig({"a": INT8, "b": INT8, "c": INT8, "d": FP32})


def test_all_run_as_asked() -> None:
    executed = dict.fromkeys("abc", ran("QGemm", True)) | {"d": ran("Gemm", False)}
    assert describe_runs(CONFIG, executed) == ("3 of 4 ops in integer kernels", "")
    counted, _ = describe_runs(CONFIG, executed, left_out=15)
    assert counted == "3 of 19 ops in integer kernels; 15 left in FP32"


def test_ops_in_16_bits_are_told() -> None:
    config = QuantConfig({"a": INT8, "b": OpConfig("bf16"), "c": OpConfig("bf16"), "d": FP32})
    counted, _ = describe_runs(config, {"a": ran("QGemm", True)}, left_out=1)
    assert counted == "1 of 5 ops in integer kernels, 2 in bf16; 1 left in FP32"


def test_what_does_not_run_as_asked_is_named_and_not_counted() -> None:
    executed = {
        "a": ran("QGemm", True),
        "b": ran("FusedGemm", False),
        "c": ran("Gemm", False),
        "d": ran("Gemm", False),
    }
    assert describe_runs(CONFIG, executed) == (
        "1 of 4 ops in integer kernels",
        "2 asked for but not run in integers: b (FusedGemm in floats), c (Gemm in floats)",
    )


def test_what_is_not_known_stays_so() -> None:
    executed = {"a": ran("QGemm", True), "b": ran("", False), "c": ran("Gemm", False)}
    assert describe_runs(CONFIG, executed) == (
        "1 of 4 ops in integer kernels",
        "1 asked for but not run in integers: c (Gemm in floats); not known of 1: b",
    )
    for nothing in (None, {}, dict.fromkeys("abcd", ran("", False))):
        assert describe_runs(CONFIG, nothing) == ("3 of 4 ops quantized", "")


def test_nothing_is_quantized() -> None:
    config = QuantConfig({"a": FP32})
    assert describe_runs(config, {"a": ran("Gemm", False)}) == ("0 of 1 op quantized", "")


class Backend(FakeBackend):
    asked = 0

    def executed(self, config: QuantConfig) -> dict[str, Any]:
        self.asked += 1
        return {op: ran("Conv", False) for op in config.ops}


def search(backend: FakeBackend) -> TuningResult:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
    return tune(
        backend=backend, evaluate=lambda model: model.accuracy, accuracy_criterion=criterion
    )


def test_summary_counts_what_runs_and_asks_once() -> None:
    backend = Backend({"a": 0.01, "b": 0.01})
    result = search(backend)
    lines = str(result).splitlines()
    assert any("0 of 2 ops in integer kernels" in line for line in lines)
    assert "2 asked for but not run in integers: a (Conv in floats), b (Conv in floats)" in lines
    result.report()
    assert result.summary() == str(result)
    assert backend.asked == 1


def test_summary_survives_a_backend_that_cannot_tell(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeBackend):
        def executed(self, config: QuantConfig) -> dict[str, str]:
            raise RuntimeError("no graph")

    result = search(Broken({"a": 0.01, "b": 0.01}))
    assert "2 of 2 ops quantized" in result.summary()
    with pytest.raises(RuntimeError, match="no graph"):
        result.report()


WEIGHTS = OpConfig.from_label("weight_only w=int4/sym/per_channel/minmax")


def test_weights_alone_run_in_floats_as_they_were_asked_to() -> None:
    floats = ran("MatMul", False)
    alone = QuantConfig({"a": WEIGHTS, "b": WEIGHTS, "c": FP32})
    executed = dict.fromkeys("abc", floats)
    assert describe_runs(alone, executed) == ("2 of 3 ops with quantized weights", "")
    mixed = QuantConfig({"a": WEIGHTS, "b": INT8, "c": INT8})
    found = describe_runs(mixed, executed | {"b": ran("QGemm", True)})
    assert found == (
        "1 of 3 ops in integer kernels, 1 with quantized weights alone",
        "1 asked for but not run in integers: c (MatMul in floats)",
    )


def test_weights_alone_are_as_asked_in_the_report() -> None:
    class Backend(FakeBackend):
        def executed(self, config: QuantConfig) -> Any:
            return {op: ran("MatMul", False) for op in config.ops}

    result = tune(
        backend=Backend(2, options=(WEIGHTS, FP32)), evaluate=lambda model: model.accuracy
    )
    assert list(result.report()["as_asked"]) == [True, True]
    assert "not run so" not in result.summary()
