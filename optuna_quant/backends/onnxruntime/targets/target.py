"""The target of a backend: its profile, and whether its provider is here."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields
import hashlib
import json
from typing import TYPE_CHECKING

import onnxruntime
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.lower_precision.ops import inputs_in
from optuna_quant.backends.onnxruntime.lower_precision.types import FLOAT_TYPES
from optuna_quant.backends.onnxruntime.model.providers import checked_providers
from optuna_quant.backends.onnxruntime.targets.profile import CPU_PROVIDER
from optuna_quant.backends.onnxruntime.targets.table import CPU
from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import Providers
    from optuna_quant.backends.onnxruntime.targets.profile import IntegerForm
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile


_logger = get_logger(__name__)

IN_FLOATS: Mapping[str, str] = {"session.disable_quant_qdq": "1"}
"""The session option with which Q/DQ pairs stay what they are.

The runtime then makes no integer kernels of them, whose rounding, saturation and lacking forms are
those of the CPU, and still optimizes what is between them: so candidates are simulated as fast as
the FP32 model runs. (Without any optimization they compute the same, but for the order of sums,
and are slower by half.)
"""


@dataclass(frozen=True)
class Target:
    """What a backend quantizes for.

    Args:
        profile:
            The profile.
        is_simulated:
            Whether models are simulated on the CPU because the provider is not used here.
    """

    profile: TargetProfile = CPU
    is_simulated: bool = False

    @property
    def session_entries(self) -> Mapping[str, str]:
        """Configuration entries of all sessions of the model and its candidates.

        Those of calibration, of sensitivities, and of what is read from the optimized graph
        included; not those of helpers that compute a constant or a product by themselves.
        """
        return IN_FLOATS if self.is_simulated else {}

    def fallbacks(self, op_type: str, node: onnx.NodeProto, graph: Graph) -> tuple[OpConfig, ...]:
        """The floating-point options of an op, the preferred one first.

        Those of 16 bits are left out where the operator or a constant of the op does not fit.

        Args:
            op_type:
                Its op type, as in the tuning space.
            node:
                The op.
            graph:
                Its graph.
        """
        return tuple(
            OpConfig(mode)
            for mode in self.profile.fallbacks_of(op_type)
            if mode == "fp32" or inputs_in(FLOAT_TYPES[mode], node, graph)
        )

    @property
    def is_usual(self) -> bool:
        """Whether it is what the backend quantizes for by default."""
        return self.profile == CPU

    @property
    def description(self) -> str:
        """What models depend on, as a short string; empty if it is the usual one."""
        if self.is_usual:
            return ""
        text = json.dumps(_given(self.profile), sort_keys=True, default=_given)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        how = "simulated" if self.is_simulated else "measured"
        return f"{self.profile.name} {digest} {how}"

    def tell(self) -> None:
        """Tell the user what could not be tried."""
        profile = self.profile
        if self.is_simulated:
            _logger.warning(
                f"Target {profile.name!r}: {profile.provider} is not used here (available in this "
                f"ONNX Runtime: {', '.join(onnxruntime.get_available_providers())}), so "
                "quantized models are simulated in floats on the CPU. Accuracies are those of "
                "the arithmetic that the profile describes; times are not measured, and that the "
                "device takes the model has not been tried."
            )
        if profile.note:
            _logger.info(f"Target {profile.name!r}: {profile.note}")


def _given(value: TargetProfile | IntegerForm) -> dict[str, object]:
    """The fields of a profile or a form that models depend on and that are not at their defaults.

    So a field that is new does not change what is said of profiles that leave it alone.
    """
    return {
        each.name: getattr(value, each.name)
        for each in fields(value)
        if each.name != "note" and getattr(value, each.name) != each.default
    }


USUAL_TARGET = Target()
"""The CPU, on which models run."""


def checked_reduce_range(asked: bool | None, profile: TargetProfile) -> bool:
    """Whether weights use 7 bits only.

    Args:
        asked:
            What the user asks for; None for what the target asks for.
        profile:
            The target.

    Raises:
        ValueError:
            If the user forbids what the target needs.
    """
    if asked is False and profile.reduce_range:
        raise ValueError(
            f"reduce_range=False contradicts target={profile.name!r}, whose weights have 7 bits: "
            "leave reduce_range out, or give a target without it, such as 'cpu'."
        )
    return bool(asked) or profile.reduce_range


def find_target(profile: TargetProfile, providers: Providers | None) -> tuple[Target, Providers]:
    """What a backend quantizes for, and the execution providers of its sessions.

    Args:
        profile:
            The profile.
        providers:
            The providers that the user names; None for that of the profile where it is installed,
            with the CPU's for ops that it does not support, and otherwise the CPU's alone.

    Raises:
        ValueError:
            If there are no providers, or this ONNX Runtime lacks one that the user names.
    """
    if providers is None and not profile.is_cpu:
        if profile.provider in onnxruntime.get_available_providers():
            own = (profile.provider, dict(profile.provider_options))
            return Target(profile), (own, CPU_PROVIDER)
        return Target(profile, is_simulated=True), (CPU_PROVIDER,)
    found = checked_providers(providers)
    names = [each if isinstance(each, str) else each[0] for each in found]
    simulated = not profile.is_cpu and profile.provider not in names
    return Target(profile, is_simulated=simulated), found
