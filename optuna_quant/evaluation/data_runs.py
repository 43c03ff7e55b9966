"""Running models on labelled data: what fits together, and how many samples at once."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.backends.base import depends_on_batch as _depends
from optuna_quant.evaluation.bound_model import BoundModel
from optuna_quant.evaluation.bound_model import varying_specs
from optuna_quant.evaluation.run_ahead import run_batches


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Generator
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_quant.backends.default import RunnableLike
    from optuna_quant.data.constant_inputs import ConstantInputs
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.data.labelled_data import LabelledData
    from optuna_quant.data.sample_runs import Rows
    from optuna_quant.evaluation.run_ahead import BatchOutputs
    from optuna_quant.evaluation.run_ahead import Indices


@dataclass(frozen=True, eq=False)
class DataRuns:
    """Runs models on the samples of some data.

    Args:
        data:
            The data.
        inputs:
            The inputs that are the same for all samples.
        output_names:
            The names of the outputs to compute; :obj:`None` for the first one.
        batch_size:
            How many samples are run at once.
        dynamic_batch_size:
            The same, of a model whose results depend on it.
        threads:
            How many batches are run at the same time.
        one_by_one:
            Whether each sample is run by itself.
    """

    data: LabelledData
    inputs: ConstantInputs
    output_names: tuple[str, ...] | None
    batch_size: int
    dynamic_batch_size: int
    threads: int
    one_by_one: bool

    def bound(self, model: RunnableLike) -> BoundModel:
        """A model with the constant inputs."""
        return BoundModel.of(model, self.inputs, threads=self.threads)

    def check_inputs(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the data fit the inputs of a model.

        Args:
            inputs:
                The inputs, those included that are the same for all samples.

        Raises:
            ValueError:
                If they do not; it says what does not.
        """
        self.data.check(varying_specs(self.inputs.bind(inputs, ()), inputs))

    def check(self, model: RunnableLike) -> None:
        """Check that the data fit a model, without running it.

        Raises:
            ValueError:
                If they do not; it says what does not.
        """
        bound = self.bound(model)
        self.data.check(bound.specs)
        bound.outputs(self.output_names)

    def batch_size_for(self, model: RunnableLike, *, depends_on_batch: bool | None = None) -> int:
        """How many samples of a model are run at once.

        Args:
            model:
                The model.
            depends_on_batch:
                Whether its results depend on that. Default: what the model says of itself.
        """
        fixed = self.bound(model).fixed_batch_size
        if fixed is not None:
            return fixed
        depends = _depends(model) if depends_on_batch is None else depends_on_batch
        return self.dynamic_batch_size if depends else self.batch_size

    def outputs(
        self,
        model: RunnableLike,
        indices: Indices,
        *,
        see: Callable[[dict[str, Rows], Indices], None] | None = None,
    ) -> Generator[BatchOutputs, None, None]:
        """The outputs, labels and indices of batches, in order; some are run ahead.

        Args:
            model:
                The model.
            indices:
                Which samples.
            see:
                Is shown the inputs and the numbers of the samples of each batch that is read.
        """
        size = self.batch_size_for(model)
        bound = self.bound(model)

        def read(chosen: Indices) -> tuple[dict[str, Rows], Rows]:
            feed, labels = self.data.batch(chosen, bound.specs)
            if see is not None:
                see(feed, chosen)
            return feed, labels

        yield from run_batches(
            bound.runner(self.output_names, one_by_one=self.one_by_one),
            read,
            (indices[start : start + size] for start in range(0, len(indices), size)),
            threads=self.threads,
        )

    def first_outputs(self, model: RunnableLike, count: int, *, size: int) -> list[NDArray[Any]]:
        """The outputs of a model for the first samples, an array for each sample and output.

        Args:
            model:
                The model.
            count:
                How many samples.
            size:
                How many of them are run at once, unless the model has a fixed batch size.
        """
        few = replace(self, batch_size=size, dynamic_batch_size=size)
        with closing(few.outputs(model, np.arange(count))) as batches:
            rows = [
                row
                for output, _, _ in batches
                for row in (zip(*output, strict=True) if isinstance(output, tuple) else output)
            ]
        parts = [row if isinstance(row, tuple | list) else (row,) for row in rows]
        return [np.asarray(part) for several in parts for part in several]

    def unused(self, model: RunnableLike) -> list[str]:
        """The names of labels that are there and not needed, as far as that can be told."""
        found = self.data.unused(self.bound(model).specs)
        return [name for name in found if name not in self.inputs.values]

    def batch_in_item(self, model: RunnableLike) -> int | None:
        """How many samples an item of the data seems to hold that is taken as one."""
        return self.data.batch_in_item(self.bound(model).specs)

    def less_precise(self, model: RunnableLike) -> list[tuple[InputSpec, np.dtype[Any]]]:
        """The inputs of floats whose data have fewer bits than the model, with their types."""
        specs = self.bound(model).specs
        given = self.data.dtypes(specs)
        return [
            (spec, given[spec.name])
            for spec in specs
            if spec.dtype.kind == "f"
            and spec.name in given
            and given[spec.name].itemsize < spec.dtype.itemsize
        ]

    def preview(self, model: RunnableLike, samples: int) -> list[dict[str, Rows]]:
        """The inputs of a few samples from everywhere in the data, as far as they can be read."""
        specs, count = self.bound(model).specs, self.data.samples
        chosen = np.unique(np.linspace(0, count - 1, min(samples, count)).astype(np.int64))
        try:
            return [self.data.batch(chosen, specs)[0]]
        except ValueError:  # Of several shapes, or what is wrong with it is said later.
            return []
