"""The reference for a model's outputs: labels, or the FP32 model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant.evaluation.metrics.reference_outputs import ReferenceOutputs


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.backends.default import RunnableLike
    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric


_logger = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Truth:
    """The reference with which a metric compares outputs.

    Args:
        metric:
            The metric's name.
        references:
            Keeps the FP32 model's outputs; :obj:`None` for a metric of labels.
        fp32:
            Function that builds the FP32 model; :obj:`None` if it is not known how.
        is_of_fp32:
            Whether the FP32 model is what is evaluated.
    """

    metric: str
    references: ReferenceOutputs | None = None
    fp32: Callable[[], RunnableLike] | None = None
    is_of_fp32: bool = False

    @classmethod
    def of(cls, metric: SampleMetric | CorpusMetric) -> Truth:
        """What this metric needs."""
        if metric.reference != "fp32":
            return cls(metric.name)
        return cls(metric.name, ReferenceOutputs(metric.keep, per_sample=metric.per_sample))

    def for_other_samples(self) -> Truth:
        """The same for other samples, of which nothing is known yet."""
        if self.references is None:
            return self
        return replace(self, references=self.references.for_other_samples())

    def for_fp32(self) -> Truth:
        """The same where the FP32 model is evaluated; what that gives is kept for both."""
        return replace(self, is_of_fp32=True)

    def complete(self, run: Callable[[RunnableLike], None]) -> None:
        """Run the FP32 model if its outputs are needed and not known.

        Args:
            run:
                Evaluates the FP32 model, given to it, on all samples.

        Raises:
            ValueError:
                If it is not known how to get the FP32 model.
        """
        if self.references is not None and not self.is_of_fp32:
            self.references.complete(lambda: run(self._built()))

    def of_batch(
        self, output: Outputs, labels: Outputs, chosen: NDArray[np.integer[Any]], *, samples: int
    ) -> Outputs:
        """What a batch is compared with.

        Args:
            output:
                What the model gives for it.
            labels:
                Its labels.
            chosen:
                Which samples it has.
            samples:
                How many there are in all.
        """
        if self.references is None:
            return labels
        if self.is_of_fp32:
            return self.references.take(chosen, output, samples=samples)
        return self.references.of(chosen)

    def _built(self) -> RunnableLike:
        if self.fp32 is None:
            raise ValueError(
                f"The metric {self.metric!r} compares with the FP32 model's outputs, which are "
                "not known: evaluate the FP32 model first, with evaluation.for_fp32()(model), "
                "or give evaluation.refer_to(function) a function that builds it."
            )
        _logger.info("Running the FP32 model: candidates are compared with its outputs.")
        return self.fp32()
