"""One backend for a class of conformance tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from optuna_quant.backends.base import Backend


class OneBackend:
    """For backends that take long to make: what is asked of one changes nothing in it."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        """A function that makes a new backend each time, of the same model and data."""
        raise NotImplementedError

    @pytest.fixture
    def make_backend(self, make: Callable[[], Backend]) -> Callable[[], Backend]:
        return make

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, make: Callable[[], Backend]) -> Backend:
        return make()
