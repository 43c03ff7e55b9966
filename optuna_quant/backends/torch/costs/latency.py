"""What ops take in each form, measured on a few programs as they are used."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from functools import partial
import time
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.fx import Interpreter

from optuna_quant._common.steps import doing
from optuna_quant.backends.base import as_used
from optuna_quant.backends.torch.converted.kernels import kernel_nodes
from optuna_quant.backends.torch.converted.packed_weights import packed_bits
from optuna_quant.costs import CostTable
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from torch.fx import Node

    from optuna_quant.backends.base import Feed
    from optuna_quant.backends.torch.converted.lowering import LoweredProgram
    from optuna_quant.backends.torch.converted.model import TorchModel
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.space import TuningSpace


_ROUNDS = 40
_PASSES = 10
_PART_OF_KERNELS = 0.3
"""Of the seconds that models may run, what goes to single kernels."""


def latency_table(
    space: TuningSpace,
    ops: Mapping[str, TorchOp],
    build: Callable[[QuantConfig], TorchModel],
    feed: Feed,
    *,
    seconds: float,
) -> CostTable:
    """The seconds of a run of every configuration.

    Options that differ in ranges alone run the same kernels, so there are few forms: FP32,
    bf16, integers with ranges from calibration or found at run time, weights of few bits. For each
    form one program has all ops in it that can be. The kernel of each op is timed alone, in the
    program that runs without a compiler; the programs are timed as wholes, in turn, as they are
    used, which is compiled where there is a compiler. What a whole takes beyond its kernels
    (quantizing, what was fused) is shared among the ops of its form, by the size of what they
    read. So the table gives each of these programs what was measured, and adds up for mixtures.

    Args:
        space:
            The tuning space.
        ops:
            The ops of the program by name.
        build:
            Builds the model of a configuration.
        feed:
            What models are run on.
        seconds:
            About how long models may run; building and compiling them comes on top.
    """
    forms = _forms(space, ops)
    models = {form: build(config) for form, config in forms.items()}
    each = _PART_OF_KERNELS * seconds / len(models)
    count = f"{len(models)} forms" if len(models) > 1 else "one form"
    with doing(
        f"Compiling the model in {count} to measure times, once for each model and machine",
        hides=True,
    ):
        kernels = {form: _kernel_seconds(model, feed, each) for form, model in models.items()}
        wholes = _whole_seconds(models, feed, (1 - _PART_OF_KERNELS) * seconds)

    float_kernels = kernels["fp32"]
    fixed = max(0.0, wholes["fp32"] - sum(float_kernels.seconds.values()))
    costs: dict[str, dict[str, float]] = {}
    for tunable in space.tunables:
        for name in tunable.ops:
            costs[name] = {FP32.label: float_kernels.seconds.get(name, 0.0)}
    for form, config in forms.items():
        if form == "fp32":
            continue
        own = [name for name, option in config.ops.items() if option != FP32]
        shares = _shares(own, kernels[form], wholes[form] - fixed, float_kernels)
        for tunable in space.tunables:
            for name in tunable.ops:
                for option in tunable.options:
                    if form_of(option, ops[name]) == form:
                        costs[name][option.label] = shares[name]
    return CostTable("latency", "s", costs, (), fixed)


def form_of(option: OpConfig, op: TorchOp) -> str:
    """What decides which kernel runs an op: the mode, and whether a kernel takes its few bits."""
    weight = option.weight
    if option.mode != "weight_only" or weight is None:
        return option.mode
    form = f"weight_only {weight.bits}{'' if weight.group_size is None else ' groups'}"
    if op.form.op_type != "Linear" or op.shape is None:
        return form  # There is one way for these.
    kernel = packed_bits(
        *(op.form.op_type, op.shape, weight.bits, weight.group_size),
        has_zero_points=weight.scheme == "asym",
    )
    return form if kernel else f"{form} in floats"


def _forms(space: TuningSpace, ops: Mapping[str, TorchOp]) -> dict[str, QuantConfig]:
    """A configuration for each form, in which all ops have it that can."""
    found: dict[str, dict[str, OpConfig]] = {"fp32": {}}
    for tunable in space.tunables:
        for option in tunable.options:
            for name in tunable.ops:
                found.setdefault(form_of(option, ops[name]), {}).setdefault(name, option)
    size = space.default().calibration_size
    return {form: QuantConfig(options, {}, size) for form, options in found.items()}


class _Kernels:
    """The seconds of the kernel of each op, and the number of values that it reads.

    Args:
        seconds:
            The least seconds, by the op's name.
        values:
            How many values it reads, by the op's name.
    """

    def __init__(self, seconds: Mapping[str, float], values: Mapping[str, int]) -> None:
        self.seconds = seconds
        self.values = values


class _TimedNodes(Interpreter):
    """Runs a program node by node, and keeps the least seconds of each of some nodes."""

    def __init__(self, program: LoweredProgram, nodes: Mapping[Node, str]) -> None:
        super().__init__(program.graph)
        self._nodes = nodes
        self.seconds: dict[str, float] = {}
        self.values: dict[str, int] = {}

    def run_node(self, node: Node) -> Any:
        """Run one node, with a clock if it is one of those."""
        name = self._nodes.get(node)
        if name is None:
            return super().run_node(node)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        started = time.perf_counter()
        found = self.call_function(node.target, args, kwargs)
        taken = time.perf_counter() - started
        self.seconds[name] = min(taken, self.seconds.get(name, taken))
        first = next((each for each in args if isinstance(each, torch.Tensor)), None)
        self.values[name] = 0 if first is None else first.numel()
        return found


def _kernel_seconds(model: TorchModel, feed: Feed, seconds: float) -> _Kernels:
    program = model.program
    timed = _TimedNodes(program, {node: name for name, node in kernel_nodes(program).items()})
    inputs = model.flat_inputs(feed)
    end = time.monotonic() + seconds
    with torch.no_grad():
        for _ in range(_PASSES):
            timed.run(*inputs)
            if time.monotonic() > end:
                break
    return _Kernels(timed.seconds, timed.values)


def _whole_seconds(
    models: Mapping[str, TorchModel], feed: Feed, seconds: float
) -> dict[str, float]:
    runs = [partial(as_used(model).run, feed) for model in models.values()]
    for run in runs:
        run()  # It is compiled now, and that is not timed.
    timings = time_interleaved(runs, rounds=_ROUNDS, seconds=seconds)
    return {form: each.quickest for form, each in zip(models, timings, strict=True)}


def _shares(
    ops: list[str], kernels: _Kernels, total: float, float_kernels: _Kernels
) -> dict[str, float]:
    """What each op of a program takes, which adds up to what all of them take."""
    # Ops that stay in floats in this program take what they do there.
    others = sum(s for name, s in float_kernels.seconds.items() if name not in ops)
    own = {name: kernels.seconds.get(name, 0.0) for name in ops}
    rest = total - others - sum(own.values())
    values = {name: max(1, kernels.values.get(name, 1)) for name in ops}
    if rest < 0.0:
        # Compiled, the kernels take less than alone.
        factor = max(0.0, (total - others) / max(sum(own.values()), 1e-12))
        return {name: factor * each for name, each in own.items()}
    whole = sum(values.values())
    return {name: own[name] + rest * values[name] / whole for name in ops}
