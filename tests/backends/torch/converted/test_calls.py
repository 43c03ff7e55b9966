"""What a quantized program says if it is called or loaded wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.torch import ModelFileError
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import load
from optuna_quant.space.config import QuantConfig


X = torch_modules.samples(6, 2, 8, 8)
SHAPE = r"float32 of shape \(batch, 2, 8, 8\)"


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend(torch_modules.convnet(), X[:2], calibration_data=X.numpy())


@pytest.fixture(scope="module")
def forms(
    backend: TorchBackend, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Callable[..., object]]:
    path = tmp_path_factory.mktemp("saved") / "net.pt2"
    config = QuantConfig({"fc": backend.tuning_space().default().ops["fc"]})
    model = backend.quantize(config)
    model.save(path)
    simulated = backend.simulated(config).native()
    return {"simulated": simulated, "converted": model.native(), "loaded": load(path)}


@pytest.mark.parametrize("form", ["simulated", "converted", "loaded"])
@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (X[:, :1], ValueError, rf"'x' must be {SHAPE}, but has the shape \(6, 1, 8, 8\)"),
        (X[0], ValueError, rf"'x' must be {SHAPE}, but has the shape \(2, 8, 8\)"),
        (X.double(), TypeError, r"'x' must be of float32, but is of float64: .*\.to\("),
        (X.long(), TypeError, "'x' must be of float32, but is of int64"),
        (X.numpy(), TypeError, rf"'x' must be a tensor \({SHAPE}\), but got ndarray: torch.from"),
        (None, TypeError, "'x' must be a tensor .*, but got NoneType"),
    ],
)
def test_an_input_that_does_not_fit_is_named_with_what_is_expected(
    forms: dict[str, Callable[..., object]],
    form: str,
    given: object,
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=f"^Input {said}"):
        forms[form](given)


@pytest.mark.parametrize("form", ["simulated", "converted", "loaded"])
def test_other_arguments_are_told_with_those_of_the_module(
    forms: dict[str, Callable[..., object]], form: str
) -> None:
    with pytest.raises(TypeError, match="^The model takes x, as the module does: too many"):
        forms[form](X, X)
    with pytest.raises(TypeError, match="^The model takes x, as the module does: missing"):
        forms[form]()


def test_a_quantized_program_says_where_its_weights_are(
    forms: dict[str, Callable[..., object]],
) -> None:
    loaded = forms["loaded"]
    assert isinstance(loaded, nn.Module)
    with pytest.raises(TypeError, match="save_state_dict"):
        loaded.state_dict()


def test_sizes_of_one_name_must_agree() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.layer(a + b)

    backend = TorchBackend(Two(), (torch.ones(2, 3), torch.ones(2, 3)), approach="dynamic")
    model = backend.quantize(QuantConfig({})).native()
    assert model(torch.ones(4, 3), torch.ones(4, 3)).shape == (4, 4)
    with pytest.raises(ValueError, match=r"Input 'b' .* with the batch of 'a', 4, but has the"):
        model(torch.ones(4, 3), torch.ones(5, 3))


def test_an_axis_may_have_to_be_a_multiple_of_a_number(tmp_path: Path) -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).reshape(2, -1, 3)

    backend = TorchBackend(Halved(), torch.ones(4, 8), approach="dynamic")
    backend.quantize(backend.tuning_space().default()).save(tmp_path / "net.pt2")
    assert load(tmp_path / "net.pt2", lower=False)(torch.ones(6, 8)).shape == (2, 3, 3)


def test_integers_may_be_of_another_width() -> None:
    net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 4))
    tokens = torch.arange(6).reshape(2, 3)
    backend = TorchBackend(net, tokens, approach="dynamic")
    model = backend.quantize(backend.tuning_space().default()).native()
    assert torch.equal(model(tokens.int()), model(tokens))


def damaged(backend: TorchBackend, kind: str, folder: Path) -> Path:
    path = folder / ("net.onnx" if kind == "onnx" else "net.pt2")
    if kind == "directory":
        path.mkdir()
    elif kind == "state dict":
        torch.save(nn.Linear(2, 2).state_dict(), path)
    elif kind == "onnx":
        path.write_bytes(b"\x08\x08\x12\x00")
    else:
        backend.quantize(QuantConfig({})).save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2 if kind == "cut" else 0])
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut", "it is cut short or damaged"),
        ("empty", "it is empty"),
        ("directory", "it is a directory"),
        ("state dict", "it is one of torch.save"),
        ("onnx", "backends.onnxruntime.load_module"),
    ],
)
def test_what_is_no_program_is_named(
    backend: TorchBackend, kind: str, said: str, tmp_path: Path
) -> None:
    path = damaged(backend, kind, tmp_path)
    with pytest.raises(ModelFileError, match=said) as error:
        load(path)
    text = str(error.value)
    assert str(path) in text
    assert text.endswith(".") and not text.endswith("..") and " ." not in text


def test_a_program_within_a_module_that_is_compiled_runs_as_it_is(
    forms: dict[str, Callable[..., object]],
) -> None:
    pytest.importorskip("torchao")
    program = forms["loaded"]
    assert isinstance(program, nn.Module)
    last = nn.Linear(program(X).shape[-1], 3)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    with torch.no_grad():
        found = torch.compile(lambda x: last(program(x)), backend=backend)(X)
        torch.testing.assert_close(found, last(program(X)))
    assert seen
    assert not [target for target in seen if "onednn" in target]
