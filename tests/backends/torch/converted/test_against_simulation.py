"""A converted program gives what the simulation says: each way to run each form of op."""

from __future__ import annotations

import pytest


torch = pytest.importorskip("torch")

from converted_modules import CASES  # noqa: E402
from converted_modules import ready  # noqa: E402

from optuna_quant.backends.torch.converted.saturation import products_saturate  # noqa: E402
from optuna_quant.evaluation.difference import compare  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


# In the packed kernels' bfloat16 an activation is rounded to 8 bits of its mantissa.
_BFLOAT16 = 2.0**-7
_SINGLE = 1e-5
# A sum in another order may fall on the other side of a rounding boundary. Where sums of products
# saturate, integer kernels are as far from the simulation as they are from exact arithmetic.
_LOWERED = 0.15 if products_saturate() else 0.01


@pytest.mark.parametrize("name", CASES)
def test_static_programs(name: str) -> None:
    it = ready(name, "static")
    for label in ("static", "bf16", "fp32"):
        found = compare(it.model(label).simulated, it.written(label), it.feeds())
        assert found.relative < _SINGLE, label


@pytest.mark.parametrize("name", CASES)
def test_lowered_static_programs(name: str) -> None:
    pytest.importorskip("torchao")
    it = ready(name, "static")
    found = compare(it.model("static").simulated, it.model("static"), it.feeds())
    assert found.relative < _LOWERED


@pytest.mark.parametrize("name", ["chain", "block", "tied"])
def test_dynamic_programs(name: str) -> None:
    it = ready(name, "dynamic")
    model = it.model("dynamic")
    assert compare(model.simulated, it.written("dynamic"), it.feeds()).relative < _SINGLE
    assert compare(model.simulated, model, it.feeds()).relative < _LOWERED


_FEW_BITS = (
    "weight_only w=int4/asym/per_group=32/rtn",
    "weight_only w=int4/sym/per_group=32/rtn",
    "weight_only w=int4/asym/per_channel/rtn",
    "weight_only w=int4/asym/per_group=32/awq",
    "weight_only w=int4/asym/per_group=32/hqq",
    "weight_only w=int8/sym/per_channel/rtn",
    "weight_only w=int8/asym/per_group=32/rtn",
    "weight_only w=int2/asym/per_group=32/rtn",
    "weight_only w=int3/asym/per_group=32/rtn",
    "weight_only w=int3/sym/per_channel/hqq",
    "weight_only w=int3/asym/per_channel/gptq",
)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        pytest.param("block", _FEW_BITS, marks=pytest.mark.slow),
        ("tied", _FEW_BITS),
        ("bags", _FEW_BITS[::3]),
        pytest.param("bags", _FEW_BITS, marks=pytest.mark.slow),
    ],
)
def test_programs_with_weights_of_few_bits(name: str, labels: tuple[str, ...]) -> None:
    it = ready(name, "weight_only")
    for label in labels:
        assert any(each.mode == "weight_only" for each in it.config(label).ops.values()), label
        found = compare(it.model(label).simulated, it.written(label), it.feeds())
        assert found.relative < _SINGLE, label


@pytest.mark.parametrize(
    "label",
    [
        _FEW_BITS[0],
        *(pytest.param(_FEW_BITS[i], marks=pytest.mark.slow) for i in (1, 3)),
        _FEW_BITS[5],
    ],
)
def test_kernels_for_weights_of_few_bits(label: str) -> None:
    it = ready("block", "weight_only")
    found = compare(it.model(label).simulated, it.model(label), it.feeds())
    assert found.relative < _BFLOAT16


def test_a_mixed_program() -> None:
    it = ready("convolutions", "auto")
    labels = ("static", "bf16", "fp32", "dynamic", "static")
    ops = it.backend.capability().ops
    found = {}
    for number, op in enumerate(ops):
        fitting = [o for o in op.options if o.label.startswith(labels[number % len(labels)])]
        found[op.name] = (fitting or list(op.options))[0]
    config = QuantConfig(found)
    model = it.backend.simulated(config)
    assert compare(model, it.backend.converted(config), it.feeds()).relative < _LOWERED


def test_arguments_and_outputs_are_those_of_the_module() -> None:
    it = ready("convolutions", "static")
    native = it.backend.converted(it.config("static"), lower=False).native()
    expected, found = it.module(it.samples), native(it.samples)
    assert found.keys() == expected.keys()
    assert isinstance(found["rest"], tuple)
    assert found["scores"].shape == expected["scores"].shape


def test_the_module_and_the_simulation_stay_as_they_are() -> None:
    it = ready("written", "static")
    before = it.module(it.samples)
    model = it.backend.simulated(it.config("static"))
    (simulated,) = model.run(it.feeds()[0])
    it.backend.converted(it.config("static"), lower=False).run(it.feeds()[0])
    assert torch.equal(it.module(it.samples), before)
    assert (model.run(it.feeds()[0])[0] == simulated).all()
