"""What runs for each op is read from the lowered program."""

from __future__ import annotations

from pathlib import Path
import re
import sys

import optuna
import pytest


torch = pytest.importorskip("torch")

from converted_modules import fresh  # noqa: E402
from converted_modules import ready  # noqa: E402

from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch.converted import compiling  # noqa: E402
from optuna_quant.backends.torch.converted import saving  # noqa: E402
from optuna_quant.backends.torch.converted import torchao_passes  # noqa: E402
from optuna_quant.backends.torch.converted.compiling import has_compiler  # noqa: E402
from optuna_quant.backends.torch.converted.saturation import products_saturate  # noqa: E402
from optuna_quant.backends.torch.converted.saving import save_package  # noqa: E402
from optuna_quant.evaluation.difference import compare  # noqa: E402
from optuna_quant.space.config import OpConfig  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


_LOWERED = 0.15 if products_saturate() else 0.01
"""How far integer kernels may be from the simulation, see ``test_against_simulation.py``."""


def test_convolutions_and_linear_layers_run_on_integers() -> None:
    pytest.importorskip("torchao")
    it = ready("convolutions", "static")
    found = it.backend.executed(it.config("static"))
    assert {name for name, runs in found.items() if runs.integer} == {
        "first",
        "depthwise",
        "grouped",
        "head",
    }
    assert found["first"].kernel == "onednn.qconv_pointwise"
    assert found["head"].kernel == "onednn.qlinear_pointwise"
    assert found["Add"].kernel == "aten.add"
    assert found["Add"].integer is False
    assert "floats" in found["Add"].note


def test_all_linear_layers_of_a_transformer_block_run_on_integers() -> None:
    pytest.importorskip("torchao")
    it = ready("block", "static")
    found = it.backend.executed(it.config("static"))
    linear = {op.name for op in it.backend.capability().ops if op.op_type == "Linear"}
    assert len(linear) == 5
    assert {name for name in linear if found[name].integer} == linear


def test_some_ops_on_integers_and_others_not() -> None:
    pytest.importorskip("torchao")
    it = ready("convolutions", "static")
    config = it.config("static").with_fallback("depthwise").with_fallback("head", mode="bf16")
    found = it.backend.executed(config)
    integer = {name: runs.integer for name, runs in found.items()}
    assert integer == {
        "first": True,
        "depthwise": False,
        "Add": False,
        "grouped": True,
        "head": False,
    }


def test_a_module_used_twice_and_tied_weights() -> None:
    pytest.importorskip("torchao")
    it = ready("tied", "dynamic")
    found = it.backend.executed(it.config("dynamic"))
    kinds = {op.name: op.op_type for op in it.backend.capability().ops}
    linear = {name for name in found if kinds.get(name) == "Linear"}
    assert len(linear) == 3
    assert {name for name, runs in found.items() if runs.integer} == linear


def test_transposed_convolutions_never_run_as_ordinary_ones() -> None:
    it = ready("other convolutions", "static")
    found = it.backend.executed(it.config("static"))
    assert found["back"].integer is False
    assert found["grouped_back"].integer is False


def test_weights_of_few_bits_have_kernels_of_their_own() -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("This processor has none.")
    it = ready("chain", "weight_only")
    found = it.backend.executed(it.config("weight_only w=int8/sym/per_channel/rtn"))
    assert {runs.kernel for runs in found.values()} == {"aten._weight_int8pack_mm"}
    found = it.backend.executed(it.config("weight_only w=int4/asym/per_group=32/rtn"))
    assert found["a"].kernel == "aten._weight_int4pack_mm_for_cpu"
    assert found["a"].note == ""
    # Its ten outputs are too few for the kernel.
    assert found["c"].kernel == "mkldnn._linear_pointwise"
    assert found["c"].note.startswith("its weight becomes floats at each run")


@pytest.mark.slow  # Compiles.
def test_the_compiled_program_has_the_kernels_that_are_told() -> None:
    pytest.importorskip("torchao")
    if not has_compiler():
        pytest.skip("There is no C++ compiler.")
    from torch._inductor.utils import run_and_get_code

    it = ready("convolutions", "static")
    config = it.config("static")
    model = it.backend.converted(config, compile=True)
    _, codes = run_and_get_code(model._function, *model.flat_inputs(it.feeds()[2]))
    called = re.findall(r"= torch\.ops\.(onednn\.q\w+_pointwise)\b", "\n".join(codes))
    told = [runs.kernel for runs in it.backend.executed(config).values() if runs.integer]
    assert sorted(called) == sorted(told)


