"""Data loaders, streams and datasets of other libraries, as samples or batches in one order.

Those libraries are not imported: their objects are recognized by their attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import os
from typing import Any
from typing import Protocol
from typing import TypeGuard

import numpy as np
from optuna.logging import get_logger

from optuna_quant.data.forms import Batches
from optuna_quant.data.forms import SampleLike
from optuna_quant.data.forms import Samples


_logger = get_logger(__name__)

# A stream is said to be long after so many batches, and not to end after so many.
_MANY_BATCHES = 1_000
_ENDLESS_BATCHES = 100_000
_PART = "itertools.islice(generator, n)"

# Of the memory of the machine, so much may be taken by a stream that is kept.
_MEMORY_SHARE = 0.5

_SAMPLERS_OF_ALL = (
    "SequentialSampler",
    "RandomSampler",
    "DistributedSampler",
    "_InfiniteConstantSampler",
)
# Of so many samples it is seen whether their lengths differ.
_FEW_SAMPLES = 8
_PLAIN_COLLATE = ("default_collate", "default_convert")


class Loader(Protocol):
    """A data loader like PyTorch's: it has a dataset, and makes batches of its samples."""

    @property
    def dataset(self) -> Samples:
        """Gives samples by number; of a stream it does not."""
        ...

    @property
    def collate_fn(self) -> Callable[[list[SampleLike]], SampleLike] | None:
        """Makes a batch of samples; None if they are given as they are."""
        ...

    def __iter__(self) -> Iterator[SampleLike]:
        """The batches."""
        ...


def is_loader(source: object) -> TypeGuard[Loader]:
    """Whether something is a data loader like PyTorch's: it has a dataset and collates samples."""
    return hasattr(source, "dataset") and hasattr(source, "collate_fn")


def is_indexable(source: object) -> TypeGuard[Samples]:
    """Whether something gives its samples by number."""
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


class LoaderSamples:
    """The samples of a data loader, by number, in the order of its dataset.

    Shuffling is left out, so that a number is the same sample in every process. A subset that a
    sampler names is kept. A user-defined collate function is called for each sample.

    Args:
        loader:
            The loader; its dataset gives samples by number.
    """

    def __init__(self, loader: Loader) -> None:
        self._dataset = loader.dataset
        self._numbers = _subset(loader)
        collate = loader.collate_fn
        is_plain = collate is None or getattr(collate, "__name__", "") in _PLAIN_COLLATE
        self._collate = None if is_plain else collate

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset) if self._numbers is None else len(self._numbers)

    def __getitem__(self, index: int) -> SampleLike:
        """A sample."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        sample = self._dataset[index if self._numbers is None else self._numbers[index]]
        return sample if self._collate is None else _first(self._collate([sample]))

    @property
    def are_padded(self) -> bool:
        """Whether the collate function pads samples to the length of others in their batch."""
        if self._collate is None or len(self) < 2:
            return False
        few = [self._dataset[n] for n in (self._numbers or range(len(self)))[:_FEW_SAMPLES]]
        return len({_shapes(self._collate([sample])) for sample in few}) > 1


def _subset(loader: Loader) -> list[int] | None:
    """The numbers of the samples that a loader is about; None for all."""
    sampler = getattr(loader, "sampler", None)
    batches = getattr(loader, "batch_sampler", None)
    sampler = getattr(batches, "sampler", sampler)
    if sampler is None or type(sampler).__name__ in _SAMPLERS_OF_ALL:
        return None
    indices = getattr(sampler, "indices", None)
    if indices is not None:
        return sorted(int(index) for index in indices)
    _logger.warning(
        f"The sampler {type(sampler).__name__} of the {type(loader).__name__} is ignored: all "
        f"{len(loader.dataset)} samples of its dataset are used, once each."
    )
    return None


def _shapes(batch: object) -> tuple[object, ...]:
    """The shapes of all arrays of a batch."""
    if isinstance(batch, Mapping):
        return tuple(_shapes(part) for part in batch.values())
    if isinstance(batch, tuple | list):
        return tuple(_shapes(part) for part in batch)
    return tuple(getattr(batch, "shape", ()))


def _first(batch: SampleLike) -> SampleLike:
    """The first sample of a batch, in the same structure."""
    if isinstance(batch, Mapping):
        return {name: value[0] for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_first(part) if isinstance(part, Mapping) else part[0] for part in batch)
    return batch[0]


def kept_in_memory(source: Batches, where: str, *, ends: bool = False) -> list[object]:
    """All that a stream gives, read once.

    Args:
        source:
            An iterable, or a function that returns one.
        where:
            What it is, for error messages.
        ends:
            Whether it is known to end.

    Raises:
        TypeError:
            If a function does not return an iterable.
        ValueError:
            If it fails, seems not to end, or takes more than half of the machine's memory.
    """
    if callable(source) and not isinstance(source, Iterable):
        source = source()
        if not isinstance(source, Iterable):
            raise TypeError(
                f"The function that gives {where} must return an iterable of batches, but it "
                f"returned a value of type {type(source).__name__}."
            )
    limit = _memory() * _MEMORY_SHARE
    found: list[object] = []
    taken = 0
    iterator = iter(source)
    while True:
        try:
            item = as_arrays(next(iterator))
        except StopIteration:
            return found
        except Exception as error:
            raise ValueError(
                f"Batch {len(found)} of {where} cannot be read: {type(error).__name__}: {error}"
            ) from error
        found.append(item)
        if not ends:
            _tell_length(len(found), where)
        taken += _bytes(item)
        if taken > limit:
            raise ValueError(
                f"Data that can be read in one order only are kept in memory, but {where} takes "
                f"more than {limit / 1e9:.3g} GB, half of this machine's. Give a dataset with "
                "__len__ and __getitem__, or save the arrays in a folder, one .npy file for "
                "each: these are memory-mapped."
            )


def _tell_length(batches: int, where: str) -> None:
    """Warn of a stream that is long, and refuse one that seems not to end."""
    if batches == _MANY_BATCHES:
        _logger.warning(
            f"{batches:,} batches of {where} are read so far, and all are kept. A generator as "
            f"for training never ends: give a part of it, {_PART}."
        )
    if batches >= _ENDLESS_BATCHES:
        raise ValueError(
            f"A stream of batches must end, but that of {where} goes on after {batches:,} "
            f"batches. Give a part of it, {_PART}, for an epoch of n batches; if it does end, "
            "give list(...) of it."
        )


def as_arrays(item: object) -> object:
    """A batch or sample with copies of its arrays, so that no buffer of a stream is kept."""
    if isinstance(item, Mapping):
        return {name: as_arrays(value) for name, value in item.items()}
    if isinstance(item, tuple | list):
        return tuple(as_arrays(part) for part in item)
    if hasattr(item, "__array__"):
        return np.asarray(without_device(item)).copy()
    return item


def without_device(value: object) -> object:
    """A tensor of PyTorch as NumPy can read it, whatever its device; anything else as it is."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu()
    return value


