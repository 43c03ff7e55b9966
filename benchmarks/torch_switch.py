"""What a candidate takes in PyTorch: switched in one exported program, or made by the stock way.

On a network like ResNet-20, one thread, 256 calibration samples. ``switch``: the median time of
``backend.simulated(config)`` over random configurations, each new to the backend, with the ranges
and weights that they are the first to need. ``stock``: to export, prepare, calibrate and convert
with torchao each time. ``once``: what the backend does before its first candidate, over one of the
stock way. ``run``: a run of 64 samples over that of the module as it is: all ops quantized, in
the simulation and in the stock program in reference form.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
import time

import numpy as np
import torch

from benchmarks.timing import alternating
from benchmarks.timing import seconds
from benchmarks.torch_resnet import images
from benchmarks.torch_resnet import resnet20
from benchmarks.torch_stock import one_thread
from benchmarks.torch_stock import quantized
from benchmarks.torch_stock import usual_config
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.space.config import QuantConfig


SAMPLES = 256
BATCH = 64
CANDIDATES = 50
REPEAT = 5
MOST = 1 / 50
"""What a switch may take of the stock way."""


def run(cases: Path | None = None) -> None:
    """Print the times."""
    with one_thread(), torch.no_grad():
        _run()


def _run() -> None:
    net, calibration = resnet20(), images(SAMPLES)
    config = usual_config()

    start = time.perf_counter()
    backend = TorchBackend(net, calibration[:2], calibration_data=calibration)
    backend.calibrate()
    once = time.perf_counter() - start
    switch = median(switch_times(backend))
    stock = seconds(lambda: quantized(net, calibration.split(BATCH), config), repeat=REPEAT)
    ratio = switch / stock
    kept = "kept" if ratio <= MOST else "NOT KEPT"
    print(f"switch {1e3 * switch:.1f} ms, stock {1e3 * stock:.0f} ms: 1/{1 / ratio:.0f}")
    print(f"at most 1/{1 / MOST:.0f}: {kept}")
    print(f"once {once:.2f} s, over one of the stock way: {once / stock:.2f}")

    simulation = backend.simulated(backend.tuning_space().default()).native()
    reference = quantized(net, calibration.split(BATCH), config)
    x = calibration[:BATCH]
    eager, simulated, converted = alternating(
        lambda: net(x), lambda: simulation(x), lambda: reference(x), repeat=4 * REPEAT
    )
    print(
        f"run: {1e3 * eager:.1f} ms as it is; over that: simulated {simulated / eager:.2f}, "
        f"stock in reference form {converted / eager:.2f}"
    )


def switch_times(backend: TorchBackend) -> list[float]:
    """The seconds of each of some random configurations."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(CANDIDATES):
        config = QuantConfig(
            {op.name: op.options[rng.integers(len(op.options))] for op in backend.capability().ops}
        )
        start = time.perf_counter()
        backend.simulated(config)
        found.append(time.perf_counter() - start)
    return found
