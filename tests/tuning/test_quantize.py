"""Quantizing without a search: the same models as those of trials, and what is said of them."""

from __future__ import annotations

from pathlib import Path
import shutil

from fake_backend import FP32_BYTES
from fake_backend import FakeBackend
import numpy as np
import onnx_models
import onnxruntime
from places import ROOT
import pytest

import optuna_quant
from optuna_quant import QuantConfig
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig


X = onnx_models.samples(16, 2, 8, 8)
DYNAMIC = "dynamic a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"


def convnet_backend() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(onnx_models.convnet(), calibration_data=X)


def test_the_default_is_the_model_of_a_trial(tmp_path: Path) -> None:
    backend = convnet_backend()
    space = backend.tuning_space()
    built = optuna_quant.quantize(
        onnx_models.convnet(), calibration_data=X, save=tmp_path / "out.onnx"
    )
    assert built.config == space.default()
    assert built.model().fingerprint == backend.fingerprint(space.default())
    assert built.fp32_bytes == backend.quantize(space.fp32()).nbytes
    assert built.nbytes == backend.quantize(space.default()).nbytes
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    (found,) = session.run(None, {"x": X})
    (trial,) = backend.quantize(space.default()).run({"x": X})
    np.testing.assert_array_equal(found, trial)


def test_a_config_by_value_and_by_both_files(tmp_path: Path) -> None:
    backend = convnet_backend()
    space = backend.tuning_space()
    first, *_ = space.default().ops
    config = space.default().with_fallback(first)
    json, report = tmp_path / "c.json", tmp_path / "r.csv"
    json.write_text(config.to_json())
    built = optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=config)
    built.report().to_csv(report, index=False)
    assert built.model().fingerprint == backend.fingerprint(config)
    for path in (json, str(json), report, str(report)):
        again = optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=path)
        assert again.config == config
        assert again.model().fingerprint == built.model().fingerprint


def test_a_label_is_for_the_ops_that_have_it() -> None:
    backend = convnet_backend()
    space = backend.tuning_space()
    label = space.tunables[0].options[1].label
    built = optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=label)
    for tunable in space.tunables:
        chosen = built.config.ops[tunable.name]
        has_it = OpConfig.from_label(label) in tunable.options
        assert chosen == (OpConfig.from_label(label) if has_it else tunable.default)


def test_accuracy_levels_are_in_a_report_and_read_from_it(tmp_path: Path) -> None:
    model = onnx_models.attention()
    label = "weight_only w=int4/asym/per_channel/rtn level=0"
    built = optuna_quant.quantize(model, approach="weight_only", config=label)
    report = tmp_path / "r.csv"
    built.report().to_csv(report, index=False)
    again = optuna_quant.quantize(model, approach="weight_only", config=report)
    assert set(built.report()["accuracy_level"]) == {0}
    assert again.config == built.config
    default = optuna_quant.quantize(model, approach="weight_only")
    for each in (built, default):
        assert set(each.report()["as_asked"]) == {True}
    assert "accuracy_level" not in optuna_quant.quantize(model, approach="dynamic").report()


def test_recipes_that_are_off_are_not_told_as_if_they_were_used() -> None:
    recipes = {"smooth_quant": ["off", "alpha=0.5"], "equalization": True}
    model, x = onnx_models.convnet(), X
    built = optuna_quant.quantize(model, calibration_data=x, recipes=recipes)
    assert built.config.recipes == {"smooth_quant": "off", "equalization": "on"}
    assert "recipes: equalization=on\n" in f"{built}\n"
    assert "smooth_quant" not in str(built)


def test_recipes_that_are_asked_for_are_used_whatever_says_the_ops(tmp_path: Path) -> None:
    recipes = {"smooth_quant": ["alpha=0.5"]}
    model, x = onnx_models.attention(), onnx_models.samples(16, 4, 8)
    built = optuna_quant.quantize(model, calibration_data=x, recipes=recipes)
    plain = optuna_quant.quantize(model, calibration_data=x)
    assert built.config.recipes == {"smooth_quant": "alpha=0.5"}
    assert built.model().fingerprint != plain.model().fingerprint
    assert "recipes: smooth_quant=alpha=0.5" in str(built)
    assert built.fp32_bytes == plain.fp32_bytes
    report, json = tmp_path / "r.csv", tmp_path / "c.json"
    built.report().to_csv(report, index=False)
    json.write_text(built.config.to_json())
    for config in (report, json):
        for given in ({"recipes": recipes}, {}):
            again = optuna_quant.quantize(model, calibration_data=x, config=config, **given)
            assert again.model().fingerprint == built.model().fingerprint
    with pytest.raises(ValueError, match=r"recipe 'smooth_quant' cannot be .* Ask for it with"):
        optuna_quant.quantize(model, calibration_data=x, config=json, recipes="none")


def test_options_of_tune_narrow_the_default() -> None:
    built = optuna_quant.quantize(
        onnx_models.convnet(), calibration_data=X, op_types=["Conv"], threads=1
    )
    assert {row.op_type for row in built.report().itertuples()} == {"Conv"}


