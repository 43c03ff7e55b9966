"""What a backend must do that shares parts of candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import Backend
from optuna_quant.backends.base import SharesParts
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.lacks import lacks


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.space.config import QuantConfig


class _Kept:
    """Keeps all parts in memory, and counts what is computed."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.computed = 0

    def get(self, name: str, compute: Callable[[], bytes], *, nbytes: int) -> bytes:
        assert nbytes > 0
        if name not in self.parts:
            self.parts[name] = compute()
            self.computed += 1
        return self.parts[name]


class PartsTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.SharesParts`."""

    def test_shared_parts_give_the_same_models_and_are_not_computed_again(
        self, make_backend: Callable[[], Backend], every_option: Mapping[str, QuantConfig]
    ) -> None:
        kept = _Kept()
        alone, one, other = make_backend(), make_backend(), make_backend()
        for backend in (one, other):
            assert isinstance(backend, SharesParts), lacks(backend, SharesParts)
            backend.share_parts(kept)
        expected = {what: alone.fingerprint(config) for what, config in every_option.items()}
        assert {w: one.fingerprint(config) for w, config in every_option.items()} == expected
        assert kept.computed, "No option has parts that are shared."
        computed = kept.computed
        assert {w: other.fingerprint(config) for w, config in every_option.items()} == expected
        assert kept.computed == computed

    def test_damaged_parts_are_computed_again(
        self, make_backend: Callable[[], Backend], every_option: Mapping[str, QuantConfig]
    ) -> None:
        kept = _Kept()
        one, other = make_backend(), make_backend()
        for backend in (one, other):
            assert isinstance(backend, SharesParts), lacks(backend, SharesParts)
            backend.share_parts(kept)
        expected = {what: one.fingerprint(config) for what, config in every_option.items()}
        kept.parts = {name: data[:-7] for name, data in kept.parts.items()}
        with pytest.warns(UserWarning):
            found = {what: other.fingerprint(config) for what, config in every_option.items()}
        assert found == expected
