"""Calibration data: what users may pass, as batches that fit the model and can be read again."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.calibration.feeds import is_array
from optuna_quant.backends.calibration.feeds import to_feed
from optuna_quant.backends.calibration.pieces import Piece
from optuna_quant.backends.calibration.pieces import content_hashes
from optuna_quant.backends.calibration.sources import CalibrationSource
from optuna_quant.backends.calibration.whole_set import batches_of_set
from optuna_quant.data.array_files import npz_names
from optuna_quant.data.array_files import read_npz
from optuna_quant.data.batch_sequences import is_batch_sequence
from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import BoundInputs
from optuna_quant.data.constant_inputs import cure_of_missing
from optuna_quant.data.inputs import InputSpec
from optuna_quant.data.loaders import kept_in_memory
from optuna_quant.data.sample_checks import warn_of_others


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.data.forms import Transform


_WHERE = "the calibration data"
DEFAULT_BATCH_SIZE = 32

_ACCEPTED = (
    "a dict of arrays holding the whole set, an array (for a model with one input), a list of "
    "batches, a data loader, a dataset, a path to an .npz file or to a folder of .npy files or "
    "images, or a function that takes no argument and returns an iterator over batches"
)


class CalibrationData:
    """Calibration data, checked against the model's inputs and readable any number of times.

    A sample is one entry of the first axis of the model's first input (a batch whose first input
    is a scalar counts as one sample). Batches are checked as they are read. Arrays are never cast
    silently: float64 (or float32) arrays for an input of another float type are cast with one
    warning, any other mismatch is an error.

    Args:
        data:
            One of

            - a dict from input names to arrays that hold the whole set, samples along the first
              axis; it is cut into batches;
            - an array of the whole set, if the model has one input;
            - a list, tuple or other re-iterable (such as a data loader) of batches. A batch is a
              dict, an array (if the model has one input), or a list or tuple of arrays in input
              order. Batches may differ in shape;
            - a function that takes no argument and returns a fresh iterator over such batches,
              for data that do not fit in memory;
            - a path to an ``.npz`` file with an array of the whole set for each input. Or to a
              folder with an ``.npy`` file for each, or with images, see
              :class:`~optuna_quant.data.image_folder.ImageFolder`;
            - a data loader or a dataset, which give samples by number: they are read in the order
              of the dataset; a ``keras.utils.PyDataset``, which gives batches by number;
            - an iterator, which is read once and kept in memory; it must end.

            Labels are left out: arrays with such a name, or behind the inputs in a tuple. What
            else has a name that is no input is ignored, with one warning. Arrays that have one
            axis more than the model's inputs hold samples that are run one by one.
        inputs:
            The model's inputs, as :func:`input_specs` gives them.
        batch_size:
            Samples in a batch where the whole set is given, unless the model has a fixed batch
            size. The last batch may be smaller; with a fixed batch size the remaining samples are
            left out, with a warning.
        constants:
            Inputs that are the same for all samples; the data need not hold them.
        transform:
            Function from one raw sample, an array or an image, to the input as the model takes
            it, without an axis of samples. It must return the same each time.

    Raises:
        TypeError:
            If ``data`` is none of these.
        ValueError:
            If the data do not fit the inputs. Where they are only read later, this is raised then.

    Example:
        >>> spec = InputSpec("x", np.dtype(np.float32), ("batch", 3))
        >>> data = CalibrationData(np.zeros((40, 3), np.float32), [spec])
        >>> [batch["x"].shape for batch in data]
        [(32, 3), (8, 3)]
    """

    def __init__(
        self,
        data: object,
        inputs: Sequence[InputSpec],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        constants: BoundInputs = NO_INPUTS,
        transform: Transform | None = None,
    ) -> None:
        if not inputs:
            raise ValueError("The model has no inputs, so there is nothing to calibrate with.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but it is {batch_size}.")
        self._all_inputs = tuple(inputs)
        self._inputs = tuple(constants.varying(inputs))
        self._constants = constants
        self._cast_warned = False
        self._ignored: set[str] = set()
        self._too_large: set[int] = set()
        self._was_read = False
        source = CalibrationSource(
            inputs=self._inputs,
            constants=frozenset(constants.values),
            batch_size=batch_size,
            transform=transform,
            load=self._load_npz,
            on_others=self._warn_of_others,
        )
        if isinstance(data, Iterator) and not is_batch_sequence(data):
            data = kept_in_memory(data, "the calibration data")
        self._batches = self._as_batches(source.simplified(data), batch_size, source)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The model's inputs."""
        return self._all_inputs

    def warn_of_shortage(self, size: int, samples: int) -> None:
        """Warn once that there are fewer samples than a sampling size asks for.

        Args:
            size:
                The sampling size.
            samples:
                How many there are.
        """
        if size in self._too_large:
            return
        self._too_large.add(size)
        warn_user(
            f"The calibration sampling size is {size}, but the data hold only {samples} samples; "
            "all of them are used."
        )

    @property
    def constants(self) -> BoundInputs:
        """The inputs that are the same for all samples."""
        return self._constants

    def __iter__(self) -> Iterator[Feed]:
        """Yield the batches, checked, with the constant inputs.

        Raises:
            ValueError:
                If a batch does not fit the model, or there is none.
        """
        return map(self._complete, self._of_data())

    def _complete(self, feed: Feed) -> Feed:
        """A batch of the data, with the constant inputs."""
        if not self._constants.values:
            return feed
        return {**feed, **self._constants.feed(self._samples(feed))}

    def _of_data(self) -> Iterator[Feed]:
        number = -1
        for number, batch in enumerate(self._batches()):
            self._was_read = True
            yield self._feed(batch, f"calibration batch {number}")
        if number < 0 and self._was_read:
            raise ValueError(
                "The calibration data gave batches the first time and now give none: it must "
                "be possible to read them again. A function must return a fresh iterator at "
                "each call."
            )
        if number < 0:
            raise ValueError("The calibration data are empty: they hold no batch.")

    def pieces(self, sizes: Iterable[int]) -> Iterator[Piece]:
        """Yield the first ``max(sizes)`` samples, cut so that each size ends a piece.

        A batch is cut only if the first axis of every input is dynamic and they agree on its name
        and length. Otherwise a size inside the batch is reached at its end: it is rounded up. If
        the data end early, the sizes not reached are in no piece.

        Args:
            sizes:
                Sampling sizes, at least 1 each.

        Raises:
            ValueError:
                If there is no size or one below 1, or the data are empty or do not fit the model.
        """
        ahead = sorted(set(sizes))
        if not ahead or ahead[0] < 1:
            raise ValueError(f"Calibration sampling sizes must be at least 1, but are {ahead}.")
        seen = 0
        for whole in self:
            feed = {spec.name: whole[spec.name] for spec in self._inputs}
            samples = self._samples(feed)
            stops = [samples]
            if self.is_divisible(feed):
                stops = sorted({min(size - seen, samples) for size in ahead} | {samples})
            start = 0
            for stop in stops:
                part = feed
                if stop - start < samples:
                    part = {name: array[start:stop] for name, array in feed.items()}
                reached = tuple(size for size in ahead if size <= seen + stop)
                ahead = ahead[len(reached) :]
                yield Piece(self._complete(part), stop - start, reached, opens_batch=start == 0)
                if not ahead:
                    return
                start = stop
            seen += samples

    def one_by_one(self, piece: Piece) -> Iterator[Feed]:
        """Yield the samples of a piece as batches of one; none where they cannot be taken apart.

        Args:
            piece:
                What :meth:`pieces` has given.
        """
        feed = {spec.name: piece.feed[spec.name] for spec in self._inputs}
        if self.is_divisible(feed):
            for i in range(piece.samples):
                yield self._complete({name: array[i : i + 1] for name, array in feed.items()})

    def fingerprints(self, sizes: Iterable[int]) -> dict[int, str]:
        """Return a SHA-256 content hash of the first ``size`` samples, for each size.

        One pass over the data, in constant memory. It covers names, dtypes, shapes, values and the
        division into batches. A size that the data do not reach gets the hash of them all.
        """
        return content_hashes(
            self.pieces,
            tuple(sizes),
            [spec.name for spec in self._inputs],
            self._constants.values,
            self.is_divisible,
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 content hash of all the data, see :meth:`fingerprints`."""
        everything = 1 << 62
        return self.fingerprints([everything])[everything]

    def _as_batches(
        self, data: object, batch_size: int, source: CalibrationSource
    ) -> Callable[[], Iterable[object]]:
        if isinstance(data, Mapping):
            return self._batches_of_set(data, batch_size)
        if is_array(data):
            if len(self._inputs) != 1:
                names = [spec.name for spec in self._inputs]
                raise ValueError(
                    f"The calibration data are one array, but the model has {len(names)} inputs: "
                    f"pass a dict with the keys {names}."
                )
            data = {self._inputs[0].name: data}
            return self._batches_of_set(data, batch_size)
        if isinstance(data, Iterable):
            return lambda: data
        if callable(data):
            return lambda: map(source.batch, _fresh_iterator(data))
        raise TypeError(
            f"The calibration data are of type {type(data).__name__}; pass {_ACCEPTED}."
        )

    def _batches_of_set(
        self, data: Mapping[Any, Any], batch_size: int
    ) -> Callable[[], Iterable[object]]:
        return batches_of_set(
            data, self._inputs, batch_size, check=self._feed, on_others=self._warn_of_others
        )

    def _feed(self, batch: object, where: str) -> Feed:
        return to_feed(
            batch, self._inputs, where, on_cast=self._warn_of_cast, on_others=self._warn_of_others
        )

    def _warn_of_cast(self, spec: InputSpec, dtype: np.dtype[Any]) -> None:
        if not self._cast_warned:
            self._cast_warned = True
            warn_user(
                f"Input {spec.name!r}: the calibration data have dtype {dtype} and are cast to "
                f"the model's {spec.dtype.name}."
            )

    def _load_npz(self, path: Path) -> Mapping[str, NDArray[Any]]:
        what, inputs = "The calibration data", self._inputs
        if path.suffix != ".npz":
            raise ValueError(f"Calibration data file {str(path)!r}: only .npz files are read.")
        held = npz_names(path, what)
        names = [spec.name for spec in inputs if spec.name in held]
        if len(names) < len(inputs):
            missing = [spec.name for spec in inputs if spec.name not in names]
            raise ValueError(
                f"{path} has no array for input {missing[0]!r}; it holds {sorted(held)}. "
                "Name the arrays as the model's inputs."
                f"{cure_of_missing(missing[0], [spec.name for spec in inputs])}"
            )
        self._warn_of_others(held)
        return read_npz(path, what, names)

    def _warn_of_others(self, names: Iterable[str]) -> None:
        """Warn of names that are neither inputs, given once nor labels."""
        known = self._constants.values
        warn_of_others(
            (name for name in names if name not in known), self._inputs, _WHERE, self._ignored
        )

    def _samples(self, feed: Feed) -> int:
        first = feed[self._inputs[0].name]
        return first.shape[0] if first.ndim else 1

    def is_divisible(self, feed: Feed) -> bool:
        """Whether batches can be cut and put together along their first axis."""
        axes = {spec.shape[0] if spec.shape else 0 for spec in self._inputs}
        lengths = {array.shape[0] for array in feed.values() if array.ndim}
        if not self._constants.allow_cutting:
            return False
        return len(axes) == 1 and not isinstance(axes.pop(), int) and len(lengths) == 1


def _fresh_iterator(factory: Callable[[], Any]) -> Iterable[object]:
    batches = factory()
    if isinstance(batches, Mapping) or is_array(batches) or not isinstance(batches, Iterable):
        raise TypeError(
            f"The calibration data function returned a value of type {type(batches).__name__}; it "
            "must return an iterator over batches."
        )
    return batches
