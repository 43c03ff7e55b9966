"""A backend that has some members of an optional protocol is told of the others."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import importlib
import pkgutil
from typing import Any
import warnings

from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import pytest

from optuna_quant import tune
from optuna_quant._common.protocol_members import members_of
from optuna_quant.backends import base
from optuna_quant.backends.base import CountsPasses
from optuna_quant.backends.base import ScoresWeightsApart
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.base import SharesCalibration
from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.costs import costs
from optuna_quant.evaluation import backend_checks
from optuna_quant.evaluation.half_written import OF_BACKENDS
from optuna_quant.evaluation.half_written import OF_MODELS
from optuna_quant.evaluation.half_written import OF_SENSITIVITIES
from optuna_quant.evaluation.half_written import WITHOUT
from optuna_quant.evaluation.half_written import together
from optuna_quant.evaluation.half_written import warn_of_half_written
from optuna_quant.space.config import QuantConfig


KINDS = [OF_BACKENDS, OF_MODELS, OF_SENSITIVITIES]
PROTOCOLS = [(protocol, kind) for kind in KINDS for protocol in kind]
PARTS = [
    pytest.param(protocol, kind, names, id=f"{protocol.__name__}-{what}{i}")
    for protocol, kind in PROTOCOLS
    for i, name in enumerate(together(protocol))
    for what, names in (
        ("only", {name}),
        ("without", {*together(protocol)} - {name}),
    )
    if names
]
# These are protocols of their own.
ENOUGH_ALONE = {SharesCalibration: {"calibrate"}, ScoresWeightsApart: {"passes"}}


def with_members(names: Iterable[str]) -> Any:
    return type("Part", (), dict.fromkeys(names, lambda self: None))()


def told(value: Any, kind: tuple[type, ...], protocol: type) -> list[str]:
    """The warnings that name a protocol."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_half_written(value, kind)
    texts = [str(warning.message) for warning in caught]
    return [text for text in texts if f"does without {protocol.__name__}:" in text]


def runtime_protocols() -> set[type]:
    names = [f"{base.__name__}.{info.name}" for info in pkgutil.iter_modules(base.__path__)]
    modules = [importlib.import_module(name) for name in names]
    values = [value for module in (*modules, costs) for value in vars(module).values()]
    return {value for value in values if getattr(value, "_is_runtime_protocol", False)}


def test_every_optional_protocol_is_looked_at() -> None:
    assert {protocol for protocol, _ in PROTOCOLS} == runtime_protocols()
    assert len(PROTOCOLS) == len({protocol for protocol, _ in PROTOCOLS})


@pytest.mark.parametrize("protocol", [protocol for protocol, _ in PROTOCOLS])
def test_what_is_not_used_is_known_of_all_that_can_be_there_in_part(protocol: type) -> None:
    assert (len(together(protocol)) > 1) == (protocol in WITHOUT)


@pytest.mark.parametrize(("protocol", "kind", "names"), PARTS)
def test_a_part_is_told_once(protocol: type, kind: tuple[type, ...], names: set[str]) -> None:
    found = told(with_members(names), kind, protocol)
    own = names.intersection(members_of(protocol)) - ENOUGH_ALONE.get(protocol, set())
    missing = [name for name in together(protocol) if name not in names]
    if not own or not missing:
        assert not found
        return
    (text,) = found
    assert f" but not {', '.join(missing)}, so" in text
    assert text.startswith("Part has ") and text.endswith(f": {WITHOUT[protocol]}.")
    assert all(name in text.partition(" but not ")[0] for name in names)


@pytest.mark.parametrize(("protocol", "kind"), PROTOCOLS)
def test_a_whole_one_is_fine(protocol: type, kind: tuple[type, ...]) -> None:
    assert not told(with_members(together(protocol)), kind, protocol)


def test_what_is_taken_back_is_not_there() -> None:
    whole = type(with_members(members_of(TrainsCandidates)))
    none = type("TakesBack", (whole,), dict.fromkeys(members_of(TrainsCandidates)))()
    assert not told(none, OF_BACKENDS, TrainsCandidates)
    some = type("Part", (whole,), {"trained": None})()
    (text,) = told(some, OF_BACKENDS, TrainsCandidates)
    assert "Part has trains, quantize_trained but not trained, so" in text


def search(backend: Any) -> set[str]:
    """What a search with a backend warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tune(backend=backend, data=fake_data(100), max_trials=3)
    return {str(warning.message) for warning in caught}


def test_a_search_with_a_whole_backend_warns_of_nothing() -> None:
    assert not search(FakeBackend(3))


@pytest.mark.parametrize("protocol", [p for p in OF_BACKENDS if p in WITHOUT])
def test_a_search_warns_of_half_a_backend(protocol: type) -> None:
    name = members_of(protocol)[0]
    half = type("Half", (FakeBackend,), {name: lambda self, *args, **kwargs: {}})
    (text,) = search(half(3))
    assert text.startswith("Half has ") and f"without {protocol.__name__}: " in text


def test_a_search_warns_of_half_a_sensitivity() -> None:
    class Half:
        def __call__(self, config: QuantConfig, ops: Any) -> Mapping[str, float]:
            return {op: float(config.ops[op].is_quantized) for op in ops}

        def score_with_weights(self, configs: Any, ops: Any) -> Any:
            raise AssertionError("It is not asked.")

    class Scored(FakeBackend):
        def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
            return {SensitivityKind.BEST: SensitivityFactory(lambda outputs: Half())}

    (text,) = search(Scored(3))
    assert text.startswith("Half has score_with_weights but not passes, so")
    assert not told(Half(), (CountsPasses,), CountsPasses)


def test_a_search_warns_of_half_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No protocol of models has two members yet: another one stands in."""
    monkeypatch.setattr(backend_checks, "OF_MODELS", (TrainsCandidates,))
    monkeypatch.setattr(FakeModel, "trains", True, raising=False)
    (text,) = search(FakeBackend(3))
    assert text.startswith("FakeModel has trains but not trained, quantize_trained, so")