def test_report_has_what_was_asked_and_what_runs() -> None:
    built = optuna_quant.quantize(onnx_models.convnet(), calibration_data=X)
    frame = built.report()
    assert list(frame["op"]) == list(built.config.ops)
    assert list(frame["as_asked"]) == [True] * len(frame)
    assert set(frame["mode"]) == {"static"}
    total = len(frame)
    assert f"{total} of {total} ops in integer kernels" in str(built)
    assert "no criterion was checked" in str(built)


def test_nothing_quantized_is_said() -> None:
    built = optuna_quant.quantize(
        onnx_models.convnet(), calibration_data=X, config=QuantConfig({})
    )
    assert not built.is_quantized
    assert built.nbytes == built.fp32_bytes
    assert str(built).startswith("Nothing is quantized: this is the FP32 model as it is.")


def test_compare_measures_beside_fp32() -> None:
    digits = ROOT / "examples" / "digits"
    built = optuna_quant.quantize(
        digits / "model.onnx", calibration_data=digits / "calib.npz", threads=1
    )
    found = built.compare(data=digits / "eval.npz", rounds=2)
    assert (found.first.name, found.second.name) == ("FP32", "quantized")
    assert found.threads == 1
    evaluation = optuna_quant.DataEvaluation(digits / "eval.npz")
    backend = built.backend
    assert found.second.metric == evaluation(built.model())
    assert found.first.metric == evaluation(backend.quantize(QuantConfig({})))
    assert (found.first.nbytes, found.second.nbytes) == (built.fp32_bytes, built.nbytes)


def test_any_backend() -> None:
    built = optuna_quant.quantize(backend=FakeBackend({"a": 0.1, "b": 0.2}))
    assert list(built.config.quantized_ops) == ["a", "b"]
    assert built.fp32_bytes == FP32_BYTES


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("defualt", r"config: 'defualt' is neither a file nor a name.* Did you mean 'default'"),
        ("no.json", r"config: 'no.json' cannot be read: No such file"),
        (DYNAMIC, r"no op of the tuning space has the option 'dynamic .*; there are: static"),
        (
            QuantConfig({"connv": OpConfig.from_label(DYNAMIC)}),
            r"op 'connv' is not there in this model.",
        ),
        (QuantConfig({}, {"smooth": "on"}), r"there is no recipe 'smooth'\. Did you mean"),
        (
            QuantConfig({}, calibration_size=3),
            r"uses 3 calibration samples, .* give calibration_sizes=\[3\]",
        ),
    ],
)
def test_bad_configs_are_refused(config: str | QuantConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=config)


def test_an_option_of_another_approach_says_how_to_have_it() -> None:
    name, *_ = convnet_backend().tuning_space().default().ops
    config = QuantConfig({name: OpConfig.from_label(DYNAMIC)})
    with pytest.raises(ValueError, match=r"has no option 'dynamic.*approach='dynamic'"):
        optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"c\.json.*Expecting"),
        ('{"ops": {"a": "int9"}, "recipes": {}, "calibration_size": null}', r"Op 'a': mode must"),
        ("[]", "not a quant config"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("op,mode\n", "no column activation, weight"),
        ("op,mode,activation,weight\na,fp32,,\na,fp32,,\n", "line 3: op 'a' comes twice"),
        ("op,mode,activation,weight\na,int,,\n", "line 2: op 'a': mode must be one of"),
    ],
)
def test_damaged_reports_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=path)


def test_a_whole_config_and_a_narrower_space_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="op_types cannot be given with a config"):
        optuna_quant.quantize(
            onnx_models.convnet(), calibration_data=X, config=QuantConfig({}), op_types="all"
        )


def test_options_of_searches_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"quantize\(\) has no option 'max_trials'. It is an opt"):
        optuna_quant.quantize("model.onnx", max_trials=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'op_type'. Did you mean 'op_types'\?"):
        optuna_quant.quantize("model.onnx", op_type="Conv")  # type: ignore[call-arg]


def test_no_file_that_is_read_is_written(tmp_path: Path) -> None:
    for name in ("model.onnx", "calib.npz"):
        shutil.copy(ROOT / "examples" / "digits" / name, tmp_path)
    model, calib = tmp_path / "model.onnx", tmp_path / "calib.npz"
    before = model.read_bytes(), calib.read_bytes()
    for path in (model, calib):
        with pytest.raises(ValueError, match="itself; choose another file"):
            optuna_quant.quantize(model, calibration_data=calib, save=path)
    built = optuna_quant.quantize(model, calibration_data=calib)
    with pytest.raises(ValueError, match="is the model itself"):
        built.save(model)
    assert before == (model.read_bytes(), calib.read_bytes())


def test_ops_in_fallback_are_counted() -> None:
    backend = FakeBackend({"a": 0.1, "b": 0.2})
    config = backend.tuning_space().default().with_ops({"b": FP32})
    built = optuna_quant.quantize(backend=backend, config=config)
    assert "in fallback: b" in str(built)


@pytest.mark.parametrize("algorithm", ["minmax", "mean_minmax"])
def test_a_whole_config_may_have_options_on_request(algorithm: str) -> None:
    backend = convnet_backend()
    label = f"static a=uint8/asym/per_tensor/{algorithm} w=int8/sym/per_channel/minmax"
    config = QuantConfig({"Conv0": OpConfig.from_label(label)})
    built = optuna_quant.quantize(onnx_models.convnet(), calibration_data=X, config=config)
    assert built.model().fingerprint == backend.fingerprint(config)
