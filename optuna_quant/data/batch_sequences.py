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
    """The batches, once each: to iterate over such an object may never end."""
    return (source[number] for number in range(len(source)))
