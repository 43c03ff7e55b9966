"""The outputs of quantized programs beside torchao's, with equal ranges and weights.

Convolutions and Linear layers are quantized: by X86InductorQuantizer with observers of minimum and
maximum, and by the PyTorch backend with the options ``minmax``. ``relative``: the norm of the
difference of the simulation over the norm of torchao's outputs. To compare with, ``FP32`` is that
of the module, and ``last bit`` that of torchao's program where calibration data differ in their
last bits: what falls on the other side of a rounding boundary. ``agreement``: the part of samples
with the same class. ``integers``: both for the program with integer kernels. ``as usual``: both
for the simulation where torchao quantizes what else it does, such as the tensors that residuals
add, which are ops of their own here.

``CASE`` in the environment chooses cases, separated by commas.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import load_case
from benchmarks.torch_modules import NAMES
from benchmarks.torch_modules import module_of
from benchmarks.torch_resnet import images
from benchmarks.torch_resnet import resnet20
from benchmarks.torch_stock import minmax_config
from benchmarks.torch_stock import quantized
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


BATCH = 64
LAST_BIT = 1 + 2**-22
_LABEL = "static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"


def run(cases: Path | None = None) -> None:
    """Print the table."""
    print(
        f"{'case':20}{'ops':>5}{'relative':>11}{'FP32':>9}{'last bit':>10}"
        f"{'agreement':>11}{'integers':>19}{'as usual':>19}"
    )
    for name, module, calibration, x in _nets(cases):
        with torch.no_grad():
            print(f"{name:20}{_row(module, calibration, x)}", flush=True)


def _nets(
    cases: Path | None,
) -> Iterator[tuple[str, nn.Module, torch.Tensor, torch.Tensor]]:
    """Name, module, calibration samples and evaluation samples."""
    only = os.environ.get("CASE", ",".join(("resnet20", *NAMES))).split(",")
    if "resnet20" in only:
        yield "resnet20", resnet20(), images(256), images(256)
    for name in NAMES if cases is not None else ():
        if name in only:
            case = load_case(cases / name)
            calibration, x = torch.from_numpy(case.calibration), torch.from_numpy(case.x)
            yield name, module_of(cases / name), calibration, x


def _row(module: nn.Module, calibration: torch.Tensor, x: torch.Tensor) -> str:
    backend = TorchBackend(module, calibration[:2], calibration_data=calibration)
    config = alike(backend)
    batches = calibration.split(BATCH)
    theirs = outputs(quantized(module, batches, minmax_config(), layers_alone=True), x)
    moved = [batch * LAST_BIT for batch in batches]
    rounded = outputs(quantized(module, moved, minmax_config(), layers_alone=True), x)
    usual = outputs(quantized(module, batches, minmax_config()), x)
    ours = outputs(backend.simulated(config).native(), x)
    integers = outputs(backend.quantize(config).native(), x)
    return (
        f"{len(config.ops):5}{relative(theirs, ours):11.1e}"
        f"{relative(theirs, outputs(module, x)):9.1e}"
        f"{relative(theirs, rounded):10.1e}{agreement(theirs, ours):11.2%}"
        f"{relative(theirs, integers):10.1e}{agreement(theirs, integers):9.2%}"
        f"{relative(usual, ours):10.1e}{agreement(usual, ours):9.2%}"
    )


def alike(backend: TorchBackend) -> QuantConfig:
    """What X86InductorQuantizer does: convolutions and Linear layers on integers."""
    option = OpConfig.from_label(_LABEL)
    return QuantConfig(
        {op.name: option for op in backend.capability().ops if option in op.options}
    )


def outputs(model: Callable[[torch.Tensor], Any], x: torch.Tensor) -> torch.Tensor:
    """The outputs for all samples, in batches."""
    return torch.cat([model(batch) for batch in x.split(BATCH)])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of the difference over the norm of the first one."""
    return float((a - b).double().norm() / a.double().norm())


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    """The part of samples with the same class."""
    return float((a.argmax(-1) == b.argmax(-1)).double().mean())
