"""Show what the ops of a tuning space cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.gain_per_op import OpGain
from optuna_quant.costs.gain_per_op import left_out_by_cost
from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.gain_per_op import show_op_cost
from optuna_quant.costs.gain_per_op import worse_ops
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import show_measure
from optuna_quant.space.left_out import left_out_frame


if TYPE_CHECKING:
    import pandas as pd

    from optuna_quant.costs.costs import Costs
    from optuna_quant.costs.table import CostTable
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class SpaceCosts:
    """A tuning space with what its ops cost.

    Args:
        space:
            The tuning space.
        costs:
            The costs.
    """

    space: TuningSpace
    costs: Costs

    @property
    def table(self) -> CostTable:
        """The table that is shown: that of the latency, or else the first one.

        Raises:
            ValueError:
                If there is no table.
        """
        if not self.costs.tables:
            raise ValueError("The costs have no table.")
        return self.costs.tables.get(LATENCY) or next(iter(self.costs.tables.values()))

    @cached_property
    def gains(self) -> dict[str, OpGain]:
        """What each op gains by being quantized in the cheapest configuration."""
        return op_gains(self.table, self.space, cheapest(self.table, self.space))

    @cached_property
    def worse(self) -> dict[str, OpGain]:
        """The ops that the default space leaves out because of what they cost."""
        return worse_ops(self.table, self.space) if self.table.measure == LATENCY else {}

    def with_left_out(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame of what the space leaves out, with the ops that cost leaves out behind it."""
        import pandas as pd

        if not self.worse:
            return frame
        more = left_out_frame([left_out_by_cost(gain) for gain in self.worse.values()])
        return pd.concat([frame, more], ignore_index=True) if len(frame) else more

    def add_to(self, frame: pd.DataFrame, *, shown: bool = False) -> pd.DataFrame:
        """A frame of the space with three more columns.

        Args:
            frame:
                A row per op.
            shown:
                Whether the columns are for people: texts with units.

        Returns:
            The frame with ``fp32`` and ``quantized``, what the op (or its group) costs in each
            way with the conversions that only this way needs, and ``gain``, the difference;
            negative if it is more expensive quantized.
        """
        names = {op: t.name for t in self.space.tunables for op in t.ops}
        gains = [self.gains.get(names.get(op, "")) for op in frame["op"]]
        measure = self.table.measure
        for column, values in (
            ("fp32", [None if g is None else g.floats for g in gains]),
            ("quantized", [None if g is None else g.quantized for g in gains]),
            ("gain", [None if g is None else g.gain for g in gains]),
        ):
            show = show_measure if column == "gain" else show_op_cost
            texts = ["" if v is None else show(measure, v) for v in values]
            frame[column] = texts if shown else values
        return frame

    def summary(self) -> list[str]:
        """What the model costs, and how far the figures can be trusted, in lines."""
        fp32, default = self.space.fp32(), self.space.default()
        lines = []
        for name in (LATENCY, SIZE):
            table = self.costs.tables.get(name)
            if table is not None:
                best = cheapest(table, self.space)
                costs = [show_measure(name, table.cost(c)) for c in (fp32, default, best)]
                lines.append(
                    f"{name}: FP32 {costs[0]}, everything quantized {costs[1]}, at best {costs[2]}"
                )
        conditions = [f"{name} {value}" for name, value in self.costs.conditions.items()]
        if conditions:
            lines.append(f"costs: {'; '.join(conditions)}")
        found = self.costs.validation
        latency = self.costs.tables.get(LATENCY)
        if found is not None and latency is not None:
            gain = latency.cost(fp32) - latency.cost(cheapest(latency, self.space))
            if gain < found.noise:
                lines.append(
                    f"the noise of the measurement, {show_measure(LATENCY, found.noise)}, is "
                    f"larger than what can be gained, {show_measure(LATENCY, max(0.0, gain))}: "
                    "measure on a machine that does nothing else"
                )
        if found is not None:
            known = found.rank_correlation
            lines.append(
                "compared with whole models: "
                + (
                    "they differ by no more than noise"
                    if known is None
                    else f"rank correlation {known:.2f}"
                    + ("" if found.predicts else ", which is too little: do not rely on them")
                )
            )
        if self.worse:
            count = len(self.worse)
            lines.append(
                f"{count} op{' is' if count == 1 else 's are'} slower quantized here and left "
                "out where latency is the objective (--why)"
            )
        return lines
