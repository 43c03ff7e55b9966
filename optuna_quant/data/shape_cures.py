"""What to do about arrays whose axes are not those of a model's input."""

from __future__ import annotations

from collections.abc import Sequence


_CHANNELS = {(0, 3, 1, 2): "channels first", (0, 2, 3, 1): "channels last"}


def cure_of_shape(
    wanted: Sequence[int | str | None] | None, shape: tuple[int, ...], name: str = "array"
) -> str:
    """What would give an array the axes that a model's input has; empty if that is not seen.

    Args:
        wanted:
            The sizes of the input's axes, other than numbers where they are open; None if
            nothing is known of them.
        shape:
            The shape of the array.
        name:
            What the array is called in the cure.
    """
    if wanted is None or not any(isinstance(size, int) for size in wanted):
        return ""
    if len(shape) == len(wanted):
        for order, layout in _CHANNELS.items():
            if len(shape) == len(order) and _fits(wanted, [shape[axis] for axis in order]):
                return f" The model takes {layout}: {name}.transpose{order}."
    if len(shape) + 1 != len(wanted):
        return ""
    if _fits(wanted[1:], shape):
        return f" The axis of the samples is missing: {name}[None] is a batch of one sample."
    for axis in (len(shape), 1):
        if wanted[axis] == 1 and _fits(wanted, [*shape[:axis], 1, *shape[axis:]]):
            index = "[..., None]" if axis == len(shape) else "[:, None]"
            return f" The axis of the channels is missing: {name}{index}."
    return ""


def _fits(wanted: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    return len(wanted) == len(shape) and all(
        not isinstance(size, int) or size == have for size, have in zip(wanted, shape, strict=True)
    )
