"""Saved programs come back with equal outputs, are small, and are refused if damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import zipfile

import numpy as np
import pytest


torch = pytest.importorskip("torch")
nn = torch.nn

from converted_modules import Chain  # noqa: E402
from converted_modules import ready  # noqa: E402

from optuna_quant.backends.torch import ModelFileError  # noqa: E402
from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch import load  # noqa: E402
from optuna_quant.space.config import OpConfig  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


@pytest.mark.parametrize(
    ("name", "approach", "label"),
    [
        ("convolutions", "static", "static"),
        ("tied", "dynamic", "dynamic"),
        pytest.param("block", "weight_only", "weight_only w=int4", marks=pytest.mark.slow),
        ("chain", "static", "bf16"),
    ],
)
def test_what_is_loaded_gives_what_was_saved(
    name: str, approach: str, label: str, tmp_path: Path
) -> None:
    it = ready(name, approach)
    config = it.config(label)
    it.backend.quantize(config).save(tmp_path / "model.pt2")
    for lower in (False, True):
        loaded = load(tmp_path / "model.pt2", lower=lower)
        converted = it.backend.converted(config, lower=lower).native()
        for samples in (16, 1, 3):
            expected = torch.utils._pytree.tree_flatten(converted(it.samples[:samples]))
            found = torch.utils._pytree.tree_flatten(loaded(it.samples[:samples]))
            assert found[1] == expected[1]
            assert all(map(torch.equal, found[0], expected[0]))


def test_torch_alone_loads_it(tmp_path: Path) -> None:
    it = ready("chain", "static")
    it.backend.quantize(it.config("static")).save(tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    (found,) = program(it.samples)
    expected = it.backend.simulated(it.config("static")).native()(it.samples)
    torch.testing.assert_close(found, expected)


def test_the_same_configuration_gives_the_same_file(tmp_path: Path) -> None:
    it = ready("convolutions", "static")
    for name in ("a", "b"):
        it.backend.quantize(it.config("static")).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _size(approach: str, label: str, folder: Path) -> int:
    torch.manual_seed(0)
    samples = torch.randn(8, 512)
    backend = TorchBackend(
        Chain(512), samples[:2], calibration_data=samples.numpy(), approach=approach
    )
    ops = {}
    for op in backend.capability().ops:
        options = [*op.options, *(each.option for each in op.on_request)]
        ops[op.name] = next(each for each in options if each.label.startswith(label))
    model = backend.quantize(QuantConfig(ops))
    model.save(folder / "model.pt2")
    size = (folder / "model.pt2").stat().st_size
    assert model.nbytes <= size < 1.2 * model.nbytes + 40_000
    return size


def test_sizes(tmp_path: Path) -> None:
    whole = _size("static", "fp32", tmp_path)
    assert whole > 4 * 512 * 512 * 2
    assert _size("static", "static", tmp_path) < 0.3 * whole
    assert _size("dynamic", "dynamic", tmp_path) < 0.3 * whole
    assert _size("static", "bf16", tmp_path) < 0.55 * whole
    assert _size("weight_only", "weight_only w=int4/asym", tmp_path) < 0.2 * whole
    assert _size("weight_only", "weight_only w=int2/asym", tmp_path) < 0.15 * whole


def test_the_state_dict_has_the_paths_of_the_module(tmp_path: Path) -> None:
    it = ready("chain", "static")
    config = it.config("static").with_fallback("c")
    it.backend.converted(config, lower=False).save_state_dict(tmp_path / "model.pt")
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert QuantConfig.from_json(found["configuration"]) == config
    state = found["state_dict"]
    assert state["a.weight"].dtype == torch.int8
    assert state["a.weight_scale"].shape == (64,)
    torch.testing.assert_close(state["c.weight"], it.module.c.weight.detach())


def test_no_float_weight_of_a_quantized_op_is_saved(tmp_path: Path) -> None:
    it = ready("convolutions", "static")
    it.backend.quantize(it.config("static")).save(tmp_path / "model.pt2")
    state = torch.export.load(tmp_path / "model.pt2").state_dict
    assert not [k for k, v in state.items() if v.is_floating_point() and v.ndim > 1]


def test_keyword_arguments_and_constants(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(
            self, x: torch.Tensor, factor: int = 2, *, shift: torch.Tensor | None = None
        ) -> torch.Tensor:
            x = self.a(x) * factor
            return x if shift is None else x + shift

    x = torch.randn(4, 8)
    backend = TorchBackend(Scaled(), {"x": x, "factor": 3, "shift": x}, approach="dynamic")
    config = QuantConfig({"a": backend.capability().ops[0].options[0]})
    model = backend.quantize(config)
    model.save(tmp_path / "model.pt2")
    loaded = load(tmp_path / "model.pt2")
    expected = model.native()(x, 3, shift=x)
    torch.testing.assert_close(loaded(x, shift=x, factor=3), expected)
    with pytest.raises(TypeError, match="exported with the argument 3"):
        loaded(x, 4, shift=x)
    with pytest.raises(TypeError, match="takes all of them in every call"):
        loaded(x, 3)


@dataclass
class Named:
    """An output with a registered name."""

    scores: torch.Tensor


@dataclass
class Unnamed:
    """An output that is registered without a name."""

    scores: torch.Tensor


def _with_outputs(kind: type) -> TorchBackend:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> object:
            return kind(self.a(x))

    return TorchBackend(Wrapped(), torch.randn(4, 8), approach="dynamic")


def test_data_classes(tmp_path: Path) -> None:
    torch.export.register_dataclass(Named, serialized_type_name="tests.Named")
    backend = _with_outputs(Named)
    model = backend.quantize(QuantConfig({"a": OpConfig("fp32")}))
    model.save(tmp_path / "model.pt2")
    found = load(tmp_path / "model.pt2", lower=False)(torch.zeros(2, 8))
    assert isinstance(found, Named)


def test_a_data_class_without_a_name_is_refused(tmp_path: Path) -> None:
    torch.export.register_dataclass(Unnamed)
    backend = _with_outputs(Unnamed)
    model = backend.quantize(QuantConfig({"a": OpConfig("fp32")}))
    with pytest.raises(ValueError, match=r"serialized_type_name"):
        model.save(tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with pytest.raises(FileNotFoundError):
        load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError, match=r"is not a program that optuna_quant has saved"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ModelFileError, match=r"model\.pt2"):
        load(path)
    it = ready("chain", "static")
    torch.export.save(torch.export.export(it.module, (it.samples,)), path)
    with pytest.raises(ModelFileError, match="another origin"):
        load(path)
    it.backend.quantize(it.config("static")).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ModelFileError):
        load(path)


def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_damaged_files(tmp_path: Path) -> None:
    """Wherever it is cut or changed there is one kind of error, or the file is as good as it was.

    PyTorch itself reads a file one of whose weights has changed.
    """
    path = tmp_path / "model.pt2"
    it = ready("chain", "static")
    model = it.backend.converted(it.config("static"), lower=False)
    model.save(path)
    whole = path.read_bytes()
    (expected,) = model.run(it.feeds()[0])
    random = np.random.default_rng(0)
    refused = 0
    for length in [0, 1, 30, *random.integers(0, len(whole), 20), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"model\.pt2"):
            load(path)
    for place in random.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            loaded = load(path, lower=False)
        except ModelFileError as error:
            assert "model.pt2" in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(loaded(torch.tensor(it.feeds()[0]["x"])), expected)
    assert refused > 30


def test_a_weight_that_is_damaged_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    it = ready("chain", "static")
    it.backend.quantize(it.config("static")).save(path)
    whole = path.read_bytes()
    codes = next(v for k, v in _parts(path).items() if k.endswith("weights/weight_0"))
    place = whole.index(codes) + 5
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ModelFileError, match=r"is damaged, in its part .*weight_0.*copy the file"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "its record cannot be read"),
        (lambda text: b"\xff\xfe\x00", "is not a program that optuna_quant has saved"),
        (lambda text: b"[1]", "its record is no dictionary"),
        (lambda text: text.replace(b'"ops"', b'"oops"'), "its record lacks something"),
        (lambda text: text.replace(b'"op_type"', b'"type"'), "its record lacks something"),
        (lambda text: text.replace(b'"call"', b'"cell"'), "its record lacks something"),
    ],
)
def test_a_record_that_is_no_record(
    change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    it = ready("chain", "static")
    it.backend.quantize(it.config("static")).save(path)
    parts = _parts(path)
    name = next(each for each in parts if each.endswith("extra/optuna_quant.json"))
    parts[name] = change(parts[name])
    _write(path, parts)
    with pytest.raises(ModelFileError, match=message) as caught:
        load(path)
    assert "model.pt2" in str(caught.value)


@pytest.mark.parametrize("options", [{"lower": False}, {"compile": True}])
def test_a_package_is_loaded_as_it_was_compiled(
    options: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    monkeypatch.setattr(
        "optuna_quant.backends.torch.converted.loading.read_package", lambda path: (None, None)
    )
    (given,) = options
    with pytest.raises(ValueError, match=rf"model\.pt2.*a package, .* so {given}=.* not apply"):
        load(path, **options)


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_quant.backends.torch.converted import saving

    it = ready("chain", "static")
    with monkeypatch.context() as patch:
        patch.setattr(saving, "FORMAT", 2)
        it.backend.quantize(it.config("static")).save(tmp_path / "model.pt2")
    with pytest.raises(ModelFileError, match="its format is 2"):
        load(tmp_path / "model.pt2")


def test_the_path_of_a_package(tmp_path: Path) -> None:
    it = ready("chain", "static")
    model = it.backend.converted(it.config("static"), lower=False)
    with pytest.raises(ValueError, match=r"must end with '\.pt2'"):
        model.save_package(tmp_path / "model.zip")
    with pytest.raises(FileNotFoundError, match="There is no directory .*none'"):
        model.save_package(tmp_path / "none" / "model.pt2")  # Before it is compiled.


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "optuna_quant.backends.torch.converted.compiling.has_compiler", lambda: False
    )
    monkeypatch.setattr("optuna_quant.backends.torch.converted.saving.has_compiler", lambda: False)
    it = ready("chain", "static")
    model = it.backend.converted(it.config("static"), compile=True)
    expected = it.backend.simulated(it.config("static")).run(it.feeds()[0])[0]
    torch.testing.assert_close(model.run(it.feeds()[0])[0], expected)
    with pytest.raises(RuntimeError, match="no C"):
        model.save_package(tmp_path / "model.pt2")


@pytest.mark.slow
def test_compiled_programs_and_packages(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    from optuna_quant.backends.torch.converted.compiling import has_compiler

    if not has_compiler():
        pytest.skip("There is no C++ compiler.")
    it = ready("pooled", "static", reduce_range=True)  # Exact on any processor.
    config = it.config("static")
    expected = it.backend.simulated(config).native()(it.samples)
    model = it.backend.converted(config, compile=True)
    torch.testing.assert_close(model.native()(it.samples), expected, rtol=0.02, atol=0.02)
    model.save_package(tmp_path / "package.pt2")
    loaded = load(tmp_path / "package.pt2")
    for samples in (16, 3):
        found = loaded(it.samples[:samples])
        torch.testing.assert_close(found, expected[:samples], rtol=0.02, atol=0.02)
