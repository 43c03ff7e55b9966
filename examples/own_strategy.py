"""A strategy of one's own: one generator, and `strategy="greedy"` means it.

It takes one op after the other into FP32, each time the one that helps most. What makes it resume
after a crash, share the work among processes and evaluate nothing twice is not in it: that is
the study's record, over which the plan is replayed.

    python examples/own_strategy.py
"""

from __future__ import annotations

from pathlib import Path
import sys

import onnxruntime
import optuna

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.samplers import Plan
from optuna_quant.samplers import Stage
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers import register_strategy


DIGITS = Path(__file__).parent / "digits"


@register_strategy("greedy")
class GreedyQuantSampler(StagedQuantSampler):
    def plan(self, space: optuna_quant.TuningSpace) -> Plan:
        (best,) = yield Stage("default", [space.default()])
        while left := best.config.quantized_ops:
            tries = [best.config.with_fallback(op) for op in left]
            best = max((yield Stage("one more in FP32", tries)), key=lambda result: result.score)


def main() -> optuna_quant.TuningResult:
    sys.path.insert(0, str(DIGITS))
    from evaluate import accuracy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Greed is a matter of luck: so that it goes the same way on every processor, products must not
    # saturate on those without VNNI instructions (docs/backend_onnxruntime.md).
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    backend = OnnxRuntimeBackend(
        DIGITS / "model.onnx", calibration_data=DIGITS / "calib.npz", session_options=options
    )
    result = optuna_quant.tune(
        backend=backend,
        evaluate=accuracy,
        strategy="greedy",
    )
    print(result)
    return result


if __name__ == "__main__":
    main()
