"""A Gaussian process over the choices of all ops, and expected improvement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.samplers._models.model_based_sampler import ModelBasedQuantSampler
from optuna_quant.samplers._registry import register_strategy


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory


@register_strategy("bayesian")
class BayesianQuantSampler(ModelBasedQuantSampler):
    """Model the metric with a Gaussian process, and evaluate where it promises most.

    The default configuration comes first, then a few at random. From then on a Gaussian process
    says, for every configuration, what metric to expect and how surely, and the one with the
    highest expected improvement on the best so far is evaluated. The process is made for choices:
    the covariance of two configurations falls with each op in which they differ, by a relevance
    of that op, which is learned from the results. The best of the ever larger number of
    configurations is found by changing one op at a time, or several, from the best known
    configurations and from random ones.

    Use it for budgets of some tens to hundreds of trials, when the best quantized configuration
    is wanted rather than the first that is good enough. An ask takes a fraction of a second with
    100 ops and 200 trials; it learns from the best and the newest 400 trials.

    Every finished trial of the study counts, whichever sampler made it, and with any options of
    its ops. A pruned trial counts with the last metric that it reported, and a configuration that
    failed for good counts as the worst that was seen. What other workers are evaluating counts
    as if it had turned out as the process expects.

    Example:

        .. code-block:: python

            study = optuna.create_study(
                direction="maximize", sampler=BayesianQuantSampler(space, seed=1)
            )
            study.optimize(objective, n_trials=100)

    Args:
        space:
            The tuning space.
        fallback:
            Whether configurations with ops in fallback may be proposed. Without (default), an op
            takes its quantized options only, unless it has none. With it, consider that the
            metric alone is followed, which draws the search to floating point.
        n_startup_trials:
            How many results there must be before the model is asked; until then configurations
            are drawn at random.
        **kwargs:
            See :class:`QuantSampler`.

    Raises:
        ValueError:
            If an argument is out of its range.
    """

    def _policy(self, history: TrialHistory) -> Policy:
        # Here, because it needs SciPy's optimizers, which take as long to import as Optuna.
        from optuna_quant.samplers._models.bayesian_policy import BayesianPolicy

        return BayesianPolicy(
            self._space,
            fallback=self._fallback,
            seed=self._seed,
            n_startup_trials=self._n_startup_trials,
        )
