"""What a search spends beside running the model: building, fingerprints, sessions, the record.

Everything is done by one thread, and its processor time is taken, so that what else runs on the
machine does not matter. A time counts for the innermost of the parts that are told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import contextlib
from dataclasses import replace
import functools
import importlib
import json
from pathlib import Path
import random
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
import optuna

from benchmarks.generated_models import residual_blocks
from benchmarks.generated_models import transformer
from optuna_quant import AccuracyCriterion
from optuna_quant import EvaluationOptions
from optuna_quant import TuningCriterion
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.samplers import Stage
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.tuning.prepare import prepare


RUNS = "model's runs"
_SESSION = onnxruntime.InferenceSession
_BACKEND = "optuna_quant.backends.onnxruntime"

# What is told apart: the functions of each part, by module and name.
PARTS = {
    RUNS: [("onnxruntime", "InferenceSession.run")],
    "calibration": [(f"{_BACKEND}.calibration.statistics", "StatisticsSource.collect")],
    "sessions": [
        ("onnxruntime", "InferenceSession.__init__"),
        (f"{_BACKEND}.model.quantized_model", "SessionMaker.make"),
    ],
    "building": [(f"{_BACKEND}.builder", "CandidateBuilder.build")],
    "reading": [
        (f"{_BACKEND}.backend", "load_model"),
        (f"{_BACKEND}.model.opened", "normalize"),
        (f"{_BACKEND}.offered_ops", "find_capability"),
    ],
    "fingerprints": [
        (f"{_BACKEND}.static.candidate_fingerprints", "CandidateFingerprints.of_candidate"),
        (f"{_BACKEND}.static.candidate_fingerprints", "CandidateFingerprints.of_original"),
    ],
    "sizes": [("onnx", "ModelProto.ByteSize"), ("onnx", "TensorProto.ByteSize")],
    "serializing": [("onnx", "ModelProto.SerializeToString")],
    "sampler": [
        ("optuna_quant.samplers._engine.base", "QuantSampler.sample_relative"),
        ("optuna_quant.samplers._engine.base", "QuantSampler.sample_independent"),
        ("optuna_quant.samplers._engine.base", "QuantSampler.infer_relative_search_space"),
        ("optuna_quant.samplers._engine.base", "QuantSampler.before_trial"),
        ("optuna_quant.samplers._engine.base", "QuantSampler.after_trial"),
    ],
}
REST = "the rest"


class Clock:
    """Takes the processor time of parts, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._open = [REST]
        self._since = time.thread_time()

    def _turn(self) -> None:
        now = time.thread_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        # Calibration runs the model too, and makes sessions for it.
        inside = "calibration" in self._open
        self._open.append("calibration" if inside else name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for part, places in PARTS.items():
                for module, path in places:
                    stack.enter_context(self._watched(part, module, path))
            self._since = time.thread_time()
            yield
            self._turn()

    @contextlib.contextmanager
    def _watched(self, part: str, module: str, path: str) -> Iterator[None]:
        *parents, name = path.split(".")
        owner: Any = functools.reduce(getattr, parents, importlib.import_module(module))
        inherited = name not in vars(owner)
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls[f"{part}:{name}"] += 1
            with self.part(part):
                return original(*args, **kwargs)

        setattr(owner, name, watched)
        try:
            yield
        finally:
            if inherited:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


class FixedList(StagedQuantSampler):
    """A list of configurations: all quantized, and then with other fifths of the ops in fallback.

    Args:
        count:
            How many there are.
    """

    def __init__(self, space: Any, *, count: int, **kwargs: Any) -> None:
        super().__init__(space, **kwargs)
        self._count = count

    def plan(self, space: Any) -> Any:
        ops = [op for tunable in space.tunables for op in tunable.ops]
        draw, default = random.Random(0), space.default()
        subsets = [draw.sample(ops, len(ops) // 5) for _ in range(self._count - 1)]
        yield Stage("fixed", [default, *(default.with_fallback(*subset) for subset in subsets)])


def case_of(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A model, its calibration data and its evaluation data."""
    rng = np.random.default_rng(1)
    if name.startswith("transformer") or name.startswith("exported"):
        model = transformer() if name.startswith("transformer") else exported()
        tokens = rng.integers(0, 3000, (16 + 256, 32))
        return model, {"tokens": tokens[:16]}, {"tokens": tokens[16:]}
    x = rng.standard_normal((64 + 5000, 32)).astype(np.float32)
    return residual_blocks(int(name.split()[0])), {"x": x[:64]}, {"x": x[64:]}


def exported() -> onnx.ModelProto:
    """An encoder of about the same size, as torch exports it."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding = torch.nn.Embedding(3000, 512)
            layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, dropout=0.0)
            self.encoder = torch.nn.TransformerEncoder(layer, 5, enable_nested_tensor=False)
            self.head = torch.nn.Linear(512, 16)
            for parameter in self.encoder.parameters():
                # Layers are copies; what is equal would be exported once.
                torch.nn.init.normal_(parameter, 1.0 if parameter.ndim < 2 else 0.0, 0.03)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
            return scores

    torch.backends.mha.set_fastpath_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.onnx"
        torch.onnx.export(
            Encoder().eval(),
            (torch.zeros(2, 32, dtype=torch.int64),),
            path,
            input_names=["tokens"],
            output_names=["scores"],
            dynamic_axes={"tokens": {0: "N"}, "scores": {0: "N"}},
            opset_version=17,
            dynamo=False,
        )
        return onnx.load(path)


# The case, and a strategy or the length of a fixed list of configurations.
SEARCHES = (
    ("transformer", "24"),
    ("transformer", "mse_v2"),
    ("exported", "24"),
    ("500 ops", "6"),
    ("2000 ops", "6"),
)


def search(name: str, strategy: str) -> dict[str, Any]:
    """Search once, and say where the time has gone."""
    model, calibration, data = case_of(name)
    content = model.SerializeToString()
    del model
    Path("/proc/self/clear_refs").write_text("5")  # Forget the peak of making the model.
    before = _memory("VmRSS")
    count = int(strategy) if strategy.isdigit() else None
    clock = Clock()
    with clock.running(), _one_thread():
        prepared = prepare(
            TuneOptions(
                model=content,
                calibration_data=calibration,
                data=data,
                metric="agreement",
                accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.001),
                tuning_criterion=TuningCriterion(
                    strategy=strategy if count is None else "basic",
                    objective="fallback_ops",
                    stop_at_first=False,
                    timeout=None,
                    max_trials=count or 6,
                ),
                evaluation=EvaluationOptions(evaluation_threads=1),
            )
        )
        if count is not None:
            sampler = FixedList(prepared.space, count=count, criterion=prepared.criterion)
            prepared = replace(prepared, sampler=sampler)
        result = prepared.run()
        str(result)
    peak = _memory("VmHWM")
    with _one_thread():
        session = _ratio(content, result)
    return {
        "seconds": dict(clock.seconds),
        "calls": dict(clock.calls),
        "mbytes": len(content) / 1e6,
        "ops": len(prepared.space.tunables),
        "trials": len(result.study.trials),
        "before": before,
        "peak": peak,
        **session,
    }


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Give the sessions of the backend one thread, as no options of a user's could do."""
    usual = SessionMaker.options_for

    def single(*args: Any) -> onnxruntime.SessionOptions:
        options = usual(*args)
        options.intra_op_num_threads = 1
        return options

    SessionMaker.options_for = single
    try:
        yield
    finally:
        SessionMaker.options_for = usual


def _ratio(content: bytes, result: Any) -> dict[str, float]:
    """What building a candidate and making its session take, and a session of the FP32 model."""
    backend, space = result.backend, result.space
    times: dict[str, list[float]] = {"fp32": [], "build": [], "session": []}
    ops = [op for tunable in space.tunables for op in tunable.ops]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for i in range(3):
        config = space.default().with_fallback(ops[i])
        start = time.thread_time()
        model = backend.quantize(config)
        built = time.thread_time()
        _ = model.session
        made = time.thread_time()
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        times["fp32"].append(time.thread_time() - made)
        times["build"].append(built - start)
        times["session"].append(made - built)
    return {f"one {name}": float(np.median(found)) for name, found in times.items()}


def _memory(name: str) -> float:
    """What the kernel says of this process, in MiB."""
    found = re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def run(cases: Path | None) -> None:
    for name, strategy in SEARCHES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.trial_overhead", name, strategy],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        show(name, strategy, json.loads(done.stdout.splitlines()[-1]))


def show(name: str, strategy: str, found: dict[str, Any]) -> None:
    """Print what a search has taken."""
    seconds = found["seconds"]
    total = sum(seconds.values())
    own = seconds.get(RUNS, 0.0)
    asked = f"{strategy} configurations" if strategy.isdigit() else strategy
    print(
        f"{name}, {found['mbytes']:.1f} MB, {found['ops']} ops; {asked}, "
        f"{found['trials']} trials: "
        f"{total:.2f} s, of which all but the model's runs {1 - own / total:.1%}, without "
        f"calibration {1 - own / (total - seconds.get('calibration', 0.0)):.1%}"
    )
    parts = [*PARTS, REST]
    print("  " + ", ".join(f"{p} {seconds.get(p, 0.0) / total:.1%}" for p in parts))
    counts = {key.split(":")[1]: value for key, value in found["calls"].items()}
    print("  calls: " + ", ".join(f"{key} {value}" for key, value in sorted(counts.items())))
    print(
        f"  a candidate: built in {found['one build'] * 1e3:.0f} ms, its session made in "
        f"{found['one session'] * 1e3:.0f} ms, together "
        f"{(found['one build'] + found['one session']) / found['one fp32']:.1f} times a session "
        f"of the FP32 model ({found['one fp32'] * 1e3:.0f} ms)"
    )
    print(f"  memory: {found['before']:.0f} MiB before, peak {found['peak']:.0f} MiB", flush=True)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(json.dumps(search(sys.argv[1], sys.argv[2])))
