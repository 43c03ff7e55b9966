"""A model that was built without a search, and what can be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
import os
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.notebook_table import notebook_table
from optuna_quant._common.printable import listed
from optuna_quant.backends.base import original_of
from optuna_quant.evaluation.backend_checks import executed_of
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.tuning.compare import compare
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import endings_of
from optuna_quant.tuning.output import files_of
from optuna_quant.tuning.table import asked_report
from optuna_quant.tuning.table import recipes_line
from optuna_quant.tuning.what_runs import describe_runs


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.trial import FrozenTrial
    import pandas as pd

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.backends.base import Model
    from optuna_quant.costs.comparison import Comparison


def without_quantization(config: QuantConfig) -> QuantConfig:
    """The FP32 model: every op of a configuration in FP32, and no recipe.

    Args:
        config:
            The configuration.
    """
    return QuantConfig(dict.fromkeys(config.ops, FP32))


@dataclass(frozen=True, eq=False, repr=False)
class BuiltModel:
    """A model that was built without a search: in a given configuration, or that of a trial.

    Attributes:
        config:
            What was asked of each op; ops that it does not name run in FP32.
        fp32_bytes:
            The size of the FP32 model in bytes.
        backend:
            What has built it.
        headline:
            What is known of it: no criterion was checked, or what the trial was found to be.
        trial:
            The trial whose model it is; :obj:`None` if it is of none.
    """

    _model: Model
    config: QuantConfig
    fp32_bytes: int
    backend: Backend = field(repr=False)
    headline: str = "Quantized without a search; no criterion was checked."
    trial: FrozenTrial | None = field(default=None, repr=False)
    _given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _threads: int = field(default=0, repr=False)

    def model(self) -> Model:
        """The model, as a trial of a search builds it."""
        return self._model

    @property
    def nbytes(self) -> int:
        """The size of the model in bytes."""
        return self._model.nbytes

    @cached_property
    def executed(self) -> Mapping[str, ExecutedOp]:
        """What the runtime executes for each op; the runtime is asked once, when this is read."""
        return executed_of(self.backend, self.config)

    @cached_property
    def is_quantized(self) -> bool:
        """Whether anything is quantized: calibration may find a range for no op."""
        return self._model.fingerprint != self._fp32().fingerprint

    def report(self) -> pd.DataFrame:
        """What each op was asked to run, and what the runtime executes.

        Returns:
            A data frame with a row for each op and the first columns of
            :meth:`TuningResult.report <optuna_quant.TuningResult.report>`: ``op``, ``op_type``,
            ``mode``, ``activation``, ``weight``, ``runs``, ``as_asked`` and ``note``.
        """
        types = {op.name: op.op_type for op in self.backend.capability().ops}
        return asked_report(self.config, types, self.executed)

    def compare(self, **options: Any) -> Comparison:
        """Run the model beside the FP32 model: time, size, outputs, and a metric.

        Args:
            **options:
                Those of :func:`optuna_quant.compare` that go with built models: ``data``,
                ``metric``, ``output_names``, ``batch``, ``rounds``, ``samples`` and ``seed``.
                ``inputs`` and ``transform`` are those of the build unless given.

        Raises:
            ValueError:
                If the data do not fit the model, or an option is out of its range.
        """
        found = compare(self._fp32(), self._model, **{**self._given, **options})
        return replace(
            found,
            first=replace(found.first, name=original_of(self.backend)),
            second=replace(found.second, name="quantized"),
            threads=self._threads,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which is replaced as a whole.

        Raises:
            ValueError:
                If the file cannot be written, or is one of those that were read.
        """
        check_output(path, inputs=files_of(self.backend), endings=endings_of(self.backend))
        self._model.save(path)

    def summary(self) -> str:
        """The model in a few lines of text; the runtime is asked what it executes."""
        original = original_of(self.backend)
        size = f"{shown_bytes(self.nbytes)} against {shown_bytes(self.fp32_bytes)} ({original})"
        if not self.is_quantized:
            known = "" if self.trial is None else f"{self.headline}\n"
            return f"{known}Nothing is quantized: this is the {original} model as it is.\n{size}"
        runs, differs = describe_runs(self.config, self.executed)
        lines = [self.headline, f"{runs}, {size}"]
        if differs:
            lines.append(differs)
        lines += recipes_line(self.config, self.backend.capability().recipes)
        if self.config.fallback_ops:
            lines.append(f"in fallback: {listed(self.config.fallback_ops)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        head, *rest = self.summary().splitlines()
        return notebook_table(head, [("", line) for line in rest])

    def _fp32(self) -> Model:
        return self.backend.quantize(without_quantization(self.config))
