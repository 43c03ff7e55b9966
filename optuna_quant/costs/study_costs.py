"""Keep costs in a study: measured once for all workers, or given by the user."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant.backends.base import PreviewsCalibration
from optuna_quant.backends.base import latency_feed_of
from optuna_quant.backends.base import original_of
from optuna_quant.backends.base import simulated_target_of
from optuna_quant.costs.costs import Costs
from optuna_quant.costs.costs import CountsCosts
from optuna_quant.costs.costs import HasCostConditions
from optuna_quant.costs.costs import MeasuresCosts
from optuna_quant.costs.objective import BIT_OPERATIONS
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import SIZE
from optuna_quant.study import record
from optuna_quant.study.blobs import find_bytes
from optuna_quant.study.blobs import read_text
from optuna_quant.study.blobs import write_text
from optuna_quant.study.compute_once import ComputeOnce


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

_UNKNOWN = "the backend does not know them"
# Of the model in floats: other weights take as much room.
_SAME_SIZE = 1e-3


class StudyCosts:
    """The costs of a model, kept in its studies.

    Costs that the user gives go before those that were measured, and before those that were given
    earlier: the newest hold, for all trials. What was measured stays, so that a search that is
    continued finds the same costs, on whatever machine.

    Args:
        backend:
            Builds the models; it measures if it :class:`~optuna_quant.costs.MeasuresCosts`.
        space:
            The tuning space as the backend gives it.
        signature:
            What the models of the backend depend on, by part.
        given:
            The costs that the user gives; :obj:`None` for none.
        before:
            Called with the study before the backend measures.
    """

    def __init__(
        self,
        backend: Backend,
        space: TuningSpace,
        *,
        signature: Mapping[str, str],
        given: Costs | None = None,
        before: Callable[[optuna.Study], None] = lambda study: None,
    ) -> None:
        self._backend = backend
        self._space = space
        self._given = given
        self._before = before
        self._measured: str | None = None
        # Whatever the processor, since the first worker measures for all.
        parts = {name: part for name, part in signature.items() if name != "arithmetic"}
        text = json.dumps([parts, space.description], sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def given(self) -> Costs | None:
        """The costs that the user gives; :obj:`None` for none."""
        return self._given

    @property
    def can_be_measured(self) -> bool:
        """Whether the backend measures costs of models as they run in use."""
        return isinstance(self._backend, MeasuresCosts) and self._simulated is None

    @property
    def usual_if_counted(self) -> str:
        """The measure to search for by default where nothing is measured.

        That is the size; for a device that is only simulated, where models need not be smaller to
        be faster, it is the bit operations.
        """
        return SIZE if self._simulated is None else BIT_OPERATIONS

    @property
    def why_not_here(self) -> str:
        """Why nothing is measured here, though the backend could; empty if there is no reason."""
        if self._simulated is None:
            return ""
        return f"the target {self._simulated!r} is simulated, so that no times are measured"

    @property
    def _simulated(self) -> str | None:
        return simulated_target_of(self._backend)

    @property
    def can_be_counted(self) -> bool:
        """Whether the backend counts costs."""
        return isinstance(self._backend, CountsCosts)

    @property
    def has_samples(self) -> bool:
        """Whether the backend has samples to run models on, as far as it tells."""
        if not isinstance(self._backend, PreviewsCalibration):
            return True
        return self._backend.calibration_preview(1) is not None

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized."""
        return original_of(self._backend)

    @cached_property
    def fp32_bytes(self) -> float:
        """The size of the FP32 model."""
        return float(self._backend.quantize(self._space.fp32()).nbytes)

    def known(self, study: optuna.Study) -> Costs | None:
        """What was given, or what a study keeps already; :obj:`None` if there is nothing.

        Raises:
            ValueError:
                If times were measured with another batch than the backend is set to.
        """
        name = f"{record.GIVEN_COSTS}:{self._key}"
        kept = read_text(study, name)
        if self._given is not None:
            text = self._given.dumps()
            if text != kept:
                if kept is not None:
                    _logger.warning(
                        f"The study {study.study_name!r} continues with the costs given now; "
                        "all its trials are compared by them."
                    )
                write_text(study, name, text)
            return _given(text)
        if kept is not None:
            return _given(kept)
        measured = ComputeOnce(study, self._measured_name).read()
        if measured is None:
            return None
        found = _costs_of(measured.decode())[0]
        self._check_batch(study, found)
        return found

    def get(self, study: optuna.Study, *, must: bool) -> tuple[Costs | None, str]:
        """The costs, measured if need be, once for all workers of the study.

        Args:
            study:
                The study.
            must:
                Whether a failure to measure them is an error.

        Returns:
            The costs, and, if they are not known, why.

        Raises:
            ValueError:
                If they must be known, and are not.
        """
        found = self.known(study)
        if found is not None:
            return found, ""
        if not self.can_be_measured:
            return None, self.why_not_here or _UNKNOWN
        if not must and not self.has_samples:
            return None, "there are no samples to run the model on"
        shared = ComputeOnce(study, self._measured_name)
        text = shared.get(lambda: self._measure(study, must=must).encode()).decode()
        costs, why = _costs_of(text)
        if costs is None and must:
            raise ValueError(f"Costs could not be measured: {why}")
        return costs, why

    def _check_batch(self, study: optuna.Study, costs: Costs | None) -> None:
        if costs is None or LATENCY not in costs.tables:
            return
        feed = latency_feed_of(self._backend)
        kept = costs.conditions.get("batch")
        if feed is not None and kept is not None and kept != str(feed[0]):
            raise ValueError(
                f"The study {study.study_name!r} was searched by the times of batches of {kept} "
                f"samples, and now they would be of {feed[0]}: give latency_batch_size={kept} "
                f"(--latency-batch-size {kept}), or another study_name (--study-name); "
                "from_study= (--from-study) takes over what was evaluated."
            )

    def counted(self, study: optuna.Study) -> tuple[Costs | None, str]:
        """Costs that need no measurement, once for all workers.

        Whatever is known already goes before them.

        Returns:
            The costs, and, if they are not known, why.
        """
        found = self.known(study)
        if found is not None:
            return found, ""
        if not isinstance(self._backend, CountsCosts):
            return None, _UNKNOWN
        shared = ComputeOnce(study, f"{record.COUNTED_COSTS}:{self._key}")
        return _costs_of(shared.get(lambda: self._count(study).encode()).decode())

    def countable(self) -> tuple[frozenset[str], str]:
        """The measures that can be counted here, without a study, and why if there are none."""
        if not isinstance(self._backend, CountsCosts):
            return frozenset(), _UNKNOWN
        try:
            return frozenset(self._counted().tables), ""
        except Exception as error:
            return frozenset(), f"{type(error).__name__}: {error}"

    def _count(self, study: optuna.Study) -> str:
        if self.has_samples:
            self._before(study)
        try:
            return self._counted().dumps()
        except Exception as error:
            return json.dumps({"failed": f"{type(error).__name__}: {error}"})

    def _counted(self) -> Costs:
        assert isinstance(self._backend, CountsCosts)
        found: object = self._backend.counted_costs(self._space)
        if not isinstance(found, Costs):
            raise TypeError(
                f"{type(self._backend).__name__}.counted_costs() must return "
                f"optuna_quant.costs.Costs, but returned a {type(found).__name__}."
            )
        return found

    def take_over(self, study: optuna.Study, earlier: optuna.Study) -> bool:
        """Keep what an earlier study has measured, if measuring here would give the same.

        That is so if its model has the same size in floats, its costs have all options of this
        space, and the backend says (as one that
        :class:`~optuna_quant.costs.HasCostConditions`) that it would measure under the same
        conditions: those that its costs name.

        Args:
            study:
                The study.
            earlier:
                The earlier study, which is only read.

        Returns:
            Whether the costs were taken over.
        """
        backend = self._backend
        if not isinstance(backend, HasCostConditions) or self.known(study) is not None:
            return False
        attrs = _optuna.study_system_attrs(earlier)
        if any(name.startswith(f"optuna_quant:{record.GIVEN_COSTS}:") for name in attrs):
            _logger.warning(
                f"The study {earlier.study_name!r} was searched with given costs, which are not "
                "reused. Give costs= to use them here as well."
            )
            return False
        pattern = re.compile(rf"optuna_quant:({record.MEASURED_COSTS}:[0-9a-f]{{32}})")
        names = [found[1] for found in map(pattern.fullmatch, attrs) if found]
        for name in names:
            data = find_bytes(attrs, name, study_name=earlier.study_name)
            if data is None:
                continue
            costs, _ = _costs_of(data.decode())
            if (
                costs is not None
                and costs.conditions == backend.cost_conditions()
                and self._fits(costs)
            ):
                ComputeOnce(study, self._measured_name).get(lambda kept=data: kept)  # type: ignore[misc]
                return True
        return False

    def _fits(self, costs: Costs) -> bool:
        """Whether costs are about a model of this size, with these options."""
        size = costs.tables.get(SIZE)
        try:
            costs.check(self._space)
        except ValueError:
            return False
        fp32 = self._space.fp32()
        if size is None:
            return False
        return math.isclose(size.cost(fp32), self.fp32_bytes, rel_tol=_SAME_SIZE)

    @property
    def _measured_name(self) -> str:
        return f"{record.MEASURED_COSTS}:{self._key}"

    def _measure(self, study: optuna.Study, *, must: bool) -> str:
        """The text that the study keeps: the costs, or why there are none."""
        assert isinstance(self._backend, MeasuresCosts)
        if self._measured is None:  # For a study that was started over in the place of another.
            _logger.info("Measuring what each op costs on this machine.")
            self._before(study)
            try:
                self._measured = self._backend.costs(self._space).dumps()
            except Exception as error:
                # A model of which no run can be profiled can be tuned all the same.
                if must:
                    raise
                self._measured = json.dumps({"failed": f"{type(error).__name__}: {error}"})
        return self._measured


def recorded_costs(study: optuna.Study) -> Costs | None:
    """The costs that a study keeps: given ones before measured ones before counted ones.

    Args:
        study:
            The study, which is only read.

    Returns:
        The costs; :obj:`None` if it keeps none.
    """
    attrs = _optuna.study_system_attrs(study)
    for kind in (record.GIVEN_COSTS, record.MEASURED_COSTS, record.COUNTED_COSTS):
        pattern = re.compile(rf"optuna_quant:({kind}:[0-9a-f]{{32}})")
        for found in filter(None, map(pattern.fullmatch, sorted(attrs))):
            data = find_bytes(attrs, found[1], study_name=study.study_name)
            costs = None if data is None else _costs_of(data.decode())[0]
            if costs is not None:
                return replace(costs, is_given=kind == record.GIVEN_COSTS)
    return None


def _given(text: str) -> Costs:
    return replace(Costs.loads(text), is_given=True)


def _costs_of(text: str) -> tuple[Costs | None, str]:
    stored = json.loads(text)
    if "failed" in stored:
        return None, str(stored["failed"])
    return Costs.loads(text), ""
