"""Samples, batches and inputs, in the user's own forms."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import TypeAlias


if TYPE_CHECKING:
    from numpy.typing import ArrayLike


SampleLike: TypeAlias = Any
"""One sample, or a batch, in the user's own form: an array or a tensor, a dict or a pair of them,
an image, a text. Nothing is known of it before it is looked at.
"""


class Samples(Protocol):
    """A data set that gives samples by number, such as one of PyTorch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> SampleLike: ...


Batches: TypeAlias = "Iterable[SampleLike] | Callable[[], Iterable[SampleLike]]"
"""Batches or samples, or a function that gives an iterator over them."""

InputValues: TypeAlias = "Mapping[str, ArrayLike]"
"""Inputs that are the same for all samples, by name: numbers, arrays or strings."""

Transform: TypeAlias = "Callable[[SampleLike], SampleLike]"
"""Makes the input of a model of what data hold of one sample: an array, an image, a text."""
