"""Processors on which sums of 8-bit products saturate: none of it may depend on this one."""

from __future__ import annotations

from collections.abc import Iterator
import logging
from pathlib import Path
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import exact_options
from onnx_models import fused_attention
from onnx_models import samples
import onnxruntime
import optuna
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.static import saturation
from optuna_quant.backends.onnxruntime.static.saturation import products_saturate
from optuna_quant.space.config import QuantConfig


CPU = ["CPUExecutionProvider"]
DATA = samples(32, 2, 8, 8)


def make_backend(model: onnx.ModelProto | None = None, **kwargs: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        convnet() if model is None else model, **{"calibration_data": DATA, **kwargs}
    )


@pytest.fixture(params=[False, True], ids=["exact", "saturating"])
def saturates(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of processors, whichever this one is."""
    found: bool = request.param
    monkeypatch.setattr(saturation, "products_saturate", lambda sessions: found)
    return found


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    caplog.set_level(logging.INFO)
    yield caplog
    optuna.logging.disable_propagation()


def said(messages: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in messages.records if "saturate" in line.getMessage()]


# What is found out.


def flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not path.exists():
        pytest.skip("only x86 on Linux says what its processor has")
    line = next((line for line in path.read_text().splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def test_probe_agrees_with_what_the_processor_says() -> None:
    known = flags()
    if "avx2" not in known:
        pytest.skip("kernels for older processors are others")
    vnni = bool({"avx_vnni", "avx512_vnni", "avx512vnni"} & known)
    assert products_saturate(SessionMaker(CPU, None)) == (not vnni)


def test_probe_goes_by_the_session_options() -> None:
    options = exact_options()
    assert not products_saturate(SessionMaker(CPU, options))
    assert (
        options.graph_optimization_level == onnxruntime.SessionOptions().graph_optimization_level
    )


def test_probe_that_cannot_run_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: SessionMaker, *args: object) -> None:
        raise RuntimeError("no kernel for MatMulInteger")

    monkeypatch.setattr(SessionMaker, "make", refuse)
    assert not products_saturate(SessionMaker(CPU, None))


def wide() -> onnx.ModelProto:
    """Inputs and weights of which all are as large as can be: any pair of them saturates."""
    m = Maker()
    x = m.input("x", ["N", 64])
    h = m.node("MatMul", [x, m.const(np.full((64, 16), 0.5, np.float32))])
    return m.model([h])


def wide_data() -> NDArray[np.float32]:
    return np.ones((4, 64), np.float32)


def output(backend: OnnxRuntimeBackend, data: Any) -> NDArray[Any]:
    model = backend.quantize(backend.tuning_space(op_types="all").default())
    (found,) = model.run({model.inputs[0].name: data})
    return np.asarray(found)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_signature_tells_whether_a_model_comes_out_right(approach: str) -> None:
    for kwargs in ({}, {"reduce_range": True}, {"session_options": exact_options()}):
        backend = make_backend(wide(), calibration_data=wide_data(), approach=approach, **kwargs)
        found = output(backend, wide_data())
        if backend.signature()["arithmetic"] == "exact":
            np.testing.assert_allclose(found, 32.0, rtol=0.02)
        else:
            assert not kwargs
            assert found.max() < 24.0


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("make", [convnet, attention, fused_attention, wide])
def test_seven_bits_saturate_nowhere(make: Any, approach: str) -> None:
    data = {
        convnet: DATA,
        attention: samples(8, 5, 8),
        fused_attention: np.arange(40, dtype=np.int32).reshape(8, 5) % 11,
        wide: wide_data(),
    }[make]
    plain, exact = (
        output(
            make_backend(
                make(),
                calibration_data=data,
                approach=approach,
                reduce_range=True,
                session_options=options,
            ),
            data,
        )
        for options in (None, exact_options())
    )
    np.testing.assert_allclose(plain, exact, atol=1e-5 * np.abs(exact).max())


# What comes of it.


def test_signature_has_the_arithmetic(saturates: bool) -> None:
    assert make_backend().signature()["arithmetic"] == ("saturating" if saturates else "exact")
    assert make_backend(reduce_range=True).signature()["arithmetic"] == "exact"


def test_it_is_found_out_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SessionMaker] = []

    def probe(sessions: SessionMaker) -> bool:
        asked.append(sessions)
        return True

    monkeypatch.setattr(saturation, "products_saturate", probe)
    backend = make_backend()
    space = backend.tuning_space()
    backend.quantize(space.fp32())
    assert not asked
    backend.quantize(space.default())
    backend.quantize(space.default().with_fallback("Conv0"))
    backend.signature()
    assert len(asked) == 1
    seven = make_backend(reduce_range=True)
    seven.quantize(space.default())
    seven.signature()
    assert len(asked) == 1


def test_it_is_said_once(saturates: bool, messages: pytest.LogCaptureFixture) -> None:
    for approach in ("static", "dynamic"):
        backend = make_backend(approach=approach)
        space = backend.tuning_space()
        messages.clear()
        backend.quantize(space.fp32())
        assert not said(messages)
        backend.quantize(space.default())
        backend.quantize(QuantConfig({"Gemm0": space.default()["Gemm0"]}))
        if not saturates:
            assert not said(messages)
            continue
        (line,) = said(messages)
        assert "reduce_range=True" in line
        assert "session.x64quantprecision" in line
    messages.clear()
    seven = make_backend(reduce_range=True)
    seven.quantize(seven.tuning_space().default())
    assert not said(messages)
