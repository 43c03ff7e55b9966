"""PyTorch modules are exported once, named by module, and called as the module is."""

from __future__ import annotations

from collections.abc import Callable
import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime.torch_export import ExportedModule
from optuna_quant.backends.onnxruntime.torch_export import export_module
from optuna_quant.backends.torch_program import ModuleExportError
from optuna_quant.backends.torch_program import is_torch_model


torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    """Has a layer that is called twice, batch norms, dropout, and a residual sum."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer1 = nn.Sequential(*(Block(4) for _ in range(blocks)))
        self.shared = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Any) -> Any:
        x = self.layer1(self.stem(image)).mean((2, 3))
        x = self.shared(torch.relu(self.shared(x)))
        return self.head(self.drop(x))


def called(exported: ExportedModule) -> Any:
    """The exported model itself, in the place of the module."""
    content = exported.proto.SerializeToString()
    return exported.present(onnxruntime.InferenceSession(content))


def op_names(exported: ExportedModule, *op_types: str) -> list[str]:
    nodes = exported.proto.graph.node
    return [node.name for node in nodes if not op_types or node.op_type in op_types]


def close(one: Any, other: Any) -> bool:
    return bool(torch.allclose(one, other, rtol=1e-4, atol=1e-5))


@pytest.fixture(scope="module")
def net() -> ExportedModule:
    """Of two samples, with the weights that a test's own ``Net()`` has."""
    torch.manual_seed(0)
    return export_module(Net(), torch.zeros(2, 1, 8, 8))


def test_ops_have_the_paths_of_their_modules(net: ExportedModule) -> None:
    exported = net
    assert op_names(exported, "Conv", "Gemm", "MatMul") == [
        "stem",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer1.1.conv1",
        "layer1.1.conv2",
        "shared",
        "shared#2",
        "head",
    ]
    assert op_names(exported, "Add") == ["layer1.0.Add", "layer1.1.Add"]
    assert exported.modules["shared#2"] == "shared"
    assert exported.modules["layer1.0.Add"] == "layer1.0"
    assert len(set(op_names(exported))) == len(exported.proto.graph.node)


def test_ops_of_attention_have_the_paths_of_their_modules() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    exported = export_module(nn.TransformerEncoder(layer, 2), torch.zeros(2, 5, 8))
    linear = [name for name in op_names(exported) if name.endswith(("linear1", "linear2"))]
    assert linear == [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
    inside = [name for name in op_names(exported, "Softmax")]
    assert inside == ["layers.0.self_attn.Softmax", "layers.1.self_attn.Softmax"]


def test_the_module_is_exported_in_evaluation_mode_and_keeps_its_own() -> None:
    module = Net(1).train()
    module.layer1[0].bn1.eval()  # Frozen, as in fine-tuning.
    modes = [each.training for each in module.modules()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    exported = export_module(module, torch.randn(2, 1, 8, 8))
    assert [each.training for each in module.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert not {"Dropout", "BatchNormalization"} & {n.op_type for n in exported.proto.graph.node}
    x = torch.randn(7, 1, 8, 8)
    assert close(called(exported)(x), module.eval()(x))


def test_modes_are_restored_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()
    with pytest.raises(ModuleExportError):
        export_module(module, torch.zeros(2, 5))
    assert all(each.training for each in module.modules())


@pytest.mark.parametrize(
    "samples", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 3))]
)
def test_the_batch_may_have_any_size(samples: int) -> None:
    exported = export_module(Net(1), torch.zeros(samples, 1, 8, 8))
    assert exported.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for count in (1, 4):
        assert called(exported)(torch.zeros(count, 1, 8, 8)).shape == (count, 3)


