"""Peak memory of calibration, beyond the data, with 100 and with 10,000 samples (Linux)."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from benchmarks.cases import DEMO


CODE = """
import re
from pathlib import Path
import numpy as np
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend

def batches():
    rng = np.random.default_rng(0)
    for _ in range({samples} // 50):
        yield {{"x": rng.random((50, 1, 8, 8), dtype=np.float32)}}

backend = OnnxRuntimeBackend({model!r}, calibration_data=batches)

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

Path("/proc/self/clear_refs").write_text("5")  # Forget the peak of importing.
before = memory("VmRSS")
backend.calibrate()
print(before, memory("VmHWM"))
"""


def run(cases: Path | None) -> None:
    model = str(DEMO / "model.onnx")
    peaks = {}
    for samples in (100, 10_000):
        code = CODE.format(samples=samples, model=model)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        before, peaks[samples] = map(int, done.stdout.split())
        print(
            f"{samples:6} samples: peak {peaks[samples] / 1024:.0f} MiB, "
            f"{(peaks[samples] - before) / 1024:.1f} MiB more than before"
        )
    print(f"ratio of the peaks: {peaks[10_000] / peaks[100]:.3f}")
