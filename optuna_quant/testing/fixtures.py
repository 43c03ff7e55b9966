"""What the tests of a backend have in common: the backend, its space, and what to run it on."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import pytest

from optuna_quant.data.random_inputs import random_feed


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_MOST_OPTIONS = 16


class BackendFixtures:
    """The fixtures; :meth:`make_backend` must be given, the others may be."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        """A function that makes a new backend each time, of the same model and data.

        The default tuning space of the model must have two ops or more.
        """
        raise NotImplementedError(f"{type(self).__name__} needs the fixture make_backend.")

    @pytest.fixture
    def backend(self, make_backend: Callable[[], Backend]) -> Backend:
        """A backend."""
        return make_backend()

    @pytest.fixture
    def space(self, backend: Backend) -> TuningSpace:
        """Its default tuning space."""
        return backend.tuning_space()

    @pytest.fixture
    def make_other_backend(self) -> Callable[[], Backend] | None:
        """The same as :meth:`make_backend` with another model of the same ops, or other data.

        Default: :obj:`None`, so that it is not tested that a backend tells them apart.
        """
        return None

    @pytest.fixture
    def other_backend(self, make_other_backend: Callable[[], Backend] | None) -> Backend:
        """A backend of another model or of other data."""
        if make_other_backend is None:
            pytest.skip("The fixture make_other_backend is not given.")
        return make_other_backend()

    @pytest.fixture
    def configs(self, space: TuningSpace) -> dict[str, QuantConfig]:
        """A few configurations, by what they are; different ones build different models."""
        default = space.default()
        first, last = space.tunables[0].ops, space.tunables[-1].ops
        return {
            "FP32": space.fp32(),
            "default": default,
            "one op in FP32": default.with_fallback(*first),
            "other op in FP32": default.with_fallback(*last),
        }

    @pytest.fixture
    def every_option(
        self, space: TuningSpace, configs: Mapping[str, QuantConfig]
    ) -> dict[str, QuantConfig]:
        """The same, and configurations that together have each op in each of its options.

        Of ops with many options it is not more than the first 16.
        """
        found, default = dict(configs), space.default()
        for i in range(1, min(_MOST_OPTIONS, max(len(t.options) for t in space.tunables))):
            config = default
            for tunable in space.tunables:
                config = tunable.set(config, tunable.options[i % len(tunable.options)])
            if config.quantized_ops:
                found[f"option {i + 1} of each op"] = config
        return found

    @pytest.fixture
    def feed(self, backend: Backend, space: TuningSpace) -> Mapping[str, Any]:
        """What to run models on: an array for each input. Default: random numbers."""
        return random_feed(backend.quantize(space.fp32()).inputs, batch=4, seed=0)
