"""A study that exists: who may go on with it on another kind of processor."""

from __future__ import annotations

from typing import Any

from fake_backend import FakeBackend
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant.study.compatibility import check_continued


CRITERION = AccuracyCriterion()


class SignedBackend(FakeBackend):
    """A fake backend that says what its models depend on."""

    def __init__(self, **parts: str) -> None:
        super().__init__(2)
        self._parts = parts

    def signature(self) -> dict[str, str]:
        return self._parts


def go_on(study: optuna.Study, backend: Any) -> None:
    check_continued(study, backend, backend.tuning_space(), CRITERION)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="mine", direction="maximize")


@pytest.mark.parametrize(("first", "second"), [("exact", "saturating"), ("saturating", "exact")])
def test_other_arithmetic_is_refused(study: optuna.Study, first: str, second: str) -> None:
    go_on(study, SignedBackend(options="o", arithmetic=first))
    go_on(study, SignedBackend(options="o", arithmetic=first))
    with pytest.raises(ValueError) as error:
        go_on(study, SignedBackend(options="o", arithmetic=second))
    text = str(error.value)
    assert "The study 'mine' was started on another kind of processor" in text
    assert f"8-bit arithmetic was {first} there and is {second} here" in text
    assert "another study name" in text
    assert "reduce_range=True" in text


def test_study_of_an_earlier_version_goes_on(study: optuna.Study) -> None:
    go_on(study, SignedBackend(options="o"))
    go_on(study, SignedBackend(options="o", arithmetic="exact"))
    go_on(study, SignedBackend(options="o", arithmetic="saturating"))
    with pytest.raises(ValueError, match=r"started with other options \(it has o; here p\), so"):
        go_on(study, SignedBackend(options="p", arithmetic="exact"))


def test_earlier_version_goes_on_with_a_study_of_this_one(study: optuna.Study) -> None:
    go_on(study, SignedBackend(options="o", arithmetic="exact"))
    go_on(study, SignedBackend(options="o"))


def test_other_arithmetic_is_refused_whatever_else_an_earlier_version_lacks(
    study: optuna.Study,
) -> None:
    go_on(study, SignedBackend(arithmetic="exact"))
    with pytest.raises(ValueError, match="another kind of processor"):
        go_on(study, SignedBackend(arithmetic="saturating", algorithms="rtn:1"))


@pytest.mark.parametrize("has_four_bits", [True, False])
def test_versions_of_algorithms_count_where_weights_alone_are_quantized(
    study: optuna.Study, has_four_bits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_models = pytest.importorskip("onnx_models")
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
    from optuna_quant.backends.onnxruntime import signature

    m = onnx_models.Maker()
    model = m.model([m.node("MatMul", [m.input("x", ["N", 64]), m.weight(64, 64)])])
    backend = OnnxRuntimeBackend(
        model, calibration_data=onnx_models.samples(8, 64), approach="auto"
    )
    bits = {".*": {"weight": {"bits": [8, 4]}}} if has_four_bits else None
    space = backend.tuning_space(op_type_dict=bits)
    check_continued(study, backend, space, CRITERION)
    check_continued(study, backend, space, CRITERION)
    newer = {name: version + 1 for name, version in signature.ALGORITHM_VERSIONS.items()}
    monkeypatch.setattr(signature, "ALGORITHM_VERSIONS", newer)
    if has_four_bits:
        with pytest.raises(ValueError, match="started with other algorithms"):
            check_continued(study, backend, space, CRITERION)
    else:
        check_continued(study, backend, space, CRITERION)


def test_other_options_are_named_rather_than_their_arithmetic(study: optuna.Study) -> None:
    go_on(study, SignedBackend(options="o", arithmetic="saturating"))
    with pytest.raises(ValueError, match="started with other options") as error:
        go_on(study, SignedBackend(options="p", arithmetic="exact"))
    assert "arithmetic" not in str(error.value)


def test_processors_of_both_kinds_share_a_study_with_seven_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx_models = pytest.importorskip("onnx_models")
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
    from optuna_quant.backends.onnxruntime.static import saturation

    model, data = onnx_models.convnet(), onnx_models.samples(8, 2, 8, 8)

    def join(study: optuna.Study, *, vnni: bool, reduce_range: bool) -> None:
        monkeypatch.setattr(saturation, "products_saturate", lambda sessions: not vnni)
        go_on(study, OnnxRuntimeBackend(model, calibration_data=data, reduce_range=reduce_range))

    seven = optuna.create_study(direction="maximize")
    join(seven, vnni=True, reduce_range=True)
    join(seven, vnni=False, reduce_range=True)
    eight = optuna.create_study(direction="maximize")
    join(eight, vnni=True, reduce_range=False)
    with pytest.raises(ValueError, match="another kind of processor"):
        join(eight, vnni=False, reduce_range=False)