def test_without_torchao_programs_compute_in_floats_and_say_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, torchao_passes._X86, None)
    it = fresh("convolutions", "static")
    config = it.config("static")
    optuna.logging.enable_propagation()
    try:
        model = it.backend.converted(config)
        found = compare(it.backend.simulated(config), model, it.feeds())
    finally:
        optuna.logging.disable_propagation()
    assert "pip install torchao" in caplog.text
    assert found.relative < 1e-5
    assert not any(runs.integer for runs in it.backend.executed(config).values())


@pytest.mark.parametrize("way", ["compiled", "package"])
def test_without_torchao_compiled_programs_say_so_too(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("the warning comes first")

    monkeypatch.setitem(sys.modules, torchao_passes._X86, None)
    monkeypatch.setattr(saving, "has_compiler", lambda: True)
    monkeypatch.setattr(saving, "export_graph", refuse)
    it = ready("chain", "static")
    converted = it.backend.converted(it.config("static"), lower=False).converted
    optuna.logging.enable_propagation()
    try:
        if way == "compiled":
            converted.compiled()
        else:
            with pytest.raises(RuntimeError, match="the warning comes first"):
                save_package(converted, tmp_path / "package.pt2")
    finally:
        optuna.logging.disable_propagation()
    assert caplog.text.count("pip install torchao") == 1


def test_of_two_kernels_only_the_maximum_is_taken_in_floats() -> None:
    pytest.importorskip("torchao")
    it = ready("pooled", "static")
    config = it.config("static")
    model = it.backend.converted(config)
    targets = [str(node.target) for node in model.program.graph.graph.nodes]
    # The input, which two convolutions read, and nothing between the convolutions.
    assert sum("quantize_per_tensor" in each for each in targets) <= 3
    assert compare(it.backend.simulated(config), model, it.feeds()).relative < _LOWERED


@pytest.mark.parametrize(("name", "approach"), [("convolutions", "static"), ("chain", "dynamic")])
def test_weights_of_seven_bits_saturate_nowhere(name: str, approach: str) -> None:
    pytest.importorskip("torchao")
    it = ready(name, approach, reduce_range=True)
    config = it.config(approach)
    model = it.backend.converted(config)
    assert any(runs.integer for runs in it.backend.executed(config).values())
    assert compare(it.backend.simulated(config), model, it.feeds()).relative < 0.01
    assert it.backend.signature()["arithmetic"] == "exact"


def test_what_is_added_or_moved_behind_a_kernel_leaves_integers() -> None:
    pytest.importorskip("torchao")
    it = ready("rearranged", "static")
    config = it.config("static")
    model = it.backend.converted(config)
    targets = [str(node.target) for node in model.program.graph.graph.nodes]
    # The input, and what the last layer reads behind a mean.
    assert sum("quantize_per_tensor" in each for each in targets) == 2
    # That before the mean, which is in floats.
    assert sum("relu" in each for each in targets) == 1
    assert not any("add" in each for each in targets)
    runs = it.backend.executed(config)
    assert {each.kernel for each in runs.values()} == {
        "onednn.qconv_pointwise",
        "onednn.qlinear_pointwise",
    }


@pytest.mark.parametrize("inputs", [8, 24, 48])
def test_a_weight_that_a_kernel_would_read_beyond_has_none(inputs: int) -> None:
    net = torch.nn.Linear(inputs, 8).eval()
    backend = TorchBackend(net, torch.randn(2, inputs), approach="weight_only")
    (op,) = backend.capability().ops
    config = QuantConfig({op.name: OpConfig.from_label("weight_only w=int8/sym/per_channel/rtn")})
    model = backend.quantize(config)
    x = torch.randn(5, inputs)
    torch.testing.assert_close(
        model.native()(x), backend.simulated(config).native()(x), rtol=0.02, atol=0.02
    )
    kernel = backend.executed(config)[op.name].kernel
    assert ("int8pack" in kernel) == (inputs % 16 == 0)


def test_a_program_that_does_not_compile_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(graph: object, **_: object) -> object:
        def run(*args: object) -> object:
            raise torch._dynamo.exc.BackendCompilerFailed(refuse, RuntimeError("no pattern"), None)

        return run

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    it = ready("chain", "dynamic")
    model = it.backend.quantize(it.config("dynamic"))
    optuna.logging.enable_propagation()
    try:
        found = compare(it.backend.simulated(it.config("dynamic")), model.compiled(), it.feeds())
    finally:
        optuna.logging.disable_propagation()
    assert found.relative < _LOWERED
    assert caplog.text.count("does not compile the program, which runs uncompiled") == 1
