"""Byte-pair encoding with a given vocabulary, as GPT-2 has it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
import re


# A digit is a word by itself. The last space before any other word belongs to that word.
_WORDS = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+|\s+(?=\d)|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Turns texts into tokens.

    Args:
        tokens:
            The vocabulary, bytes written as GPT-2 does.
        merges:
            Which two parts of a word become one, the first ones first: ``"part part"``.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str]) -> None:
        self._tokens = list(tokens)
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self._ranks: dict[tuple[str, ...], int] = {
            tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)
        }
        self._letters = _byte_letters()
        self._word = lru_cache(maxsize=1 << 16)(self._encoded_word)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        return [number for word in _words(text) for number in self._word(word)]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of tokens."""
        values = {letter: value for value, letter in enumerate(self._letters)}
        letters = "".join(self._tokens[number] for number in numbers)
        return bytes(values[letter] for letter in letters).decode(errors="replace")

    def _encoded_word(self, word: str) -> tuple[int, ...]:
        parts = [self._letters[value] for value in word.encode()]
        worst = len(self._ranks)
        while len(parts) > 1:
            ranks = [self._ranks.get(pair, worst) for pair in pairwise(parts)]
            best = min(ranks)
            if best == worst:
                break
            merged: list[str] = []
            place = 0
            while place < len(parts):
                if place < len(ranks) and ranks[place] == best:
                    merged.append(parts[place] + parts[place + 1])
                    place += 2
                else:
                    merged.append(parts[place])
                    place += 1
            parts = merged
        return tuple(self._numbers[part] for part in parts)


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in _WORDS.finditer(text))


def _byte_letters() -> list[str]:
    """The letter that stands for each byte: itself if it can be printed, else one from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(value if value in printed else next(others)) for value in range(256)]
