"""A model with its constant inputs: the inputs that data must provide, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.base import HasOptionalInputs
from optuna_quant.backends.base import RunsConcurrently
from optuna_quant.backends.default import as_runnable
from optuna_quant.data.outputs import choose_outputs
from optuna_quant.data.sample_runs import SampleRunner


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.backends.base import RunnableModel
    from optuna_quant.backends.default import RunnableLike
    from optuna_quant.data.constant_inputs import BoundInputs
    from optuna_quant.data.constant_inputs import ConstantInputs
    from optuna_quant.data.inputs import InputSpec


def runnable_model(model: RunnableLike, threads: int) -> RunnableModel:
    """What runs the batches of a model, so many at a time.

    Args:
        model:
            The model, as a backend has built it, or a session.
        threads:
            How many batches are run at the same time.
    """
    runnable = as_runnable(model)
    if threads > 1 and isinstance(runnable, RunsConcurrently):
        return runnable.for_concurrent_runs(threads)
    return runnable


def varying_specs(constants: BoundInputs, inputs: Sequence[InputSpec]) -> list[InputSpec]:
    """The inputs that data must hold, whatever the number of samples.

    Args:
        constants:
            The inputs that are the same for all samples.
        inputs:
            All inputs.
    """
    return [
        replace(spec, shape=spec.shape and (None, *spec.shape[1:]))
        for spec in constants.varying(inputs)
    ]


@dataclass(frozen=True, eq=False)
class BoundModel:
    """A model and the inputs that are the same for all samples.

    Args:
        runnable:
            What runs batches.
        constants:
            The constant inputs, as the model takes them.
    """

    runnable: RunnableModel
    constants: BoundInputs

    @classmethod
    def of(cls, model: RunnableLike, inputs: ConstantInputs, *, threads: int) -> BoundModel:
        """Bind the constant inputs to a model.

        Args:
            model:
                The model, as a backend has built it, or a session.
            inputs:
                The constant inputs.
            threads:
                How many batches are run at the same time.
        """
        runnable = runnable_model(model, threads)
        optional = runnable.optional_inputs if isinstance(runnable, HasOptionalInputs) else ()
        return cls(runnable, inputs.bind(runnable.inputs, optional))

    @cached_property
    def specs(self) -> list[InputSpec]:
        """The inputs that the data must hold, whatever the number of samples."""
        return varying_specs(self.constants, self.runnable.inputs)

    @property
    def fixed_batch_size(self) -> int | None:
        """The number of samples of every run, if the model has one."""
        shapes = [spec.shape for spec in self.constants.varying(self.runnable.inputs)]
        fixed = [shape[0] for shape in shapes if shape]
        return next((size for size in fixed if isinstance(size, int) and size > 0), None)

    def outputs(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """The outputs to compute: those of these names, or the first."""
        return choose_outputs(names, tuple(self.runnable.outputs))

    def runner(self, names: tuple[str, ...] | None, *, one_by_one: bool) -> SampleRunner:
        """What runs the model on samples.

        Args:
            names:
                The names of the outputs to compute; :obj:`None` for the first.
            one_by_one:
                Whether each sample is run by itself.
        """
        return SampleRunner(
            run=self.runnable.run,
            outputs=self.outputs(names),
            inputs=self.specs,
            constants=self.constants,
            fixed=self.fixed_batch_size,
            one_by_one=one_by_one,
        )
