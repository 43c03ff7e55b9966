"""Configurations as the choices of a study's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.space.config import QuantConfig
from optuna_quant.space.keys import RecipeValue
from optuna_quant.space.keys import calibration_digest
from optuna_quant.space.keys import combine_digests
from optuna_quant.space.keys import op_digest
from optuna_quant.space.keys import recipe_digest
from optuna_quant.space.tunable import Parameter


if TYPE_CHECKING:
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.tunable import Tunable


# The longest name that Optuna's relational storages hold.
_LONGEST_NAME = 512

_MOST_SHOWN = 3


class MissingParameterError(KeyError):
    """Parameters are not those of a configuration of a space.

    Args:
        name:
            The first parameter of the space that is missing.
        given:
            What was given.
    """

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name)
        shown = ", ".join(repr(each) for each in list(given)[:_MOST_SHOWN])
        more = f" and {len(given) - _MOST_SHOWN} more" if len(given) > _MOST_SHOWN else ""
        are = f"they are {shown}{more}" if given else "none is given"
        self._message = (
            f"The parameters lack {name!r}, which this tuning space has: {are}. Give those of a "
            "trial that has evaluated a configuration of this space."
        )

    def __str__(self) -> str:  # A KeyError shows the repr of its argument.
        return self._message


class Encoding:
    """Translates between the configurations of a space and what a study records of them.

    Args:
        tunables:
            The ops, in model order.
        recipes:
            The values of each recipe, default first.
        calibration_sizes:
            The calibration sampling sizes, default first.
        prefix:
            What the names of the parameters begin with.
    """

    def __init__(
        self,
        tunables: Sequence[Tunable],
        recipes: Mapping[str, Sequence[RecipeValue]],
        calibration_sizes: Sequence[int],
        prefix: str,
    ) -> None:
        self._tunables = tunables
        self._recipes = recipes
        self._calibration_sizes = calibration_sizes
        self._prefix = prefix

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of the study; a part with a single choice is fixed and has none."""
        found = []
        for tunable in self._tunables:
            if len(tunable.options) > 1:
                quantized = tuple(i for i, o in enumerate(tunable.options) if o.is_quantized)
                found.append(
                    Parameter(
                        parameter_name(self._prefix, f"op:{tunable.name}"),
                        tunable.options,
                        tuple(option.label for option in tunable.options),
                        tuple(
                            sum(op_digest(op, option.label) for op in tunable.ops)
                            for option in tunable.options
                        ),
                        quantized or tuple(range(len(tunable.options))),
                    )
                )
        for name, values in self._recipes.items():
            if len(values) > 1:
                digests = tuple(recipe_digest(name, value) for value in values)
                found.append(self._plain(f"recipe:{name}", values, digests))
        if len(self._calibration_sizes) > 1:
            digests = tuple(calibration_digest(size) for size in self._calibration_sizes)
            found.append(self._plain("calibration_size", self._calibration_sizes, digests))
        return tuple(found)

    def _plain(
        self, name: str, values: Sequence[RecipeValue], digests: tuple[int, ...]
    ) -> Parameter:
        chosen = tuple(values)
        return Parameter(
            parameter_name(self._prefix, name), chosen, chosen, digests, tuple(range(len(chosen)))
        )

    @cached_property
    def _fixed_digest(self) -> int:
        """What the parts without a parameter contribute to every key."""
        total = 0
        for tunable in self._tunables:
            if len(tunable.options) == 1:
                total += sum(op_digest(op, tunable.options[0].label) for op in tunable.ops)
        total += sum(recipe_digest(n, v[0]) for n, v in self._recipes.items() if len(v) == 1)
        if len(self._calibration_sizes) < 2:
            total += calibration_digest(self._default_size)
        return total

    @property
    def _default_size(self) -> int | None:
        return self._calibration_sizes[0] if self._calibration_sizes else None

    def positions_of(self, config: QuantConfig) -> tuple[int, ...] | None:
        """The position of the choice of each parameter; :obj:`None` if the space lacks one."""
        try:
            params = self.params_of(config)
            positions = tuple(p.position[params[p.name]] for p in self.parameters)
        except KeyError:
            return None
        return positions if self.config_of(positions) == config else None

    def config_of(self, positions: Sequence[int]) -> QuantConfig:
        """The configuration in which each parameter has the choice at its position."""
        chosen = iter([p.values[i] for p, i in zip(self.parameters, positions, strict=True)])
        ops: dict[str, OpConfig] = {}
        for tunable in self._tunables:
            option = next(chosen) if len(tunable.options) > 1 else tunable.options[0]
            ops.update(dict.fromkeys(tunable.ops, option))
        recipes = {n: next(chosen) if len(v) > 1 else v[0] for n, v in self._recipes.items()}
        size = next(chosen) if len(self._calibration_sizes) > 1 else self._default_size
        return QuantConfig(ops, recipes, size)

    def params_of(self, config: QuantConfig) -> dict[str, RecipeValue]:
        """The parameter values that stand for a configuration.

        Raises:
            KeyError:
                If the configuration lacks an op or a recipe of this space.
        """
        params: dict[str, RecipeValue] = {}
        for tunable in self._tunables:
            if len(tunable.options) > 1:
                params[parameter_name(self._prefix, f"op:{tunable.name}")] = config.ops[
                    tunable.ops[0]
                ].label
        for name, values in self._recipes.items():
            if len(values) > 1:
                params[parameter_name(self._prefix, f"recipe:{name}")] = config.recipes[name]
        if len(self._calibration_sizes) > 1:
            params[parameter_name(self._prefix, "calibration_size")] = config.calibration_size
        return params

    def config_from_params(self, params: Mapping[str, Any]) -> QuantConfig:
        """The configuration that a trial's parameters stand for.

        Raises:
            KeyError:
                If a parameter of this space is missing; the message names it.
            ValueError:
                If a parameter has a value that this space does not have.
        """
        positions = []
        for p in self.parameters:
            try:
                value = params[p.name]
            except KeyError:
                raise MissingParameterError(p.name, params) from None
            try:
                positions.append(p.position[value])
            except (KeyError, TypeError):  # TypeError: the value is not hashable.
                raise ValueError(
                    f"Parameter {p.name!r} has no choice {value!r} in this space."
                ) from None
        return self.config_of(positions)

    def key_from_params(self, params: Mapping[str, Any]) -> str | None:
        """The key of :meth:`config_from_params`, faster; :obj:`None` if it does not exist."""
        total = self._fixed_digest
        try:
            for p in self.parameters:
                total += p.digests[p.position[params[p.name]]]
        except (KeyError, TypeError):  # TypeError: a value is not hashable.
            return None
        return combine_digests([total])


def parameter_name(prefix: str, part: str) -> str:
    """The name of the parameter of a part, cut where a database column would not hold it."""
    name = f"{prefix}.{part}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{name[: _LONGEST_NAME - 1 - len(digest)]}~{digest}"
