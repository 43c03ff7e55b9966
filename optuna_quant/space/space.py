"""The tuning space: the ops of a model, each with its options, as Optuna distributions."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
import json
import math
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution

from optuna_quant.space.allowed import allowed_tunables
from optuna_quant.space.capability import Capability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.description import described
from optuna_quant.space.description import in_short
from optuna_quant.space.description import why_outside
from optuna_quant.space.encoding import Encoding
from optuna_quant.space.encoding import parameter_name
from optuna_quant.space.frame import space_frame
from optuna_quant.space.grouping import tie_groups
from optuna_quant.space.keys import RecipeValue
from optuna_quant.space.numbering import positions_at
from optuna_quant.space.numbering import radices
from optuna_quant.space.presets import Preset
from optuna_quant.space.space_checks import check_space
from optuna_quant.space.suggestion import suggest_params
from optuna_quant.space.tunable import Parameter
from optuna_quant.space.tunable import Tunable
from optuna_quant.space.wishes import OpDict
from optuna_quant.space.wishes import names_weight_algorithms


if TYPE_CHECKING:
    import optuna
    import pandas as pd


@dataclass(frozen=True, repr=False)
class TuningSpace:
    """The ops of a model, each with its ordered options, and the recipes.

    Usually made by a backend's ``tuning_space`` method; :meth:`from_capability` does the work.

    Args:
        tunables:
            The ops, in model order.
        recipes:
            The values of each recipe, default first.
        calibration_sizes:
            The calibration sampling sizes to choose from, default first.
        prefix:
            What the names of the study's parameters begin with, so that one study can hold other
            hyperparameters as well.
        presets:
            Pre-defined settings of the whole model, which staged strategies try first.

    Raises:
        ValueError:
            If there is no op, a name comes twice, or the values of a recipe cannot be kept in a
            study or told apart there (Optuna takes ``True`` and ``1`` for the same choice).
    """

    tunables: tuple[Tunable, ...]
    recipes: Mapping[str, tuple[RecipeValue, ...]] = field(default_factory=dict, hash=False)
    calibration_sizes: tuple[int, ...] = ()
    prefix: str = "quant"
    presets: tuple[Preset, ...] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        recipes = {name: tuple(values) for name, values in self.recipes.items()}
        object.__setattr__(self, "recipes", MappingProxyType(recipes))
        object.__setattr__(self, "tunables", tuple(self.tunables))
        object.__setattr__(self, "calibration_sizes", tuple(self.calibration_sizes))
        object.__setattr__(self, "presets", tuple(self.presets))
        check_space(self.tunables, self.recipes, self.calibration_sizes)

    def __repr__(self) -> str:
        return in_short(self.tunables, self.recipes, len(self.parameters), self.prefix)

    def __reduce__(self) -> tuple[object, ...]:
        args = (self.tunables, dict(self.recipes), self.calibration_sizes, self.prefix)
        return type(self), (*args, self.presets)

    @classmethod
    def from_capability(
        cls,
        capability: Capability,
        *,
        op_types: Sequence[str] | str = "default",
        op_type_dict: OpDict | None = None,
        op_name_dict: OpDict | None = None,
        prefix: str = "quant",
    ) -> TuningSpace:
        """Build the space of what a backend can do and the user allows.

        Ops of one type that share one weight have one parameter, unless the dictionaries leave
        them different options.

        Args:
            capability:
                What the backend can do.
            op_types:
                Which ops to tune: ``"default"`` (those worth quantizing), ``"all"``, or
                the op types; ``["default", "Gather"]`` are the default ops and those of a type.
            op_type_dict:
                What to allow, by regular expressions of op types; see
                :func:`optuna_quant.space.narrowing.narrow`.
            op_name_dict:
                What to allow, by regular expressions of op names; overrides ``op_type_dict``.
            prefix:
                What the parameter names begin with.

        Raises:
            ValueError:
                If no op is left, an op type is unknown, or a dictionary has another shape or
                names something that does not exist.
        """
        tunables = allowed_tunables(
            capability, op_types=op_types, op_type_dict=op_type_dict, op_name_dict=op_name_dict
        )
        names_algorithms = names_weight_algorithms(op_type_dict, op_name_dict)
        return cls(
            tunables,
            capability.recipes,
            capability.calibration_sizes,
            prefix,
            () if names_algorithms else capability.presets,
        )

    @cached_property
    def _encoding(self) -> Encoding:
        return Encoding(self.tunables, self.recipes, self.calibration_sizes, self.prefix)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of the study; a part with a single choice is fixed and has none."""
        return self._encoding.parameters

    def parameter_name(self, part: str) -> str:
        """The name of the parameter of a part, cut where a database column would not hold it."""
        return parameter_name(self.prefix, part)

    @property
    def _default_size(self) -> int | None:
        return self.calibration_sizes[0] if self.calibration_sizes else None

    def distributions(self) -> dict[str, BaseDistribution]:
        """The distribution of each parameter, the same in every trial."""
        return {p.name: CategoricalDistribution(p.choices) for p in self.parameters}

    def suggest(self, trial: optuna.trial.BaseTrial) -> QuantConfig:
        """Ask a trial for every parameter and give the configuration that it chose.

        The parameters are written to the storage at once when all are chosen, or with those of
        an enclosing :func:`~optuna_quant.storages.write_buffer.buffered_writes`.

        Raises:
            ValueError:
                If the trial is given a value that is none of the choices, as by
                ``enqueue_trial``, or the sampler or the study has other choices.
        """
        return self.config_from_params(suggest_params(trial, self.parameters))

    @cached_property
    def _default(self) -> QuantConfig:
        return QuantConfig(
            {op: tunable.default for tunable in self.tunables for op in tunable.ops},
            {name: values[0] for name, values in self.recipes.items()},
            self._default_size,
        )

    def default(self) -> QuantConfig:
        """Every op in its first option, every recipe in its first value."""
        return self._default

    @cached_property
    def _fp32(self) -> QuantConfig:
        return self._default.with_ops({op: FP32 for op in self._default.ops})

    def fp32(self) -> QuantConfig:
        """Every op in FP32, whether the space has that option or not; default recipes."""
        return self._fp32

    @cached_property
    def has_fp32(self) -> bool:
        """Whether the FP32 model is a configuration of this space."""
        return self._fp32 in self

    def preset_configs(self) -> dict[str, QuantConfig]:
        """The configurations of the presets by name, in their order.

        One that is the default, or the same as an earlier one, is left out.
        """
        seen = {self.default()}
        found: dict[str, QuantConfig] = {}
        for preset in self.presets:
            config = preset.config(self.default(), self.tunables)
            if config not in seen:
                seen.add(config)
                found[preset.name] = config
        return found

    def without_recipes(self, config: QuantConfig) -> QuantConfig:
        """``config`` with the default value of every recipe and the default calibration size."""
        return QuantConfig(config.ops, self._default.recipes, self._default_size)

    def __contains__(self, config: object) -> bool:
        return isinstance(config, QuantConfig) and self.positions_of(config) is not None

    def check(self, config: QuantConfig, source: str) -> None:
        """Refuse a configuration that this space does not have.

        Args:
            config:
                The configuration.
            source:
                Where it comes from, for the message.

        Raises:
            ValueError:
                If it is not in the space; the message names the first part that does not fit.
        """
        if config in self:
            return
        reason = why_outside(config, self.tunables)
        raise ValueError(f"{source}: the configuration is not in the tuning space: {reason}.")

    # A configuration as the position of each parameter's choice.

    def positions_of(self, config: QuantConfig) -> tuple[int, ...] | None:
        """The position of the choice of each parameter; :obj:`None` if the space lacks one."""
        return self._encoding.positions_of(config)

    def config_of(self, positions: Sequence[int]) -> QuantConfig:
        """The configuration in which each parameter has the choice at its position."""
        return self._encoding.config_of(positions)

    def params_of(self, config: QuantConfig) -> dict[str, RecipeValue]:
        """The parameter values that stand for a configuration.

        Raises:
            KeyError:
                If the configuration lacks an op or a recipe of this space.
        """
        return self._encoding.params_of(config)

    def config_from_params(self, params: Mapping[str, Any]) -> QuantConfig:
        """The configuration that a trial's parameters stand for.

        Raises:
            KeyError:
                If a parameter of this space is missing.
            ValueError:
                If a parameter has a value that this space does not have.
        """
        return self._encoding.config_from_params(params)

    def key_from_params(self, params: Mapping[str, Any]) -> str | None:
        """The key of :meth:`config_from_params`, faster; :obj:`None` if it does not exist."""
        return self._encoding.key_from_params(params)

    # The configurations in order.

    @property
    def size(self) -> int:
        """The exact number of configurations."""
        return self.count(fallback=True)

    def count(self, *, fallback: bool) -> int:
        """The exact number of configurations, those with ops in fallback included or not."""
        return math.prod(radices(self.parameters, fallback=fallback))

    def config_at(self, index: int, *, fallback: bool = True) -> QuantConfig:
        """The configuration number ``index``; 0 is the default, the last parameter runs fastest.

        Args:
            index:
                The number, from 0 on.
            fallback:
                Whether configurations with ops in fallback are counted. Default: they are.

        Raises:
            IndexError:
                If ``index`` is not in ``range(space.count(fallback=fallback))``.
        """
        return self.config_of(positions_at(self.parameters, index, fallback=fallback))

    # Derived spaces and views.

    def group(self, groups: Mapping[str, Sequence[str]] | None = None, **kw: Any) -> TuningSpace:
        """Tie ops into one parameter each, so that they always have the same option.

        Args:
            groups:
                The ops of each group, by the group's name. An op is given by its name or by a
                regular expression that matches whole names. Ops that are tied already, as those
                are that share a weight, come together.
            **kw:
                More groups, by keyword.

        Returns:
            A new space. The parameter of a group stands where its first op stood and offers what
            all its ops offer.

        Raises:
            ValueError:
                If a pattern matches no op or is no regular expression, a group has no op or has
                the name of an op outside it, an op is in two groups, or the ops of a group have
                no option in common.
        """
        tied = tie_groups(self.tunables, {**(groups or {}), **kw})
        return replace(self, tunables=tied)

    def describe(self) -> dict[str, list[RecipeValue]]:
        """What identifies the space: the choices of each parameter, and what is fixed."""
        return described(self.tunables, self.recipes, self.calibration_sizes)

    @property
    def description(self) -> str:
        """The text of what :meth:`describe` gives; equal spaces have the same text."""
        return json.dumps(self.describe(), sort_keys=True)

    def to_frame(self) -> pd.DataFrame:
        """What can be tuned, for people: a row per op.

        Returns:
            A data frame with the columns ``op``, ``op_type``, ``parameter`` (empty if fixed),
            ``default``, ``options`` (their number), ``modes``, ``activation`` and ``weight`` (the
            different settings), and ``fallback``.
        """
        return space_frame(self.tunables, self.parameter_name)
