"""Where a search ran: versions, the machine, and on what costs were measured."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
import platform
from typing import TYPE_CHECKING

from optuna_quant._common.version import __version__
from optuna_quant._optuna import study_system_attrs
from optuna_quant.costs import HasCostConditions
from optuna_quant.report.facts import EnvironmentFacts
from optuna_quant.tuning.recorded_outcome import is_recorded
from optuna_quant.workers.cores import available_cores


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.tuning.outcome import Outcome


_PACKAGES = ("optuna", "numpy", "scipy", "onnx", "onnxruntime", "torch")
_PROTOCOL = "optuna_quant:protocol"


def environment_facts(result: Outcome) -> EnvironmentFacts:
    """Where the search ran; of a record alone, what it says of that.

    Args:
        result:
            The result.
    """
    if is_recorded(result):
        kept = study_system_attrs(result.study).get(_PROTOCOL) or {}
        started = kept.get("version")
        return EnvironmentFacts(
            versions={} if started is None else {"optuna_quant": str(started)},
            system=None,
            cores=None,
            measured_on=_measured_on(result),
        )
    return EnvironmentFacts(
        versions=_versions(),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cores=available_cores(),
        measured_on=_measured_on(result) or _conditions(result),
    )


def _versions() -> dict[str, str]:
    """The versions that results depend on; of what is installed."""
    found = {"optuna_quant": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _measured_on(result: Outcome) -> Mapping[str, str]:
    """The conditions under which costs were measured, as far as that was done."""
    known = result.known_objective
    return {} if known is None else dict(known.costs.conditions)


def _conditions(result: Outcome) -> Mapping[str, str]:
    """Under which conditions costs would be measured here."""
    if not isinstance(result.backend, HasCostConditions):
        return {}
    try:
        return dict(result.backend.cost_conditions())
    except Exception:  # It needs a sample, and there is none.
        return {}
