"""From the outputs of batches to scores of samples, their mean, or a metric of the whole set."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna_quant.evaluation.metrics.calls import margins_of
from optuna_quant.evaluation.metrics.calls import own_copy
from optuna_quant.evaluation.metrics.calls import scores_of
from optuna_quant.evaluation.metrics.checked_scores import checked_margins
from optuna_quant.evaluation.metrics.checked_scores import checked_scores
from optuna_quant.evaluation.metrics.corpus_value import corpus_value


if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric

    Batches: TypeAlias = Generator[tuple[Outputs, Outputs, NDArray[np.integer[Any]]], None, None]
    Pairs: TypeAlias = Generator[
        tuple[NDArray[np.float64], NDArray[np.float64] | None], None, None
    ]


# What is given is a generator that holds threads: it is closed with the one that is made of it.


def scores_and_margins(metric: SampleMetric, batches: Batches) -> Pairs:
    """The scores of each batch, and how far each is from being decided otherwise.

    Args:
        metric:
            The metric.
        batches:
            The outputs, what they are compared with, and the numbers of the samples.

    Raises:
        ValueError:
            If a score has the wrong shape, is not finite or out of bounds.
    """
    with closing(batches):
        for output, truth, chosen in batches:
            margins = margins_of(metric, output, truth, chosen)
            given = scores_of(metric, output, truth, chosen)
            scores = checked_scores(metric, given, chosen)
            yield scores, checked_margins(metric, margins, chosen)


def only_scores(pairs: Pairs) -> Generator[NDArray[np.float64], None, None]:
    """The scores without the margins."""
    with closing(pairs):
        for scores, _ in pairs:
            yield scores


def mean_score(metric: SampleMetric, batches: Batches) -> float:
    """The mean of the scores; the arguments and errors are those of :func:`scores_and_margins`."""
    total, count = 0.0, 0
    with closing(scores_and_margins(metric, batches)) as pairs:
        for scores, _ in pairs:
            total += float(scores.sum())
            count += len(scores)
    return total / count


def corpus_score(metric: CorpusMetric, batches: Batches) -> float:
    """The metric of the whole set.

    Args:
        metric:
            The metric.
        batches:
            As for :func:`scores_and_margins`.

    Raises:
        ValueError:
            If samples differ in shape and the metric does not take that, or if it gives no finite
            number.
    """
    outputs: list[Outputs] = []
    truths: list[Outputs] = []
    with closing(batches):
        for output, truth, _ in batches:
            outputs.append(output)
            truths.append(own_copy(truth))  # The metric may write into them.
    return corpus_value(metric, outputs, truths)