def test_a_module_for_single_samples_is_exported_for_one() -> None:
    class OfOne(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(1, 12) * 2

    exported = export_module(OfOne(), torch.zeros(1, 3, 4))
    assert exported.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert called(exported)(torch.ones(1, 3, 4)).shape == (1, 12)


def test_dynamic_shapes_say_more() -> None:
    module = nn.Embedding(10, 4)
    dim = torch.export.Dim.AUTO
    exported = export_module(
        module, torch.zeros(2, 5, dtype=torch.int64), dynamic_shapes=({0: dim, 1: dim},)
    )
    assert called(exported)(torch.ones(3, 9, dtype=torch.int64)).shape == (3, 9, 4)


@dataclass
class Pair:
    left: Any
    right: Any


class Structured(nn.Module):
    """Takes and returns more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, batch: Any, *, scale: Any = None, double: bool = False) -> Any:
        x = self.linear(batch["x"]) + batch["shift"]
        if scale is not None:
            x = x * scale
        if double:
            x = x * 2
        return {"scores": x, "parts": (x[:, 0], None, [x.sum()])}


@pytest.fixture(scope="module")
def structured() -> tuple[Structured, ExportedModule]:
    module = Structured()
    batch = {"x": torch.zeros(4, 3), "shift": torch.zeros(4, 2)}
    return module, export_module(module, {"batch": batch, "double": True})


def test_structures_go_in_and_come_out(structured: tuple[Structured, ExportedModule]) -> None:
    module, exported = structured
    batch = {"x": torch.randn(4, 3), "shift": torch.randn(4, 2)}
    found, wanted = called(exported)(batch, double=True), module(batch, double=True)
    assert close(found["scores"], wanted["scores"])
    assert close(found["parts"][0], wanted["parts"][0])
    assert found["parts"][1] is None
    assert close(found["parts"][2][0], wanted["parts"][2][0])
    names = [each.name for each in exported.proto.graph.output]
    assert names == ["scores", "parts_0", "parts_2_0"]


def test_arguments_may_be_given_by_position_or_by_name() -> None:
    class Two(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a - b

    a, b = torch.randn(2, 3), torch.randn(2, 3)
    for example in ((a, b), {"a": a, "b": b}, [a.numpy(), b.numpy()]):
        model = called(export_module(Two(), example))
        assert close(model(a, b), a - b)
        assert close(model(b=b, a=a), a - b)
        assert close(model(a, b=b), a - b)


def test_a_data_class_that_torch_does_not_know_is_refused_with_the_cure() -> None:
    @dataclass
    class Unknown:
        value: Any

    class Returns(nn.Module):
        def forward(self, x: Any) -> Any:
            return Unknown(x)

    with pytest.raises(ModuleExportError, match=r"torch\.export\.register_dataclass"):
        export_module(Returns(), torch.zeros(2, 3))


class OfTexts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, tokens: Any, mask: Any = None) -> Any:
        x = self.embedding(tokens)
        return self.layer(x, src_key_padding_mask=None if mask is None else mask == 0).mean(1)


@pytest.fixture(scope="module")
def of_one_text() -> tuple[OfTexts, ExportedModule]:
    module, tokens = OfTexts(), torch.ones(1, 5, dtype=torch.int64)
    return module, export_module(module, {"tokens": tokens, "mask": torch.ones_like(tokens)})


@pytest.mark.slow  # The export of one text is the harder one.
def test_two_texts_may_have_any_length() -> None:
    module, tokens = OfTexts(), torch.ones(2, 5, dtype=torch.int64)
    exported = export_module(module, {"tokens": tokens, "mask": torch.ones_like(tokens)})
    check_lengths(module, exported)


def test_a_text_may_have_any_length(of_one_text: tuple[OfTexts, ExportedModule]) -> None:
    check_lengths(*of_one_text)


def check_lengths(module: OfTexts, exported: ExportedModule) -> None:
    shapes = [
        [dim.dim_param for dim in each.type.tensor_type.shape.dim]
        for each in exported.proto.graph.input
    ]
    assert shapes == [["batch", "length"]] * 2
    longer = torch.arange(18).reshape(2, 9)
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    assert close(called(exported)(longer, mask), module.eval()(longer, mask))


def test_integers_may_be_of_another_width(of_one_text: tuple[OfTexts, ExportedModule]) -> None:
    tokens = torch.arange(10).reshape(2, 5)
    model = called(of_one_text[1])
    found = model(tokens.to(torch.int32), torch.ones(2, 5, dtype=torch.bool))
    assert close(found, model(tokens, torch.ones_like(tokens)))


def test_shapes_that_are_given_are_tried_with_two_samples() -> None:
    dim = torch.export.Dim.AUTO
    exported = export_module(nn.Linear(3, 2), torch.zeros(1, 3), dynamic_shapes=({0: dim},))
    assert called(exported)(torch.zeros(5, 3)).shape == (5, 2)


def test_an_example_may_be_a_part_of_another_tensor() -> None:
    exported = export_module(nn.Linear(8, 4), torch.randn(4, 16)[:, :8])
    assert called(exported)(torch.zeros(3, 8)).shape == (3, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"'weight' of the module Linear is {dtype}.*\.float\(\)"
    ):
        export_module(nn.Linear(3, 2).to(dtype), torch.zeros(2, 3))


def test_what_is_called_can_be_copied_and_shown(net: ExportedModule) -> None:
    model = called(net)
    assert repr(model) == "CalledSession(inputs=[image], outputs=[output])"
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_what_is_called_says_how_it_is_saved_and_where_its_session_is(net: ExportedModule) -> None:
    model: Any = called(net)
    for use in (model.state_dict, lambda: copy.copy(model)):
        with pytest.raises(TypeError, match=r"result\.save\(\"model\.onnx\"\)"):
            use()
    with pytest.raises(AttributeError, match=r"has no run\(\).* model\.session\.run\("):
        model.run(None, {})
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        model.other  # noqa: B018


def test_a_compiled_module_is_told_of() -> None:
    with pytest.raises(ValueError, match="is compiled .* give the module that was compiled"):
        export_module(torch.compile(nn.Linear(3, 2)), torch.zeros(2, 3))


def test_a_text_of_one_token_is_told_of() -> None:
    with pytest.warns(UserWarning, match="of length 1, .* give a longer example"):
        export_module(nn.Embedding(9, 2), torch.zeros(2, 1, dtype=torch.int64))


def test_a_failed_export_prints_no_graph(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModuleExportError):
        export_module(DependsOnValues(), torch.zeros(2, 3))
    assert capfd.readouterr().err == ""


def test_a_data_class_comes_out_as_one() -> None:
    torch.export.register_dataclass(Pair)

    class OfPairs(nn.Module):
        def forward(self, x: Any) -> Any:
            return Pair(x + 1, x * 2)

    x = torch.randn(2, 3)
    found = called(export_module(OfPairs(), x))(x)
    assert isinstance(found, Pair)
    assert close(found.right, x * 2)


def test_other_arguments_than_those_of_the_export_are_refused(
    structured: tuple[Structured, ExportedModule],
) -> None:
    batch = {"x": torch.randn(4, 3), "shift": torch.randn(4, 2)}
    model = called(structured[1])
    with pytest.raises(TypeError, match="exported with the argument True.* but got False"):
        model(batch, double=False)
    with pytest.raises(TypeError, match=r"structure .*x.*shift.* but got \(\{'x': \*\}"):
        model({"x": batch["x"]}, double=True)
    with pytest.raises(TypeError, match="exported with the arguments batch, double.* got batch"):
        model(batch)
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        model(batch, speed=3)


def test_what_is_called_stays_in_evaluation_mode(net: ExportedModule) -> None:
    model = called(net)
    assert not model.train().training
    assert not model.eval().training
    assert not model(torch.zeros(2, 1, 8, 8)).requires_grad
    assert model.session.get_inputs()[0].name == "image"


def test_weights_that_are_tied_stay_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Any) -> Any:
            return self.head(self.embedding(tokens))

    module = Tied()
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    exported = export_module(module, tokens)
    assert close(called(exported)(tokens), module(tokens))
    assert op_names(exported, "Gather") == ["embedding.Gather"]
    assert exported.modules[op_names(exported, "MatMul", "Gemm")[0]] in ("head", "embedding")


def test_an_exported_program_needs_no_example() -> None:
    module = Net().eval()
    x = torch.randn(3, 1, 8, 8)
    program = torch.export.export(module, (x,), strict=False)
    exported = export_module(program)
    assert "layer1.0.conv1" in op_names(exported)
    assert close(called(exported)(x), module(x))


def test_the_export_is_the_same_each_time_and_holds_no_paths(net: ExportedModule) -> None:
    one = export_module(Net(), torch.zeros(2, 1, 8, 8)).proto.SerializeToString()
    assert one == net.proto.SerializeToString()
    assert b".py" not in one
    assert not any(node.metadata_props for node in onnx.load_from_string(one).graph.node)


class DependsOnValues(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return x
        return -x


def test_control_flow_is_refused_with_its_line() -> None:
    with pytest.raises(ModuleExportError) as caught:
        export_module(DependsOnValues(), torch.zeros(2, 3))
    message = str(caught.value)
    assert message.startswith("The module DependsOnValues cannot be exported to ONNX: ")
    assert "test_export.py" in message
    assert "if x.sum() > 0:" in message
    assert "torch.where or torch.cond" in message
    assert len(message) < 800


def test_an_operator_without_a_conversion_is_named() -> None:
    class Rare(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.bessel_j0(x)

    with pytest.raises(
        ModuleExportError, match=r"no conversion for the operator \w+\.\w*bessel_j0"
    ):
        export_module(Rare(), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (None, "The module Linear needs example_inputs: what its forward"),
        ((torch.zeros(2, 3), 1, 2), "example_inputs do not fit .*too many positional arguments"),
        ({"x": torch.zeros(2, 3)}, "example_inputs do not fit the module Linear: missing"),
        (torch.zeros(2, 7), "cannot be exported to ONNX: .*(shape|size|dim)"),
        (
            torch.zeros(2, 3).double(),
            r"in its forward it multiplies.*float64 and float32.*float\(\)",
        ),
    ],
)
def test_wrong_examples(example: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_module(nn.Linear(3, 2), example)


def test_the_layer_that_gets_another_type_is_named() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"in '1' it multiplies tensors of float16 and float32"):
        export_module(net, torch.zeros(2, 8).half())


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"torch.nn.Module or .*ExportedProgram, but got dict"):
        export_module({})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "is_one"),
    [
        (lambda: nn.Linear(2, 2), True),
        (lambda: torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), True),
        (lambda: torch.zeros(2), False),
        (lambda: np.zeros(2), False),
        (lambda: "model.onnx", False),
    ],
)
def test_is_torch_model(make: Callable[[], object], is_one: bool) -> None:
    assert is_torch_model(make()) is is_one


def test_a_large_module_is_to_be_passed_as_a_file() -> None:
    with torch.device("meta"):
        module = nn.Linear(20_000, 20_000)
    with pytest.raises(ValueError, match=r"has 1\.6 GB of weights.*external_data=True"):
        export_module(module, torch.zeros(2, 20_000, device="meta"))
