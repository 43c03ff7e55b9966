"""A PyTorch module in every call that takes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.torch_export import export_module


torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 64, 10),
    )


@pytest.fixture(scope="module")
def images() -> Any:
    return torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(net: Any, images: Any) -> Any:
    return export_module(net, images[:2])


def agreement(model: Any, images: Any, wanted: Any) -> float:
    """As PyTorch users write it: the model is called with tensors."""
    model.eval()
    hits = 0
    for x, y in zip(images.split(50), wanted.split(50), strict=True):
        hits += int((model(x).argmax(1) == y).sum())
    return hits / len(images)


def test_a_module_is_tuned_with_a_function_that_calls_it(
    net: Any, images: Any, tmp_path: Path
) -> None:
    with torch.no_grad():
        wanted = net(images).argmax(1)
    kinds = set()

    def evaluate(model: Any) -> float:
        kinds.add(isinstance(model, torch.nn.Module))
        return agreement(model, images, wanted)

    result = optuna_quant.tune(
        net,
        example_inputs=(images[:1],),
        calibration_data=torch.utils.data.DataLoader(images[:64], batch_size=16),
        evaluate=evaluate,
        tolerable_loss=0.05,
        objective="size",
    )
    assert kinds == {True}
    assert result.met
    assert set(result.config.ops) <= {"0", "2", "5"}
    assert result.explain("2")
    path = tmp_path / "net.onnx"
    result.save(path)
    session = onnxruntime.InferenceSession(path)
    (scores,) = session.run(None, {session.get_inputs()[0].name: images[:4].numpy()})
    native: Any = result.model().native()
    assert np.allclose(scores, native(images[:4]).numpy())


def test_data_sets_of_tensors_evaluate_a_module(exported: Any, net: Any, images: Any) -> None:
    with torch.no_grad():
        labels = net(images).argmax(1)
    result = optuna_quant.tune(
        exported,
        calibration_data=images[:64].numpy(),
        data=torch.utils.data.TensorDataset(images, labels),
        tolerable_loss=0.05,
        objective="ops",
    )
    assert result.baseline == 1
    assert result.met


def test_ops_are_chosen_by_the_paths_of_their_modules(exported: Any, images: Any) -> None:
    only_fp32 = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    model = optuna_quant.quantize(
        exported, calibration_data=images[:64].numpy(), op_name_dict={"2": only_fp32}
    )
    assert {op for op, option in model.config.ops.items() if option.is_quantized} == {"0", "5"}
    table = optuna_quant.sensitivity(exported, calibration_data=images[:64].numpy())
    assert {each.op for each in table.rows} == {"0", "2", "5"}


def test_a_study_goes_on_with_the_same_module(net: Any, images: Any, tmp_path: Path) -> None:
    options: Any = {
        "example_inputs": images[:2],
        "calibration_data": images[:64].numpy(),
        "evaluate": lambda model: float(model(images[:8]).shape[0] == 8),
        "storage": tmp_path / "study.journal",
        "study_name": "net",
        "objective": "size",
        "max_trials": 2,
    }
    first = optuna_quant.tune(net, **options)
    second = optuna_quant.tune(net, **options)
    assert [t.number for t in second.study.trials] == [t.number for t in first.study.trials]
    assert second.config == first.config


def test_a_module_without_an_example_is_refused_before_anything_else(net: Any) -> None:
    with pytest.raises(ValueError, match="The module Sequential needs example_inputs"):
        optuna_quant.tune(net, calibration_data=np.zeros((4, 1, 8, 8)), evaluate=lambda m: 1.0)


def test_an_example_without_a_module_is_refused() -> None:
    with pytest.raises(ValueError, match=r"example_inputs is for a torch\.nn\.Module, but .*str"):
        optuna_quant.tune("model.onnx", example_inputs=(1,), evaluate=lambda m: 1.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("net.pt", r"is str: make the module and load 'net\.pt' into it"),
        (torch.nn.Linear(3, 2).state_dict(), "is OrderedDict: make the module and load these"),
        (torch.nn.Linear, r"is type: give an instance, Linear\(\.\.\.\)"),
        ("net.onnx", "is str, an ONNX file is taken without them"),
    ],
)
def test_what_is_no_module_is_told_how_to_become_one(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optuna_quant.tune(model, example_inputs=torch.zeros(2, 3), evaluate=lambda model: 0.0)


def test_data_are_evaluated_with_what_is_called_as_well() -> None:
    torch.manual_seed(0)
    exported = export_module(torch.nn.Linear(3, 2), torch.zeros(2, 3))
    backend = OnnxRuntimeBackend(exported, approach="dynamic")
    model = backend.quantize(backend.tuning_space().fp32())
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    evaluation = optuna_quant.DataEvaluation((x, np.zeros(20, np.int64)), "accuracy")
    assert evaluation(model.native()) == evaluation(model)
    with pytest.raises(TypeError, match="got the path 'a.onnx': give result.model()"):
        evaluation("a.onnx")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got Linear: give result.model()"):
        evaluation(torch.nn.Linear(3, 2))
