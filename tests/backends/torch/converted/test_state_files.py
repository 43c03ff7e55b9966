"""A state dict and a module of the same code give the saved program again, or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


torch = pytest.importorskip("torch")
nn = torch.nn

from converted_modules import CASES  # noqa: E402
from converted_modules import Ready  # noqa: E402
from converted_modules import ready  # noqa: E402
import torch_modules  # noqa: E402

from optuna_quant.backends.torch import ModelFileError  # noqa: E402
from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch import load  # noqa: E402
from optuna_quant.backends.torch.converted.rebuilding import rebuilt  # noqa: E402
from optuna_quant.backends.torch.converted.state_files import read_state  # noqa: E402
from optuna_quant.backends.torch_program.errors import ModuleExportError  # noqa: E402
from optuna_quant.space.config import OpConfig  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


X = torch_modules.samples(6, 2, 8, 8)


def _config(it: Ready, label: str) -> QuantConfig:
    """In bfloat16, or as :meth:`Ready.config`."""
    ops = it.backend.capability().ops
    if label != "bf16":
        return it.config(label)
    bf16 = OpConfig("bf16")
    return QuantConfig({op.name: bf16 for op in ops if bf16 in op.options})


@pytest.mark.parametrize(
    ("name", "approach", "label"),
    [
        ("convolutions", "static", "static"),
        ("tied", "dynamic", "dynamic"),
        ("tied", "weight_only", "weight_only w=int8"),
        ("chain", "static", "bf16"),
        ("chain", "weight_only", "weight_only w=int4/asym/per_group=32/awq"),
        ("chain", "weight_only", "weight_only w=int3/sym/per_channel/hqq"),
        ("chain", "weight_only", "weight_only w=int4/asym/per_channel/hqq_float"),
        ("convolutions", "static", "fp32"),
        *(
            pytest.param(name, approach, label, marks=pytest.mark.slow)
            for name in (
                "other convolutions",
                "block",
                "written",
                "products",
                "rearranged",
                "bags",
            )
            for approach, label in (
                ("static", "static"),
                ("dynamic", "dynamic"),
                ("weight_only", "weight_only w=int4"),
            )
        ),
    ],
)
def test_the_program_is_the_saved_one(
    name: str, approach: str, label: str, tmp_path: Path
) -> None:
    """Node by node, tensor by tensor, and what it gives; the module has other weights."""
    it = ready(name, approach)
    model = it.backend.converted(_config(it, label), lower=False)
    model.save_state_dict(tmp_path / "net.pt")
    module = CASES[name].make()
    saved = read_state(tmp_path / "net.pt")
    found = rebuilt(saved, "net.pt", module, it.samples[:3])
    assert found.program.graph_module.code == model.converted.program.graph_module.code
    expected = model.converted.program.state_dict
    assert list(found.program.state_dict) == list(expected)
    for path, tensor in found.program.state_dict.items():
        assert tensor.dtype == expected[path].dtype
        assert torch.equal(tensor, expected[path])
    assert (found.ops, found.configuration) == (model.converted.ops, model.converted.configuration)
    graphs = [each.loaded(lower=False).graph for each in (found, model.converted)]
    with torch.no_grad():
        given, wanted = (graph(it.samples[:5].clone()) for graph in graphs)
    assert all(map(torch.equal, given, wanted))


@pytest.mark.parametrize(
    ("approach", "label"), [("static", "static"), ("weight_only", "weight_only w=int4")]
)
def test_it_runs_with_the_kernels_of_this_machine(
    approach: str, label: str, tmp_path: Path
) -> None:
    pytest.importorskip("torchao")
    it = ready("chain", approach)
    model = it.backend.quantize(it.config(label))
    model.save_state_dict(tmp_path / "net.pt")
    module = CASES["chain"].make().train()
    loaded = load(tmp_path / "net.pt", module=module, example_inputs=it.samples[:1])
    for samples in (16, 1):
        assert torch.equal(loaded(it.samples[:samples]), model.native()(it.samples[:samples]))
    assert module.training


def test_what_was_trained(tmp_path: Path) -> None:
    module = torch_modules.convnet()
    backend = TorchBackend(module, X[:2], calibration_data=X.numpy(), approach="qat")
    config = backend.tuning_space().default()
    prepared = backend.prepare(config, learn_ranges=True)
    optimizer = torch.optim.SGD(prepared.parameters(), 0.05)
    prepared(X).square().sum().backward()
    optimizer.step()
    model = backend.finished(config, prepared)
    model.save_state_dict(tmp_path / "net.pt")
    loaded = load(
        tmp_path / "net.pt", module=torch_modules.ConvNet(), example_inputs=X, lower=False
    )
    expected = backend.finished(config, prepared).converted.loaded(lower=False).graph(X)
    assert torch.equal(loaded(X), *expected)
    assert not torch.equal(loaded(X), backend.untrained_simulation(config).native()(X))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net.pt"
    backend = TorchBackend(torch_modules.convnet(), X[:2], calibration_data=X.numpy())
    backend.quantize(backend.tuning_space().default()).save_state_dict(path)
    return path


def test_there_is_no_code_in_the_file(state: Path) -> None:
    found = torch.load(state, weights_only=True)
    assert found["state_dict"]["fc.weight"].dtype == torch.int8
    assert QuantConfig.from_json(found["configuration"]).quantized_ops


def test_an_exported_program_will_do(state: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        torch_modules.ConvNet().eval(), (X,), dynamic_shapes=({0: batch},)
    )
    module = torch_modules.ConvNet()
    expected = load(state, module=module, example_inputs=X[:2], lower=False)(X)
    assert torch.equal(load(state, module=program, lower=False)(X), expected)


def _other(change: Callable[[Any], None]) -> nn.Module:
    module = torch_modules.ConvNet()
    change(module)
    return module


class _Doubled(torch_modules.ConvNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def _renamed() -> nn.Module:
    module = torch_modules.ConvNet()
    module.head = module.fc
    del module.fc

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(module.stem(x))
        x = torch.relu(module.norm(module.body(x)) + x)
        return module.head(torch.relu(module.depthwise(x)).mean((2, 3)))

    module.forward = forward
    return module


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (_renamed, X, r"it has no 'fc' and it has 'head' besides"),
        (
            lambda: _other(lambda net: setattr(net, "fc", nn.Linear(4, 5))),
            X,
            r"the weight of 'fc' has the shape \(5, 4\), and had \(3, 4\)",
        ),
        (_Doubled, X, "has the same ops, but computes something else between them"),
        (
            lambda: _other(lambda net: setattr(net.norm, "eps", 0.1)),
            X,
            "has the same ops, but computes something else between them",
        ),
        (
            torch_modules.ConvNet,
            X[..., :6],
            r"its input 'x' is float32 of shape \(batch, 2, 8, 6\), and was .*, 8, 8\)",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 4, 3)),
            X,
            r"it has no 'stem\.0', 'body', 'Add' and 2 more and it has '0' besides",
        ),
    ],
)
def test_another_module_is_refused_with_what_differs(
    module: Callable[[], nn.Module], inputs: torch.Tensor, said: str, state: Path
) -> None:
    with pytest.raises(ValueError, match=rf"^The module \w+ is not as the one .*{said}") as error:
        load(state, module=module(), example_inputs=inputs)
    assert str(state) in str(error.value)
    assert "Give one of the same code" in str(error.value)


def test_a_module_that_cannot_be_exported_is_told_beside_the_ops_of_the_file(
    state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModuleExportError) as error:
        load(state, module=torch_modules.Residual(), example_inputs=X)
    for said in ("The module Residual cannot be exported", f"{state}' has the ops 'stem.0', 'bo"):
        assert said in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


def test_what_another_version_of_torch_exported(state: Path, tmp_path: Path) -> None:
    found = torch.load(state, weights_only=True)
    found["module"] = found["module"].replace(torch.__version__, "2.0.1")
    torch.save(found, tmp_path / "net.pt")
    net = torch_modules.ConvNet()
    load(tmp_path / "net.pt", module=net, example_inputs=X, lower=False)  # It is the same.
    with pytest.raises(ValueError, match=r"that was 2\.0\.1, which may export it otherwise"):
        load(tmp_path / "net.pt", module=_Doubled(), example_inputs=X)


def test_a_module_is_needed(state: Path) -> None:
    with pytest.raises(
        ValueError, match=r"net\.pt' has the integers.*give a module.*x: float32 of shape \(batch,"
    ):
        load(state)
    with pytest.raises(ValueError, match=r"ConvNet needs example_inputs.*net\.pt': x: float32"):
        load(state, module=torch_modules.ConvNet())
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module .* but got type"):
        load(state, module=torch_modules.ConvNet, example_inputs=X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'meta': give one with weights in memory"):
        load(state, module=torch_modules.ConvNet().to("meta"), example_inputs=X)


def test_a_program_takes_no_module(tmp_path: Path) -> None:
    backend = TorchBackend(torch_modules.convnet(), X[:2], approach="dynamic")
    backend.quantize(QuantConfig({})).save(tmp_path / "net.pt2")
    with pytest.raises(ValueError, match=r"net\.pt2' is a program by itself.*load it without"):
        load(tmp_path / "net.pt2", module=torch_modules.ConvNet())
    with pytest.raises(ValueError, match="is a program by itself"):
        load(tmp_path / "net.pt2", example_inputs=X)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda found: found["state_dict"].pop(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("fc.weight"), "its record lacks something"),
        (_without("fc.bias"), r"its record lacks something \('fc\.bias'\)"),
        (lambda found: found["state_dict"].update(more=X), "are not those of its ops"),
        (
            lambda found: found["state_dict"].update({"fc.bias": torch.zeros(4)}),
            "are not those of its ops",
        ),
        (lambda found: found["state_dict"].update({"fc.bias": 3}), "its record lacks something"),
        (lambda found: found.update(ops="[{]"), "its record cannot be read"),
        (lambda found: found.update(ops="[1]"), "its record lacks something"),
        (lambda found: found.pop("module"), "its record lacks something"),
        (lambda found: found.update(format=1), "its format is 1, and .* reads 2. Save the model"),
        (lambda found: found.pop("configuration"), "one of torch.save, such as a state dict"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, state: Path, tmp_path: Path
) -> None:
    found = torch.load(state, weights_only=True)
    change(found)
    torch.save(found, tmp_path / "net.pt")
    with pytest.raises(ModelFileError, match=said) as error:
        load(tmp_path / "net.pt", module=torch_modules.ConvNet(), example_inputs=X)
    assert str(tmp_path / "net.pt") in str(error.value)


class _Code:
    """What runs code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_other_files_of_torch_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = torch_modules.ConvNet()
    for content in (net.state_dict(), [1], {"format": 2, "state_dict": _Code()}):
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(ModelFileError, match="one of torch.save, such as a state dict"):
            load(tmp_path / "net.pt", module=net, example_inputs=X)
    assert not Path("ran").exists()


