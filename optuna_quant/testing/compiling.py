"""What a backend must do whose models are compiled before they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import CompilesForUse
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.same import assert_close


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.space.config import QuantConfig


class CompilingTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.CompilesForUse`; else skipped.

    To compile a model may take minutes, so this is best run with a small one.
    """

    def test_what_is_compiled_computes_the_same(
        self, backend: Backend, configs: Mapping[str, QuantConfig], feed: Feed
    ) -> None:
        model = backend.quantize(configs["default"])
        if not isinstance(model, CompilesForUse):
            pytest.skip("The models are not compiled.")
        compiled = model.compiled()
        assert list(compiled.inputs) == list(model.inputs)
        assert list(compiled.outputs) == list(model.outputs)
        assert_close(compiled.run(feed), model.run(feed), "What is compiled gives something else.")
