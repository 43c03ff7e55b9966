"""Running models on data beside what their outputs are compared with."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Generator

    from optuna_quant.backends.default import RunnableLike
    from optuna_quant.evaluation.baseline_checks import BaselineChecks
    from optuna_quant.evaluation.data_runs import DataRuns
    from optuna_quant.evaluation.metrics.truth import Truth
    from optuna_quant.evaluation.run_ahead import BatchOutputs
    from optuna_quant.evaluation.run_ahead import Indices


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """Gives outputs with what they are compared with.

    Args:
        runs:
            Runs models on the data.
        truth:
            What outputs are compared with: labels, or what the FP32 model gives.
        checks:
            Looks at inputs and outputs of the FP32 model; None for other models.
    """

    runs: DataRuns
    truth: Truth
    checks: BaselineChecks | None

    def batches(
        self, model: RunnableLike, indices: Indices
    ) -> Generator[BatchOutputs, None, None]:
        """The outputs of batches, what they are compared with, and the numbers of the samples.

        Args:
            model:
                The model.
            indices:
                Which samples.
        """
        checks, samples = self.checks, self.runs.data.samples
        self.truth.complete(self._run_fp32)
        see = None if checks is None else checks.see_inputs
        with closing(self.runs.outputs(model, indices, see=see)) as batches:
            for output, labels, chosen in batches:
                truth = self.truth.of_batch(output, labels, chosen, samples=samples)
                if checks is not None:
                    checks.see_outputs(output, truth, chosen)
                yield output, truth, chosen

    def _run_fp32(self, fp32: RunnableLike) -> None:
        """Learn what the FP32 model gives for all samples."""
        known = replace(self, truth=self.truth.for_fp32())
        with closing(known.batches(fp32, np.arange(self.runs.data.samples))) as batches:
            deque(batches, maxlen=0)
