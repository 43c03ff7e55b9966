"""Programs are taken apart by one run, and compute and refuse what they did."""

from __future__ import annotations

from typing import Any

import pytest


torch = pytest.importorskip("torch")
pytest.importorskip("torchao")

from converted_modules import ready  # noqa: E402
import torch_modules  # noqa: E402

from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch.converted import decomposing  # noqa: E402
from optuna_quant.backends.torch.converted.kernels import executed_kernels  # noqa: E402


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The programs that are exported to be taken apart."""
    found: list[object] = []
    export = decomposing.export_graph

    def counted(graph: Any, like: Any) -> Any:
        found.append(graph)
        return export(graph, like)

    monkeypatch.setattr(decomposing, "export_graph", counted)
    return found


@pytest.mark.parametrize("name", ["convolutions", pytest.param("block", marks=pytest.mark.slow)])
def test_it_is_the_program_of_two_exports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    it = ready(name, "static")
    converted = it.model("static").converted
    found = converted.loaded()
    monkeypatch.setattr(decomposing, "_is_pure", lambda graph: False)
    expected = converted.loaded()
    with torch.no_grad():
        torch.testing.assert_close(
            found.graph(it.samples), expected.graph(it.samples), rtol=0, atol=0
        )
    assert executed_kernels(found) == executed_kernels(expected)


def test_nothing_is_exported_for_it(exports: list[object]) -> None:
    it = ready("convolutions", "static")
    it.model("static").converted.loaded()
    assert not exports


def test_shapes_and_types_that_it_does_not_take_are_refused() -> None:
    it = ready("convolutions", "static")
    program = it.model("static").program.graph
    with torch.no_grad(), pytest.raises(RuntimeError, match="to be equal to 20, but got 19"):
        program(it.samples[:, :, :-1])
    with torch.no_grad(), pytest.raises(AssertionError, match=r"to have dtype torch\.float32"):
        program(it.samples.double())


class Similar(torch.nn.Module):
    """An operator, the similarity, that consists of others which write into tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(8, 16), torch.nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.nn.functional.cosine_similarity(self.one(x), self.other(x), -1)


def test_what_writes_into_its_own_tensors_is_exported(exports: list[object]) -> None:
    net, x = torch_modules.randomized(Similar()), torch_modules.samples(20, 8)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    config = backend.tuning_space().default()
    model = backend.quantize(config)
    (simulated,) = backend.simulated(config).run({"x": x.numpy()})
    (found,) = model.run({"x": x.numpy()})
    assert exports
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(simulated))


class Selecting(torch.nn.Module):
    """As many rows go on as the data say, divided by a number that is read from them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.one(x) / x.abs().max().item()
        return self.other(y[torch.nonzero(y[:, 0] > 0).squeeze(1)]).sum(0)


class Branching(torch.nn.Module):
    """Runs one of two graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.one(x)
        return self.other(torch.cond(y.sum() > 0, lambda y: 2 * y, lambda y: y - 1, (y,)))


@pytest.mark.parametrize("kind", [Selecting, Branching])
def test_what_depends_on_data_is_taken_apart_as_well(kind: type[torch.nn.Module]) -> None:
    net, x = torch_modules.randomized(kind()), torch_modules.samples(20, 8)
    backend = TorchBackend(net, x[:5], calibration_data=x.numpy())
    config = backend.tuning_space().default()
    model, simulated = backend.quantize(config).native(), backend.simulated(config).native()
    for samples in (20, 3, 7):
        torch.testing.assert_close(model(x[:samples]), simulated(x[:samples]))
    assert all(runs.integer for runs in backend.executed(config).values())
