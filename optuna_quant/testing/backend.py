"""What every backend must do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import Calibrates
from optuna_quant.backends.base import HasSignature
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.testing.description import DescriptionTests
from optuna_quant.testing.same import are_same
from optuna_quant.testing.same import assert_same
from optuna_quant.testing.told import told


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.space.space import TuningSpace


class BackendTestCase(DescriptionTests):
    """Tests of :class:`~optuna_quant.backends.base.Backend`.

    What a backend does not offer on top is skipped.
    """

    def test_each_op_is_there_once(self, backend: Backend) -> None:
        ops = backend.capability().ops
        names = [op.name for op in ops]
        assert len(set(names)) == len(names), f"The names of ops must be unique: {names}."
        assert all(op.op_type for op in ops), "Each op must have a type."

    def test_each_op_can_be_quantized_and_stay_in_fp32(self, backend: Backend) -> None:
        for op in backend.capability().ops:
            quantized = [option for option in op.options if option.is_quantized]
            assert quantized, f"{op.name} has no quantized option, so it is nothing to tune."
            modes = [option.mode for option in op.options]
            assert "fp32" in modes, f"{op.name} has no FP32 option: {modes}."

    def test_default_space_is_of_the_capability(
        self, backend: Backend, space: TuningSpace
    ) -> None:
        known = {op.name: op.options for op in backend.capability().ops if op.default}
        found = {op: t.options for t in space.tunables for op in t.ops}
        assert len(space.tunables) >= 2, (
            f"These tests need a model with two ops or more in its default space, but it has "
            f"{sorted(found)}: make the backend of a larger one."
        )
        assert found.keys() == known.keys(), "The default space has other ops than the capability."
        for op, options in found.items():
            assert set(options) <= set(known[op]), f"{op} has options that it cannot have."

    def test_space_is_the_same_each_time(
        self, make_backend: Callable[[], Backend], space: TuningSpace
    ) -> None:
        assert make_backend().tuning_space().description == space.description

    def test_space_with_all_ops_has_those_of_the_default(
        self, backend: Backend, space: TuningSpace
    ) -> None:
        every = backend.tuning_space(op_types="all")
        assert {t.name for t in space.tunables} <= {t.name for t in every.tunables}

    def test_space_is_narrowed_by_op_type(self, backend: Backend, space: TuningSpace) -> None:
        op_type = space.tunables[0].op_type
        found = backend.tuning_space(op_types=[op_type])
        assert {t.op_type for t in found.tunables} == {op_type}
        with pytest.raises(ValueError, match="NoSuchOpType"):
            backend.tuning_space(op_types=["NoSuchOpType"])

    def test_space_is_narrowed_by_op_name(self, backend: Backend, space: TuningSpace) -> None:
        first = space.tunables[0].name
        found = backend.tuning_space(op_name_dict={first: {"mode": ["fp32"]}})
        (narrowed,) = [t for t in found.tunables if t.name == first]
        assert [option.mode for option in narrowed.options] == ["fp32"]

    def test_parameters_begin_with_the_prefix(self, backend: Backend) -> None:
        space = backend.tuning_space(prefix="mine")
        assert all(p.name.startswith("mine.") for p in space.parameters)

    def test_model_has_the_fingerprint_of_its_configuration(
        self, backend: Backend, every_option: Mapping[str, QuantConfig]
    ) -> None:
        for what, config in every_option.items():
            found = backend.quantize(config).fingerprint
            assert isinstance(found, str), what
            assert found == backend.fingerprint(config), (
                f"{what}: the model's fingerprint is not what the backend says of its "
                "configuration."
            )

    def test_fingerprints_are_the_same_in_another_backend(
        self, make_backend: Callable[[], Backend], every_option: Mapping[str, QuantConfig]
    ) -> None:
        one, other = make_backend(), make_backend()
        for what, config in every_option.items():
            assert one.fingerprint(config) == other.fingerprint(config), (
                f"{what}: two backends of the same model and data have different fingerprints; "
                "they must be the same in every process."
            )

    def test_another_model_or_other_data_are_told(
        self, backend: Backend, other_backend: Backend, space: TuningSpace, feed: Feed
    ) -> None:
        configs = {"FP32": space.fp32(), "default": space.default()}
        others = [
            what
            for what, config in configs.items()
            if backend.fingerprint(config) != other_backend.fingerprint(config)
            or not are_same(
                other_backend.quantize(config).run(feed), backend.quantize(config).run(feed)
            )
        ]
        if others:
            assert told(backend, space) != told(other_backend, space), (
                f"The configuration builds another model there ({' and '.join(others)}), but "
                "neither the fingerprint of FP32 nor the signature says so: a study would be "
                "continued with it."
            )

    def test_fingerprints_tell_models_apart(
        self, backend: Backend, configs: Mapping[str, QuantConfig]
    ) -> None:
        found: dict[str, str] = {}
        for what, config in configs.items():
            same = found.setdefault(backend.fingerprint(config), what)
            assert same == what, (
                f"The models of the configurations {same!r} and {what!r} have the same "
                "fingerprint, so only one would be evaluated."
            )

    def test_models_with_one_fingerprint_are_the_same(
        self,
        backend: Backend,
        every_option: Mapping[str, QuantConfig],
        feed: Feed,
    ) -> None:
        found: dict[str, list[str]] = {}
        for what, config in every_option.items():
            found.setdefault(backend.fingerprint(config), []).append(what)
        for first, *others in found.values():
            if not others:
                continue
            expected = backend.quantize(every_option[first])
            outputs = expected.run(feed)
            for what in others:
                model = backend.quantize(every_option[what])
                said = (
                    f"The configurations {first!r} and {what!r} have the same fingerprint, so "
                    "only one would be evaluated, but their models differ in "
                )
                assert model.nbytes == expected.nbytes, (
                    f"{said}size: {expected.nbytes} and {model.nbytes} bytes."
                )
                assert_same(model.run(feed), outputs, f"{said}what they compute.")

    def test_ops_that_are_not_named_run_in_fp32(
        self, backend: Backend, space: TuningSpace, configs: Mapping[str, QuantConfig]
    ) -> None:
        assert backend.fingerprint(QuantConfig({})) == backend.fingerprint(space.fp32()), (
            "A configuration without ops must build the FP32 model."
        )
        config = configs["one op in FP32"]
        named = QuantConfig({op: config.ops[op] for op in config.quantized_ops})
        assert backend.fingerprint(named) == backend.fingerprint(config), (
            "Ops that a configuration does not name must run in FP32."
        )

    def test_op_that_the_model_does_not_have_is_refused(
        self, backend: Backend, space: TuningSpace
    ) -> None:
        option = space.tunables[0].default
        with pytest.raises(ValueError, match="no such op"):
            backend.quantize(QuantConfig({"no such op": option}))

    def test_option_that_an_op_does_not_have_is_refused(
        self, backend: Backend, space: TuningSpace
    ) -> None:
        nowhere = OpConfig("weight_only", weight=TensorConfig("int2", "asym", algorithm="nowhere"))
        with pytest.raises(ValueError):
            backend.quantize(QuantConfig({space.tunables[0].ops[0]: nowhere}))

    def test_recipe_that_the_model_does_not_have_is_refused(self, backend: Backend) -> None:
        with pytest.raises(ValueError, match="no_such_recipe"):
            backend.quantize(QuantConfig({}, recipes={"no_such_recipe": True}))

    def test_models_are_built_in_several_threads(
        self, backend: Backend, configs: Mapping[str, QuantConfig]
    ) -> None:
        several = [*configs.values()] * 2
        with ThreadPoolExecutor(4) as pool:
            built = list(pool.map(backend.quantize, several))
        for config, model in zip(several, built, strict=True):
            assert model.fingerprint == backend.fingerprint(config)

    def test_it_tells_what_runs(
        self, backend: Backend, every_option: Mapping[str, QuantConfig]
    ) -> None:
        for what, config in every_option.items():
            executed = backend.executed(config)
            assert executed.keys() == config.ops.keys(), (
                f"{what}: executed() must have an entry for each op of the configuration, "
                "OpRuns() for one of which nothing is known."
            )
            for runs in executed.values():
                assert isinstance(runs.kernel, str), what
                assert runs.integer in (True, False, None), what
                assert isinstance(runs.note, str), what

    def test_signature_is_the_same_each_time(self, make_backend: Callable[[], Backend]) -> None:
        one, other = make_backend(), make_backend()
        if not isinstance(one, HasSignature) or not isinstance(other, HasSignature):
            pytest.skip("The backend has no signature.")
        found = one.signature()
        wrong = {k: type(v).__name__ for k, v in found.items() if not isinstance(v, str)}
        assert not wrong, f"The signature must have strings, but these are none: {wrong}."
        assert all(isinstance(part, str) for part in found), f"Names must be strings: {found}."
        assert found == other.signature(), "The signature must be the same in every process."

    def test_calibration_ahead_of_time_changes_no_model(
        self, make_backend: Callable[[], Backend], configs: Mapping[str, QuantConfig]
    ) -> None:
        one, other = make_backend(), make_backend()
        if not isinstance(one, Calibrates):
            pytest.skip("The backend does not calibrate.")
        one.tuning_space()
        try:
            one.calibrate()
        except ValueError as error:  # Without data.
            pytest.skip(str(error))
        found, expected = (each.fingerprint(configs["default"]) for each in (one, other))
        assert found == expected, "Models must be the same whenever calibrate() is called."