def test_a_tensor_that_is_damaged_is_told(state: Path, tmp_path: Path) -> None:
    whole = state.read_bytes()
    codes = torch.load(state, weights_only=True)["state_dict"]["body.weight"]
    place = whole.index(codes.numpy().tobytes()) + 5
    path = tmp_path / "net.pt"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ModelFileError, match=r"is damaged, in its part '.*/data/"):
        load(path, module=torch_modules.ConvNet(), example_inputs=X)


@dataclass
class Unnamed:
    """An output that is registered without a name, which a saved program cannot have."""

    scores: torch.Tensor


class Wrapped(nn.Module):
    """Keyword arguments, one of them a constant, and an output in a data class."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, factor: int = 2, *, shift: torch.Tensor) -> Unnamed:
        return Unnamed(self.a(x) * factor + shift)


def test_arguments_and_outputs_of_any_kind(tmp_path: Path) -> None:
    torch.export.register_dataclass(Unnamed)
    x = torch.randn(4, 8)
    given = {"x": x, "factor": 3, "shift": x}
    backend = TorchBackend(Wrapped(), given, approach="dynamic")
    model = backend.converted(backend.tuning_space().default(), lower=False)
    model.save_state_dict(tmp_path / "net.pt")
    loaded = load(tmp_path / "net.pt", module=Wrapped(), example_inputs=given, lower=False)
    found = loaded(x, 3, shift=x)
    assert isinstance(found, Unnamed)
    assert torch.equal(found.scores, model.native()(x, 3, shift=x).scores)
    with pytest.raises(ValueError, match="such as with another constant"):
        load(tmp_path / "net.pt", module=Wrapped(), example_inputs={**given, "factor": 2})
