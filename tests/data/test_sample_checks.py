"""What data must be for a model's inputs."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_quant.data.inputs import InputSpec
from optuna_quant.data.sample_checks import check_fits
from optuna_quant.data.sample_checks import cure_of_texts


IDS = InputSpec("ids", np.dtype(np.int64), ("N", 4))
PIXELS = InputSpec("pixels", np.dtype(np.float32), ("N", 4))


@pytest.mark.parametrize("given", ["int64", "int32", "uint8", "bool"])
def test_integers_that_lose_nothing_fit(given: str) -> None:
    check_fits(IDS, np.dtype(given), (2, 4), "the data")


@pytest.mark.parametrize(
    ("spec", "given"), [(IDS, "float32"), (IDS, "uint64"), (PIXELS, "uint8"), (PIXELS, "bool")]
)
def test_what_would_be_prepared_in_another_way_does_not(spec: InputSpec, given: str) -> None:
    with pytest.raises(ValueError, match="exactly as for inference"):
        check_fits(spec, np.dtype(given), (2, 4), "the data")


@pytest.mark.parametrize("given", ["a", ["a", "b"], (["a"],), np.array(["a"]), np.dtype("U3")])
def test_texts_are_to_be_tokenized(given: object) -> None:
    assert "Tokenize texts first" in cure_of_texts(given)


@pytest.mark.parametrize("given", [1, [], [[1]], np.zeros(2), None])
def test_numbers_are_not(given: object) -> None:
    assert not cure_of_texts(given)


IMAGE = InputSpec("image", np.dtype(np.float32), ("N", 8, 6, 1))
PICTURE = InputSpec("image", np.dtype(np.float32), ("N", 3, 8, 6))


@pytest.mark.parametrize(
    ("spec", "shape", "cure"),
    [
        (IMAGE, (5, 1, 8, 6), r"takes channels last: array\.transpose\(0, 2, 3, 1\)\."),
        (PICTURE, (5, 8, 6, 3), r"takes channels first: array\.transpose\(0, 3, 1, 2\)\."),
        (IMAGE, (5, 8, 6), r"axis of the channels is missing: array\[\.\.\., None\]\."),
        (IMAGE, (8, 6, 1), r"axis of the samples is missing: array\[None\] "),
        (IMAGE, (5, 9, 6, 1), r"float32 of shape \(N, 8, 6, 1\)\. Prepare"),
    ],
)
def test_what_is_wrong_with_the_axes_is_told(
    spec: InputSpec, shape: tuple[int, ...], cure: str
) -> None:
    with pytest.raises(ValueError, match=cure):
        check_fits(spec, np.dtype(np.float32), shape, "the data")
