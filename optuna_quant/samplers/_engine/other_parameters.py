"""The parameters of a study that are none of the tuning space, and who samples them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class OtherParameters:
    """Samples what the tuning space does not have.

    Args:
        sampler:
            The sampler of these parameters. It sees every trial begin and end.
    """

    def __init__(self, sampler: BaseSampler) -> None:
        self.sampler = sampler

    def search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the sampler wants to sample together."""
        return dict(self.sampler.infer_relative_search_space(study, trial))

    def complete(
        self,
        params: Mapping[str, Any],
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: Mapping[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The parameters of a search space, where some of them have their values already.

        Args:
            params:
                Those that have a value.
            study:
                The study.
            trial:
                The trial.
            search_space:
                The parameters to give.
        """
        others = {name: d for name, d in search_space.items() if name not in params}
        found = {**params, **self.sampler.sample_relative(study, trial, others)}
        return {
            name: found[name]
            if name in found
            else self.sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }
