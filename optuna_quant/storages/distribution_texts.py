"""Distributions as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.distributions import distribution_to_json
from optuna.distributions import json_to_distribution


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class DistributionTexts:
    """The JSON of distributions, which many parameters share."""

    def __init__(self) -> None:
        self._texts: dict[tuple[object, ...], str] = {}
        self._parsed: dict[str, BaseDistribution] = {}

    def write(self, distribution: BaseDistribution) -> str:
        """The text of a distribution."""
        choices = getattr(distribution, "choices", None)
        # Others can be equal and still be written differently, as 1 and True.
        if choices is None or not all(isinstance(choice, str) for choice in choices):
            return distribution_to_json(distribution)
        text = self._texts.get(choices)
        if text is None:
            text = self._texts[choices] = distribution_to_json(distribution)
        return text

    def read(self, text: str) -> BaseDistribution:
        """The distribution of a text; of equal texts the same object."""
        distribution = self._parsed.get(text)
        if distribution is None:
            distribution = self._parsed[text] = json_to_distribution(text)
        return distribution
