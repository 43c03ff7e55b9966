"""What the backend offers for each op of a model, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.onnxruntime.capability import APPROACHES
from optuna_quant.backends.onnxruntime.capability import WITHOUT_DATA
from optuna_quant.backends.onnxruntime.capability import find_capability
from optuna_quant.backends.onnxruntime.capability import usual_approach
from optuna_quant.backends.onnxruntime.hints import model_warnings
from optuna_quant.backends.onnxruntime.hints import quantized_nodes
from optuna_quant.backends.onnxruntime.left_out import find_left_out
from optuna_quant.backends.onnxruntime.model.float_constants import total_float_bytes
from optuna_quant.backends.onnxruntime.targets.table import CPU
from optuna_quant.backends.onnxruntime.targets.table import TARGETS
from optuna_quant.space.left_out import FloatWeights


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.backends.onnxruntime.model.opened import OpenedModel
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
    from optuna_quant.backends.onnxruntime.targets.target import Target
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)


class OfferedOps:
    """What can be done with each op of one model in one approach.

    It has no lock of its own: one thread at a time may use it.

    Args:
        model:
            The model.
        static:
            The ops that can be quantized statically, by name.
        weight_only:
            The ops whose weights alone can be quantized, by name.
        approach:
            What the user asks for; None for what is usual for the model.
        has_data:
            Whether there are calibration data.
        calibration_sizes:
            The calibration sampling sizes, default first.
        target:
            What the ops are offered for.
        recipes:
            Gives the values of each recipe that is offered, default first.
    """

    def __init__(
        self,
        model: OpenedModel,
        static: Mapping[str, StaticOp],
        weight_only: Mapping[str, WeightOnlyOp],
        *,
        approach: str | None,
        has_data: bool,
        calibration_sizes: Sequence[int],
        target: Target,
        recipes: Callable[[], Mapping[str, tuple[str, ...]]],
    ) -> None:
        self._target = target
        self._model = model
        self._static = static
        self._weight_only = weight_only
        self._has_data = has_data
        self._asked_approach = approach
        self._calibration_sizes = calibration_sizes
        self._recipes = recipes

    @cached_property
    def approach(self) -> str:
        """What the user asks for, or what is usual for the model."""
        if self._asked_approach is not None:
            return self._asked_approach
        if not self._target.profile.forms:
            return "dynamic" if self._target.profile.dynamic else "weight_only"
        if not self._target.profile.dynamic:
            return "static"
        found = usual_approach(self._model.graph, self._static, self._model.nbytes)
        if found != "static":
            _logger.info(
                "Many of the weights belong to ops that only dynamic quantization supports, so "
                f"the approach is {found!r}; approach='static' (--approach static) leaves them "
                "in FP32."
            )
        return found

    @cached_property
    def capability(self) -> Capability:
        """What can be done with each op; warns of what is wrong with the model."""
        graph = self._model.graph
        found = find_capability(
            graph,
            self._static,
            self.approach,
            self._calibration_sizes,
            weight_only=self._weight_only,
            has_data=self._has_data,
            target=self._target,
        )
        found = replace(found, recipes=self._recipes())
        # Without any op to tune the error says what is wrong.
        if any(op.default for op in found.ops):
            for warning in model_warnings(graph):
                warn_user(warning)
        return found

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized."""
        return "the model as given" if quantized_nodes(self._model.graph.nodes) else "FP32"

    def left_out(self, space: TuningSpace | None) -> tuple[LeftOut, ...]:
        """Which ops are not in a tuning space, and why; in the default one if it is None."""
        if space is None:
            return self._not_among({op.name for op in self.capability.ops if op.default})
        return self._not_among(op for tunable in space.tunables for op in tunable.ops)

    def float_weights(self, config: QuantConfig) -> FloatWeights:
        """The weights that a configuration leaves in floats, and what would quantize them."""
        graph = self._model.graph
        quantized = set(config.quantized_ops)
        nodes = [node for node in graph.nodes if node.name not in quantized]
        fallback = [node for node in nodes if node.name in config.ops]
        return FloatWeights(
            nbytes=total_float_bytes(nodes, graph),
            model_bytes=self._model.nbytes,
            left_out=self._not_among(config.ops),
            in_fallback=total_float_bytes(fallback, graph),
        )

    def _not_among(self, chosen: Iterable[str]) -> tuple[LeftOut, ...]:
        offered = {op.name: op for op in self.capability.ops}
        return find_left_out(
            self._model.graph,
            self._static,
            self.approach,
            offered,
            frozenset(chosen),
            profile=self._target.profile,
        )


def check_approach(approach: str | None, profile: TargetProfile = CPU) -> None:
    """Check what the user asks for.

    Args:
        approach:
            The approach.
        profile:
            What the target runs.

    Raises:
        ValueError:
            If there is no such approach, or the target has nothing for it.
    """
    if approach is not None and approach not in APPROACHES:
        raise ValueError(
            f"approach must be one of {', '.join(APPROACHES)}, but got {approach!r}."
            f"{did_you_mean(str(approach), APPROACHES)}"
        )
    if approach is not None and approach not in _approaches_of(profile):
        others = [name for name, each in TARGETS.items() if approach in _approaches_of(each)]
        raise ValueError(
            f"approach={approach!r}: the target {profile.name!r} has no such quantization; it has "
            f"{', '.join(_approaches_of(profile))}. Targets with {approach!r}: "
            f"{', '.join(others)}."
        )


def _approaches_of(profile: TargetProfile) -> list[str]:
    runs = {
        "static": bool(profile.forms),
        "dynamic": profile.dynamic,
        "weight_only": bool(profile.weight_only_bits),
        "auto": True,
    }
    return [name for name, has in runs.items() if has]


def check_has_data(approach: str | None, calibration_data: object) -> None:
    """Check that there are calibration data if candidates cannot be built without them.

    Raises:
        ValueError:
            If there are none.
    """
    if calibration_data is None and approach not in WITHOUT_DATA:
        raise ValueError(
            f"approach={approach or 'static'!r} needs calibration_data: samples like those "
            "the model will see in use. Without them, use approach='dynamic' or 'weight_only'."
        )
