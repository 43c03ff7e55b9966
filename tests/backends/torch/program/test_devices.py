"""A program on another device than that of its export; only the CPU has values here."""

from __future__ import annotations

import logging

import optuna
import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch.candidates.plan import ModelPlan
from optuna_quant.backends.torch.converted.conversion import convert
from optuna_quant.backends.torch.graph.switched import SwitchedProgram
from optuna_quant.backends.torch.program.content import program_digest
from optuna_quant.backends.torch.program.devices import make_tensors_on
from optuna_quant.backends.torch.program.devices import on_device
from optuna_quant.backends.torch_program.export import export_program


META = torch.device("meta")


class MakesTensors(nn.Module):
    """Makes tensors in its forward, and has a constant that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(4, dtype=torch.float32)
        mask = torch.zeros(4, device="cpu") + torch.tensor([1.0, 2.0, 3.0, 4.0])
        return self.out(self.fc(x) * mask + steps.to(x.device) + torch.ones_like(x))


def exported() -> tuple[nn.Module, torch.Tensor, object]:
    net, x = torch_modules.randomized(MakesTensors()), torch_modules.samples(6, 4)
    return net, x, export_program(net, x[:2])


@pytest.mark.parametrize("module", [nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2))])
def test_an_input_may_have_the_name_of_a_function_of_python(module: nn.Module) -> None:
    """As ``input``, which PyTorch's own modules have."""
    program = export_program(module, torch_modules.samples(6, 4))
    moved = on_device(program, META)
    (name,) = program.form.inputs
    assert name == "input"
    assert name in [node.name for node in moved.program.graph.nodes]
    (found,) = SwitchedProgram(moved, META).original(torch.ones(6, 4, device=META))
    assert found.shape == (6, 2)


def test_tensors_that_a_program_makes_are_on_its_device() -> None:
    """On the device "meta" tensors have shapes alone: one of the CPU beside them is an error."""
    _, x, program = exported()
    moved = SwitchedProgram(on_device(program, META), META)
    values = {node.name: [] for node in moved.original.graph.nodes}

    class Run(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            found = super().run_node(n)
            if isinstance(found, torch.Tensor):
                values[n.name].append(found.device)
            return found

    (found,) = Run(moved.original).run(x.to(META))
    assert found.shape == (6, 2)
    assert {device for each in values.values() for device in each} == {META}


def test_the_users_program_stays_where_it_is() -> None:
    net, x, program = exported()
    before = program.program.module()(x)
    on_device(program, META)
    assert all(each.device.type == "cpu" for each in program.program.state_dict.values())
    assert torch.equal(program.program.module()(x), before)
    given = torch.export.export(net, (x,))
    backend = TorchBackend(given, calibration_data=x.numpy(), device="cpu")
    assert backend.simulated(backend.tuning_space().fp32()).device.type == "cpu"


def test_what_is_converted_makes_its_tensors_on_the_cpu() -> None:
    _, x, program = exported()
    here = SwitchedProgram(program)
    expected = here.original(x)
    # As for a program that was searched elsewhere; its parameters are copied in any case.
    make_tensors_on(here.original, META)
    converted = convert(here, program, ModelPlan("", {}), "{}")
    assert torch.equal(converted.loaded(lower=False).graph(x)[0], expected[0])


def test_the_digest_is_the_same_on_every_device() -> None:
    _, _, program = exported()
    here = SwitchedProgram(program)
    digest = program_digest(here.original)
    assert (
        program_digest(SwitchedProgram(on_device(program, torch.device("cpu"))).original) == digest
    )
    make_tensors_on(here.original, META)
    assert program_digest(here.original) == digest


def test_it_is_said_what_runs_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optuna_quant")
    x = torch_modules.samples(6, 4)
    optuna.logging.enable_propagation()
    try:
        with pytest.raises(NotImplementedError):  # There are no values to take a digest of.
            TorchBackend(MakesTensors(), x[:2], calibration_data=x.numpy(), device="meta")
    finally:
        optuna.logging.disable_propagation()
    assert (
        "computed on meta; converted programs, and what evaluates them, on the CPU" in caplog.text
    )
