"""The smallest probability that a given number of samples can tell apart from zero."""

from __future__ import annotations


# What is less likely to meet the criterion is not tried.
LEAST_PROBABILITY = 0.03
# A probability below that of what the search tries is not told apart from none: how often such a
# one is true was never seen. With few samples less is known.
_LEAST_OF_FEW = 0.1
_FEW_SAMPLES = 100


def least_probability(samples: int | None) -> float:
    """The least probability that is told, and that a thorough search tries.

    Args:
        samples:
            On how many samples metrics rest; :obj:`None` if that is not known.
    """
    is_few = samples is not None and samples < _FEW_SAMPLES
    return _LEAST_OF_FEW if is_few else LEAST_PROBABILITY
