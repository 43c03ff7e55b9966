"""What quantization-aware training recovers, and how long it takes: a table for people.

With ``--cases`` the cases as modules, else narrow classifiers of scikit-learn's digits (width x
depth), another one for each seed. ``int4/sym``: weights of Linear layers in 4 bits with a scale
for each output (``/asym``: and a zero point); the module's other ops stay in FP32.
``int8/channel`` and ``int8/tensor``: all ops in static INT8, weights with a scale for each output
channel, or one. Convolutions have no fewer bits here.

Means over seeds: ``after`` quantization without training, ``QAT``: with it, ``+-``: its standard
deviation over the seeds, and ``trained on``: the FP32 model after as many more epochs, which tells
what of the gain is not of the quantization. All are accuracies of converted programs on data that
nothing was trained with. ``recovered``: of what was lost; options that lose less than 0.2 points
are not trained. ``s``: seconds of the processor, one thread.

In the environment: ``CASE`` (names of cases, separated by commas; default: all), ``SEEDS`` (5),
and ``LABELS=1`` (train towards labels, not towards what the module gives).
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
import time
import warnings

import numpy as np

from benchmarks.torch_qat_subjects import Kind
from benchmarks.torch_qat_subjects import Subject
from benchmarks.torch_qat_subjects import cases_as_modules
from benchmarks.torch_qat_subjects import fit
from benchmarks.torch_qat_subjects import own_nets
from benchmarks.torch_stock import one_thread
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


EPOCHS = 20
_LEAST_LOSS = 0.002


def run(cases: Path | None = None) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    print(
        f"{'':20}{'weights':>13}{'ops':>5}{'FP32':>8}{'trained on':>12}{'after':>8}{'QAT':>8}"
        f"{'+-':>8}{'recovered':>11}{'s':>7}"
    )
    with one_thread():
        for kind in own_nets() if cases is None else cases_as_modules(cases):
            _print(kind)


def _print(kind: Kind) -> None:
    seeds = range(int(os.environ.get("SEEDS", "5")))
    subjects = [kind.subject(seed) for seed in seeds]
    whole = _mean([it.accuracy(it.module) for it in subjects])
    further = _mean([_trained_on(it, seed) for seed, it in zip(seeds, subjects, strict=True)])
    for label in kind.options:
        configs = [_config(it, label) for it in subjects]
        if not configs[0].quantized_ops:
            continue
        pairs = list(zip(subjects, configs, strict=True))
        known = {id(it): _untrained(it, config) for it, config in pairs}
        after = _mean([known[id(it)] for it in subjects])
        line = (
            f"{kind.name:20}{label:>13}{len(configs[0].quantized_ops):>5}{whole:>8.4f}"
            f"{further:>12.4f}{after:>8.4f}"
        )
        if whole - after < _LEAST_LOSS:
            print(f"{line}{'-':>8}{'-':>8}{'-':>11}{'-':>7}", flush=True)
            continue
        found = [_trained(*pair, seed) for seed, pair in zip(seeds, pairs, strict=True)]
        trained, seconds = np.mean(found, axis=0)
        recovered = (trained - after) / (whole - after)
        spread = np.std([accuracy for accuracy, _ in found])
        print(f"{line}{trained:>8.4f}{spread:>8.4f}{recovered:>11.0%}{seconds:>7.1f}", flush=True)


def _mean(found: list[float]) -> float:
    return float(np.mean(found))


def _trained_on(it: Subject, seed: int) -> float:
    module = copy.deepcopy(it.module)
    fit(module, it.train, it.rate, epochs=EPOCHS, seed=seed + 1)
    return it.accuracy(module)


def _untrained(it: Subject, config: QuantConfig) -> float:
    return it.accuracy(it.backend.untrained(config).native())


def _trained(it: Subject, config: QuantConfig, seed: int) -> tuple[float, float]:
    module = it.backend.prepare(config)
    started = time.process_time()
    fit(module, it.train, it.rate, epochs=EPOCHS, seed=seed + 1)
    seconds = time.process_time() - started
    return it.accuracy(it.backend.finished(config, module).native()), seconds


def _config(it: Subject, label: str) -> QuantConfig:
    found = {op.name: _option(op, *label.split("/")) for op in it.backend.capability().ops}
    return QuantConfig({name: option for name, option in found.items() if option is not None})


def _option(op: OpCapability, dtype: str, form: str) -> OpConfig | None:
    """The first option of an op that is what a label says."""

    def fits(option: OpConfig) -> bool:
        weight = option.weight
        if dtype == "int8":
            granularity = None if weight is None else weight.granularity
            return option.mode == "static" and granularity in (None, f"per_{form}")
        if option.mode != "weight_only" or weight is None:
            return False
        found = weight.dtype, weight.scheme, weight.granularity, weight.algorithm
        return found == (dtype, form, "per_channel", "rtn")

    options = (*op.options, *(each.option for each in op.on_request))
    return next(filter(fits, options), None)
