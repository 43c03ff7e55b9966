"""Bytes that say what they are, and whether they are damaged."""

from __future__ import annotations

import io

import numpy as np
import pytest

from optuna_quant._common.sealed_bytes import array_bytes
from optuna_quant._common.sealed_bytes import seal
from optuna_quant._common.sealed_bytes import unseal


MARK = b"scores 1\n"


def test_what_was_sealed_is_given_back() -> None:
    assert unseal(MARK, seal(MARK, b"content"), what="scores") == b"content"


def test_other_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="These are not scores of this version"):
        unseal(MARK, seal(b"scores 2\n", b"content"), what="scores")


@pytest.mark.parametrize("place", [len(MARK), -1])
def test_damaged_bytes_are_refused(place: int) -> None:
    data = bytearray(seal(MARK, b"content"))
    data[place] ^= 1
    with pytest.raises(ValueError, match="The scores are damaged"):
        unseal(MARK, bytes(data), what="scores")


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_read_as_they_were(compressed: bool) -> None:
    data = array_bytes({"zeros": np.zeros(1000), "one": 1}, compressed=compressed)
    assert (len(data) < 2000) == compressed
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        assert not file["zeros"].any()
        assert int(file["one"]) == 1
