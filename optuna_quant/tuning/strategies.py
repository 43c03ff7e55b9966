"""Choose the strategy that a user names, and make its sampler."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.base import HasBlocks
from optuna_quant.backends.base import OffersSensitivities
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.evaluation.half_written import OF_SENSITIVITIES
from optuna_quant.evaluation.half_written import warn_of_half_written
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.samplers._engine.keywords import keywords_of
from optuna_quant.tuning.target_loss import with_target_loss


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.backends.base import SensitivityFactory
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.space import TuningSpace


QUANT_LEVELS = ("auto", 0, 1)

# What tune() gives by itself.
_GIVEN = ("space", "criterion", "seed", "costs", "prior")


def choose_strategy(quant_level: str | int | None, strategy: str | None) -> str:
    """The name of the strategy that a user asks for.

    Args:
        quant_level:
            ``"auto"``: the default strategy, ``"auto"``. 0: ``"conservative"``. 1: the named
            strategy, or ``"basic"``. :obj:`None`: the named strategy, or ``"auto"``.
        strategy:
            The name, or :obj:`None`.

    Raises:
        ValueError:
            If the level or the strategy is not known, or they contradict each other.
    """
    known = strategies()
    if quant_level is not None and (
        isinstance(quant_level, bool) or quant_level not in QUANT_LEVELS
    ):
        raise ValueError(f"quant_level must be 'auto', 0 or 1, but got {quant_level!r}.")
    if strategy is not None and strategy not in known:
        raise ValueError(
            f"There is no strategy {strategy!r}.{did_you_mean(str(strategy), known)} The "
            f"strategies are: {', '.join(known)}."
        )
    stands_for = {"auto": "auto", 0: "conservative"}.get(quant_level) if quant_level != 1 else None
    if stands_for is not None:
        if strategy not in (None, stands_for):
            raise ValueError(
                f"quant_level={quant_level!r} stands for the strategy {stands_for!r}, which "
                f"contradicts strategy={strategy!r}: leave one of the two out."
            )
        return stands_for
    return strategy or ("basic" if quant_level == 1 else "auto")


def make_sampler(
    strategy: str,
    space: TuningSpace,
    *,
    criterion: AccuracyCriterion,
    seed: int,
    kwargs: Mapping[str, Any],
    backend: Backend | None = None,
    outputs: Sequence[str] | None = None,
    given: Sensitivity | None = None,
    costs: CostTable | None = None,
    first_ops: Collection[str] = (),
    thorough: bool = False,
) -> QuantSampler:
    """The sampler of a strategy.

    Args:
        strategy:
            The strategy's name, as :func:`choose_strategy` gives it.
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        seed:
            The seed of everything random.
        kwargs:
            More options of the sampler, or of the backend's sensitivity for it.
        backend:
            What scores ops for a strategy that needs sensitivities, unless ``kwargs`` has a
            ``sensitivity``.
        outputs:
            The outputs of the model that are scored, for sensitivities that look at outputs; None
            for all.
        given:
            Sensitivities of the kind that the strategy uses (:func:`kind_used`), in the place of
            the backend's.
        costs:
            What configurations cost by the objective, for a strategy that takes it.
        first_ops:
            The ops to be searched first, for a strategy that takes them.
        thorough:
            Whether the search goes on after its answer, for a strategy that distinguishes.

    Raises:
        ValueError:
            If the sampler has no such option, or an option is out of its range.
    """
    cls = strategies()[strategy]
    options = sampler_options(cls)
    if strategy == "hawq_v2":
        kwargs = with_target_loss(kwargs)
    if kwargs.get("compat") == "inc2" and issubclass(cls, AutoQuantSampler):
        options = list(dict.fromkeys([*options, *sampler_options(BasicQuantSampler)]))
    factory = None
    kind = kind_used(strategy, kwargs)
    if kind is not None and needs_sensitivity(strategy) and given is None:
        factory = _factory(backend, kind)
        if factory is None:
            raise ValueError(
                f"The strategy {strategy!r} needs {_lacking(backend, kind)}; "
                "give strategy_kwargs={'sensitivity': ...}, a callable (config, ops) -> "
                "{op: score}."
            )
    extra = () if factory is None else factory.options
    for name in kwargs:
        if name not in (*options, *extra):
            raise ValueError(
                f"strategy_kwargs: the strategy {strategy!r} has no option {name!r}; it has: "
                f"{', '.join((*options, *extra))}.{did_you_mean(name, (*options, *extra))}"
            )
    own = {name: value for name, value in kwargs.items() if name not in extra}
    if isinstance(own.get("blocks"), bool):
        own["blocks"] = _blocks(backend) if own["blocks"] else ()
    if costs is not None and takes_costs(strategy):
        own["costs"] = costs
    if first_ops and "first_ops" in options:
        own.setdefault("first_ops", first_ops)
    if thorough and "thorough" in options:
        own.setdefault("thorough", thorough)
    if given is not None:
        own["sensitivity"] = given
    elif kind == SensitivityKind.BEST:
        own["sensitivity"] = _best_sensitivity(backend, outputs)
    elif factory is not None:
        of_factory = {name: value for name, value in kwargs.items() if name in extra}
        own["sensitivity"] = factory(outputs=outputs, **of_factory)
    warn_of_half_written(own.get("sensitivity"), OF_SENSITIVITIES)
    is_scored = own.get("sensitivity") is not None
    if _learns_from_blocks(cls, kwargs) and isinstance(backend, HasBlocks) and not is_scored:
        own.setdefault("blocks", backend.blocks())
    return cls(space, criterion=criterion, seed=seed, **own)


def kind_used(strategy: str, kwargs: Mapping[str, Any]) -> SensitivityKind | None:
    """The kind of sensitivities that the backend would make for a strategy.

    Args:
        strategy:
            The strategy's name.
        kwargs:
            Its options. If they have a ``sensitivity``, the backend makes none.
    """
    return None if "sensitivity" in kwargs else strategies()[strategy].sensitivity_kind


def needs_sensitivity(strategy: str) -> bool:
    """Whether a strategy does nothing without sensitivities.

    Those that use the best of a backend can do without: they learn from trials alone.

    Args:
        strategy:
            The strategy's name.
    """
    return kind_used(strategy, {}) not in (None, SensitivityKind.BEST)


def needs_of(strategy: str) -> str:
    """What a strategy needs besides a model and an evaluation, in words; empty if nothing.

    Args:
        strategy:
            The strategy's name.
    """
    kind = kind_used(strategy, {})
    if kind is None:
        return ""
    if kind == SensitivityKind.BEST:
        return "better with PyTorch"
    return "calibration data, PyTorch" if kind == SensitivityKind.CURVATURE else "calibration data"


def _blocks(backend: Backend | None) -> Sequence[Block]:
    """The blocks of a backend's model.

    Raises:
        ValueError:
            If the backend does not look for any.
    """
    if not isinstance(backend, HasBlocks):
        raise ValueError(
            "strategy_kwargs: blocks=True needs a backend that knows blocks, which this one does "
            "not; give a list of optuna_quant.space.blocks.Block."
        )
    return backend.blocks()


def _best_sensitivity(
    backend: Backend | None, outputs: Sequence[str] | None
) -> Sensitivity | None:
    """The best sensitivity that a backend has; :obj:`None` if it has none, or no samples."""
    factory = _factory(backend, SensitivityKind.BEST)
    if factory is None:
        return None
    try:
        return factory(outputs=outputs)
    except ValueError as error:
        # None says that there are no samples; an error is none of the usual cases.
        warn_user(
            "The backend's best sensitivity cannot be made, so the search learns from trials "
            f"alone: {error}"
        )
        return None


def _factory(backend: Backend | None, kind: SensitivityKind) -> SensitivityFactory | None:
    """What makes a kind of sensitivity; :obj:`None` if a backend does not have it."""
    if not isinstance(backend, OffersSensitivities):
        return None
    return backend.sensitivities().get(kind)


def _lacking(backend: Backend | None, kind: SensitivityKind) -> str:
    """The sensitivity that a backend does not have, and those that it has."""
    offered = backend.sensitivities() if isinstance(backend, OffersSensitivities) else ()
    if not offered:
        return "sensitivities, which this backend does not provide"
    return (
        f"a sensitivity of the kind {kind.value!r}, which this backend does not provide (it has "
        f"{', '.join(repr(each.value) for each in offered)})"
    )


def check_begins_from(strategy: str, kwargs: Mapping[str, Any]) -> None:
    """Check that a strategy can begin from an earlier study.

    Args:
        strategy:
            The strategy's name.
        kwargs:
            Its options.

    Raises:
        ValueError:
            If it cannot.
    """
    if strategies()[strategy].begins_from_studies and kwargs.get("compat") is None:
        return
    named = strategy if "compat" not in kwargs else f"{strategy} (compat={kwargs['compat']})"
    able = [name for name, cls in strategies().items() if cls.begins_from_studies]
    raise ValueError(
        f"from_study: the strategy {named!r} does not learn from an earlier study. Use one that "
        f"does ({', '.join(able)}), or leave from_study out."
    )


def tunes_recipes(strategy: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether recipes are tuned by default, because a strategy has a place for them.

    For others a recipe is one more dimension of the space.

    Args:
        strategy:
            The strategy's name.
        kwargs:
            Its options.
    """
    return strategies()[strategy].tunes_recipes and kwargs.get("compat") is None


def _learns_from_blocks(cls: type[QuantSampler], kwargs: Mapping[str, Any]) -> bool:
    """Whether a strategy has a use for blocks where nothing scores the ops."""
    return cls.learns_from_blocks and kwargs.get("compat") is None


def sampler_options(cls: type[QuantSampler]) -> list[str]:
    """The names of the options that a sampler takes, its base classes' included."""
    return [name for name in keywords_of(cls) if name not in _GIVEN]


def takes_costs(strategy: str) -> bool:
    """Whether a strategy looks at what configurations cost."""
    return "costs" in keywords_of(strategies()[strategy])
