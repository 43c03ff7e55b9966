"""Objects that give batches by number, as those of Keras do.

They have a length and items, as a dataset has, but an item is a batch. Keras is not imported: its
classes are recognized by their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import TypeGuard

from optuna_quant.data.loaders import is_indexable


if TYPE_CHECKING:
    from optuna_quant.data.forms import SampleLike
    from optuna_quant.data.forms import Samples


_CLASSES = ("PyDataset", "Sequence")
_LIBRARIES = ("keras", "tf_keras", "tensorflow")


def is_batch_sequence(source: object) -> TypeGuard[Samples]:
    """Whether something is a ``keras.utils.PyDataset``, or a ``Sequence`` as it was called."""
    return is_indexable(source) and any(
        cls.__name__ in _CLASSES and cls.__module__.partition(".")[0] in _LIBRARIES
        for cls in type(source).__mro__
    )


def batches_of(source: Samples) -> Iterator[SampleLike]:
    """The batches, once each: to iterate over such an object may never end.

    Raises:
        ValueError:
            If nothing says how many there are.
    """
    try:
        count = None if getattr(source, "num_batches", 0) is None else len(source)
    except (NotImplementedError, TypeError):
        count = None
    if count is None:
        name = type(source).__name__
        raise ValueError(
            f"The {name} has no end: it does not say how many batches it has (num_batches, or "
            "__len__). Give a list of some of them, [dataset[i] for i in range(20)]."
        )
    return (source[number] for number in range(count))
