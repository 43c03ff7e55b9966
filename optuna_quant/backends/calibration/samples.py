"""The samples that the backend runs the model on."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant._common.counts import check_count
from optuna_quant.backends.calibration.data import DEFAULT_BATCH_SIZE
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.calibration.timed_batch import timed_batch
from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import ConstantInputs


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.calibration.pieces import Piece
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.inputs import InputSpec


class SampleReader:
    """Reads samples of any form as inputs of the model.

    Args:
        specs:
            Gives the inputs of the model, when they are first needed.
        optional:
            Gives those that have a value in the model.
        inputs:
            Inputs that are the same for all samples, by name.
        transform:
            Function from one raw sample of the data to the input.

    Attributes:
        constants:
            The inputs that are the same for all samples, as the model takes them.
    """

    def __init__(
        self,
        specs: Callable[[], Sequence[InputSpec]],
        *,
        optional: Callable[[], Sequence[InputSpec]] = tuple,
        inputs: InputValues | None = None,
        transform: Transform | None = None,
    ) -> None:
        self._specs = specs
        self._inputs = ConstantInputs(inputs)
        self._transform = transform
        self.constants = NO_INPUTS
        if self._inputs:
            self.constants = self._inputs.bind(specs(), optional())

    @property
    def inputs(self) -> InputValues:
        """The inputs that are the same for all samples, as the user gave them."""
        return self._inputs.values

    def read(self, data: object, *, batch_size: int = DEFAULT_BATCH_SIZE) -> CalibrationData:
        """The samples of data in any form of ``calibration_data``."""
        return CalibrationData(
            data,
            self._specs(),
            batch_size=batch_size,
            constants=self.constants,
            transform=self._transform,
        )


class Samples:
    """The calibration data, how many of them are used, and samples given in their place.

    Args:
        reader:
            Reads them.
        calibration_data:
            The calibration data; None if there are none.
        batch_size:
            How many of them go through the model at once.
        sizes:
            The calibration sampling sizes, default first; none to use all.
        latency_batch_size:
            How many samples are in a run whose time is measured.

    Attributes:
        reader:
            As given.
        calibration:
            The calibration data; None if there are none.
        sizes:
            As given.
        latency_batch_size:
            As given.

    Raises:
        ValueError:
            If the calibration data do not fit the model, or samples of them cannot be put together
            to a batch whose time is measured.
    """

    def __init__(
        self,
        reader: SampleReader,
        calibration_data: object,
        *,
        batch_size: int,
        sizes: tuple[int, ...],
        latency_batch_size: int = 1,
    ) -> None:
        check_count("latency_batch_size", latency_batch_size)
        self.reader = reader
        self.sizes = sizes
        self.latency_batch_size = latency_batch_size
        self.calibration: CalibrationData | None = None
        if calibration_data is not None:
            self.calibration = reader.read(calibration_data, batch_size=batch_size)
            # Reading the first batch tells at once whether there are any and whether they fit.
            next(iter(self.calibration))
            if latency_batch_size > 1:
                timed_batch(self.calibration, latency_batch_size)

    @property
    def passes(self) -> list[int | None]:
        """The sampling sizes that statistics are collected for; None stands for all samples."""
        return list(self.sizes) or [None]

    def to_run_on(self, data: object, purpose: str = "A sensitivity") -> CalibrationData:
        """The samples to run the model on.

        Args:
            data:
                The samples; the calibration data if it is None.
            purpose:
                What needs them, as the start of a sentence.

        Raises:
            ValueError:
                If there are none.
        """
        if data is not None:
            return self.reader.read(data)
        if self.calibration is None:
            raise ValueError(
                f"{purpose} needs samples to run the model on, but the backend has no "
                "calibration_data: pass data=, in any form that calibration_data accepts."
            )
        return self.calibration

    def to_time(self, data: object, purpose: str) -> Piece:
        """The batch that models are run on where their time is measured.

        Args:
            data:
                The samples that it is taken from; the calibration data if it is None.
            purpose:
                What needs it, as the start of a sentence.

        Raises:
            ValueError:
                If there are no samples, or they cannot be put together to a batch.
        """
        return timed_batch(self.to_run_on(data, purpose), self.latency_batch_size)

    def latency_feed(self) -> tuple[int, Feed] | None:
        """How many samples the batch of :meth:`to_time` has, and the batch; None without data."""
        if self.calibration is None:
            return None
        batch = self.to_time(None, "Measuring times")
        return batch.samples, batch.feed

    def preview(self, samples: int) -> tuple[int, list[Feed]] | None:
        """The first batches of the calibration data; None if there are none.

        Args:
            samples:
                How many samples are enough.

        Returns:
            How many samples there are, or at least so many, and the batches with them.
        """
        if self.calibration is None:
            return None
        feeds, count = [], 0
        for piece in self.calibration.pieces([samples]):
            feeds.append(piece.feed)
            count += piece.samples
        return min([count, *self.sizes]), feeds

    @cached_property
    def fingerprint(self) -> str:
        """A content hash of the calibration data that are used; they are read once for it."""
        assert self.calibration is not None
        if not self.sizes:
            return self.calibration.fingerprint()
        used = max(self.sizes)
        return self.calibration.fingerprints([used])[used]


def checked_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    """The calibration sampling sizes; none of them where the user names none.

    Raises:
        ValueError:
            If they are not different positive integers.
    """
    if sizes is None:
        return ()
    checked = tuple(sizes)
    for size in checked:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"calibration_sizes must be positive integers, but got {size!r}.")
    if len(set(checked)) < len(checked) or not checked:
        raise ValueError(
            f"calibration_sizes must be one or more different numbers, but got {list(checked)}."
        )
    return checked
