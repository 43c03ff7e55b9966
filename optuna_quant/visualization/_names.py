"""Short names of ops for axes; hover texts have the full ones."""

from __future__ import annotations

from collections import Counter
import html
from typing import TYPE_CHECKING

from optuna_quant._common.printable import printable


if TYPE_CHECKING:
    from collections.abc import Sequence


_SEPARATORS = ("/", ".", ":")


def shortened(names: Sequence[str], most: int = 32) -> list[str]:
    """Names without scopes that say nothing new, cut in the middle where they are still long.

    Exporters repeat a scope in the next one (``layer/layer.1/conv/conv.0``): of these the last
    stays. What all names begin with is left out if one of them is too long.

    Args:
        names:
            The names, each once.
        most:
            The most characters of one.

    Returns:
        A text for each name, no two of them the same.
    """
    plain = [_without_repeats(printable(name)) for name in names]
    if any(len(text) > most for text in plain):
        shared = _shared_prefix(plain)
        plain = [text[shared:] for text in plain]
    cut = [_cut(text, most) for text in plain]
    counts = Counter(cut)
    if max(counts.values(), default=1) == 1:
        return cut
    # Names that differ in the middle only are numbered by their place among all.
    taken = {each for each, count in counts.items() if count == 1}
    found = []
    for place, (each, whole) in enumerate(zip(cut, plain, strict=True)):
        text, number = each, place
        while counts[each] > 1 and (text == each or text in taken):
            text = f"{_cut(whole, most - 1 - len(str(number)))}#{number}"
            number += len(names)
        taken.add(text)
        found.append(text)
    return found


def _without_repeats(name: str) -> str:
    """A name without scopes that the next one begins with."""
    scopes = name.split("/")
    pairs = zip(scopes, [*scopes[1:-1], "", ""], strict=False)
    kept = [s for s, following in pairs if not s or not f"{following}.".startswith(f"{s}.")]
    return "/".join(kept)


def _shared_prefix(names: Sequence[str]) -> int:
    """The length of the whole folders that all names begin with."""
    if len(names) < 2:
        return 0
    first, last = min(names), max(names)  # What these share, all do.
    same = next((i for i, sign in enumerate(first) if last[i] != sign), len(first))
    for separator in _SEPARATORS:
        end = first.rfind(separator, 0, same) + 1
        if end and all(len(name) > end for name in names):
            return end
    return 0


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - 1) * 2 // 3  # The end of a path says more than its start.
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def for_plotly(text: str) -> str:
    """A text of which Plotly takes nothing for a tag.

    Args:
        text:
            The text.
    """
    return html.escape(text, quote=False)


def for_matplotlib(text: str) -> str:
    """A text of which Matplotlib takes nothing for a formula.

    Args:
        text:
            The text.
    """
    return text.replace("$", r"\$")