def content_hash(*values: object) -> str:
    """A short hash of all that samples, batches or arrays hold."""
    digest = hashlib.sha256()
    _update(digest, values)
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, value: object) -> None:
    if isinstance(value, Mapping):
        for name in value:
            digest.update(f"{name}=".encode())
            _update(digest, value[name])
    elif isinstance(value, tuple | list):
        digest.update(f"{len(value)}:".encode())
        for part in value:
            _update(digest, part)
    else:
        array = np.asarray(without_device(value))
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        if array.dtype == object:
            digest.update(repr(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).tobytes())


def _bytes(item: object) -> int:
    if isinstance(item, Mapping):
        return sum(_bytes(value) for value in item.values())
    if isinstance(item, tuple):
        return sum(_bytes(part) for part in item)
    return int(getattr(item, "nbytes", 0))


def _memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


class Rows:
    """Arrays, or lists with an item for each sample, as samples by number.

    Args:
        columns:
            The values of all samples, by name.
        where:
            What it is, for error messages.

    Raises:
        ValueError:
            If the numbers of samples differ.
    """

    def __init__(self, columns: Mapping[str, Any], where: str) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name}: {count}" for name, count in lengths.items())
            raise ValueError(
                f"The inputs and labels in {where} must have the same number of samples, but "
                f"have: {shown}."
            )
        self._columns = columns
        self._count = next(iter(lengths.values()), 0)

    @property
    def columns(self) -> Mapping[str, Any]:
        """The values of all samples, by name."""
        return self._columns

    def __len__(self) -> int:
        """The number of samples."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        return {name: column[index] for name, column in self._columns.items()}


class BatchRows:
    """Batches in memory as samples by number.

    Args:
        batches:
            Dicts, pairs or arrays, in which everything has the samples along its first axis.
        sizes:
            The number of samples of each.
    """

    def __init__(self, batches: Sequence[Any], sizes: Sequence[int]) -> None:
        self._batches = [tuple(each) if isinstance(each, list) else each for each in batches]
        self._starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        """The number of samples."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> SampleLike:
        """A sample."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return row_of(self._batches[number], index - int(self._starts[number]))


def row_of(batch: SampleLike, row: int) -> SampleLike:
    """One sample of a batch, in the same structure."""
    if isinstance(batch, Mapping):
        return {name: row_of(value, row) for name, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(row_of(part, row) for part in batch)
    return batch[row]


def in_batches(
    samples: Iterable[Any], size: int, make: Callable[[list[Any]], Any]
) -> Iterator[Any]:
    """The results of a function of samples, called with a batch at a time."""
    some: list[Any] = []
    for sample in samples:
        some.append(sample)
        if len(some) == size:
            yield make(some)
            some = []
    if some:
        yield make(some)
