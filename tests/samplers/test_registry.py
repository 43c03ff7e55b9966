"""Strategies by name."""

from __future__ import annotations

from collections.abc import Iterator
import gc
import importlib.metadata
import weakref

import pytest

from optuna_quant.backends.base import SensitivityKind
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import Plan
from optuna_quant.samplers import Stage
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers import _registry
from optuna_quant.samplers import register_strategy
from optuna_quant.samplers import strategies
from optuna_quant.space.space import TuningSpace
from optuna_quant.tuning.strategies import check_begins_from
from optuna_quant.tuning.strategies import kind_used
from optuna_quant.tuning.strategies import needs_sensitivity
from optuna_quant.tuning.strategies import tunes_recipes


@pytest.fixture
def half() -> Iterator[type]:
    @register_strategy("half_of_test_registry")
    class Half(StagedQuantSampler):
        def plan(self, space: TuningSpace) -> Plan:
            ops = [tunable.name for tunable in space.tunables]
            yield Stage("half", [space.default().with_fallback(*ops[::2])])

    yield Half
    del Half._strategy_name


def test_ours_are_known() -> None:
    ours = {"auto", "basic", "conservative", "exhaustive", "hawq_v2", "mse", "mse_v2", "random"}
    ours |= {"bayesian", "pareto", "surrogate", "tpe"}
    found = {n for n, each in strategies().items() if each.__module__.startswith("optuna_quant.")}
    assert found == ours
    assert strategies()["exhaustive"] is ExhaustiveQuantSampler


def test_registered_class_is_found(half: type) -> None:
    assert strategies()["half_of_test_registry"] is half


def test_the_class_says_whether_it_needs_sensitivities(half: type) -> None:
    assert {name for name in strategies() if needs_sensitivity(name)} == {
        "mse",
        "mse_v2",
        "hawq_v2",
    }
    half.sensitivity_kind = SensitivityKind.OP_ERROR  # type: ignore[attr-defined]
    assert needs_sensitivity("half_of_test_registry")
    assert kind_used("half_of_test_registry", {}) == SensitivityKind.OP_ERROR
    assert kind_used("half_of_test_registry", {"sensitivity": len}) is None
    half.sensitivity_kind = SensitivityKind.BEST  # type: ignore[attr-defined]
    assert not needs_sensitivity("half_of_test_registry")


def test_the_class_says_what_tune_gives_it(half: type) -> None:
    """A strategy of one's own that says nothing gets nothing but its options."""
    assert not tunes_recipes("half_of_test_registry", {})
    with pytest.raises(ValueError, match="'half_of_test_registry' does not learn from an earlier"):
        check_begins_from("half_of_test_registry", {})
    half.tunes_recipes = half.begins_from_studies = True  # type: ignore[attr-defined]
    assert tunes_recipes("half_of_test_registry", {})
    check_begins_from("half_of_test_registry", {})


def test_a_class_of_a_function_stays() -> None:
    def register() -> weakref.ref[type]:
        @register_strategy("of_a_function")
        class OfAFunction(ExhaustiveQuantSampler):
            pass

        return weakref.ref(OfAFunction)

    found = register()
    gc.collect()
    assert strategies()["of_a_function"] is found()
    again = register()  # As a cell of a notebook that is run again.
    assert strategies()["of_a_function"] is again()
    del strategies()["of_a_function"]._strategy_name


def test_no_name() -> None:
    with pytest.raises(TypeError, match=r"write @register_strategy\('my_greedy'\) above"):

        @register_strategy  # type: ignore[arg-type]
        class MyGreedyQuantSampler(ExhaustiveQuantSampler):
            pass


def test_a_strategy_of_neural_compressor_is_told_what_to_write() -> None:
    with pytest.raises(TypeError, match="has no method plan. next_tune_cfg is neural-compr"):

        @register_strategy("of_another_tool")
        class Other(StagedQuantSampler):
            def next_tune_cfg(self) -> None:
                pass


def test_subclasses_do_not_inherit_the_name(half: type) -> None:
    class Derived(half):
        pass

    assert strategies()["half_of_test_registry"] is half
    del Derived


def test_name_that_is_taken() -> None:
    class Other(ExhaustiveQuantSampler):
        pass

    with pytest.raises(ValueError, match="There is a strategy 'basic' already"):
        register_strategy("basic")(Other)


@pytest.mark.parametrize("name", ["", "My Strategy", "1st", "a-b", 5])
def test_bad_name(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters, digits and underscores"):
        register_strategy(name)


def test_not_a_sampler() -> None:
    with pytest.raises(TypeError, match="A strategy must be a subclass of QuantSampler"):
        register_strategy("thing")(dict)


def test_entry_points_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint(
        name="everything",
        value="optuna_quant.samplers:ExhaustiveQuantSampler",
        group=_registry.ENTRY_POINTS,
    )
    monkeypatch.setattr(_registry, "entry_points", lambda group: [entry])
    assert strategies()["everything"] is ExhaustiveQuantSampler
