"""A target is a name, a profile, or a file with one."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

from onnx_models import convnet
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime import TARGETS
from optuna_quant.backends.onnxruntime import IntegerForm
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime import TargetProfile
from optuna_quant.backends.onnxruntime.targets.given import as_target
from optuna_quant.backends.onnxruntime.targets.target import Target
from optuna_quant.backends.onnxruntime.targets.target import checked_reduce_range
from optuna_quant.backends.onnxruntime.targets.target import find_target
from optuna_quant.space.config import OpConfig


FORM = {"op_types": ["Conv"], "activation": "int8/sym", "weights": ["int8/sym/per_channel"]}
PROFILE: dict[str, Any] = {"name": "npu", "provider": "SomeProvider", "forms": [FORM]}
TOML = """
name = "npu"
provider = "SomeProvider"

[[forms]]
op_types = ["Conv"]
activation = "int8/sym"
weights = ["int8/sym/per_channel"]
"""


def test_every_known_target_is_its_name() -> None:
    assert set(TARGETS) == {
        *("cpu", "cpu-avx2", "cuda", "tensorrt", "openvino", "openvino-gpu", "qnn")
    }
    for name, profile in TARGETS.items():
        assert as_target(name) is profile
        assert profile.name == name
        assert as_target(profile) is profile
    assert as_target(None) is TARGETS["cpu"]


@pytest.mark.parametrize(("suffix", "text"), [("json", json.dumps(PROFILE)), ("toml", TOML)])
def test_file_has_the_fields_of_a_profile(suffix: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / f"npu.{suffix}"
    file.write_text(text)
    form = IntegerForm(
        op_types=("Conv",), activation="int8/sym", weights=("int8/sym/per_channel",)
    )
    expected = TargetProfile(name="npu", provider="SomeProvider", forms=(form,))
    assert as_target(file) == as_target(str(file)) == expected


def test_file_may_say_what_differs_from_a_known_target(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"base": "qnn", "name": "old npu", "fallbacks": ["fp32"]}))
    assert as_target(file) == replace(TARGETS["qnn"], name="old npu", fallbacks=("fp32",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": []}, "unknown field 'form'.* Did you mean 'forms'"),
        ({"provider": None}, "provider must be a string"),
        ({"base": "tpu"}, "base must be one of cpu, .* but got 'tpu'"),
        ({"forms": {}}, "forms must be a list of tables"),
        ({"forms": [{"op_types": ["Conv"]}]}, "it lacks 'activation'"),
        ({"forms": [{**FORM, "op_types": ["conv"]}]}, "'conv' is no op type .*mean 'Conv'"),
        ({"forms": [{**FORM, "op_types": "Conv"}]}, "op_types must be a list of strings"),
        ({"forms": [{**FORM, "activation": "int4/sym"}]}, "activation: 'int4/sym' is not of"),
        ({"forms": [{**FORM, "activation": "int8"}]}, "activation: 'int8' is not of the form"),
        ({"forms": [{**FORM, "weights": ["int8/sym"]}]}, "weights: 'int8/sym' is not of the"),
        ({"forms": [{**FORM, "weights": ["int8/sum/per_tensor"]}]}, "scheme must be one of"),
        ({"forms": []}, "runs nothing quantized"),
        ({"fallbacks": ["fp32", "fp16"]}, "with 'fp32' last"),
        ({"fallbacks": ["fp8", "fp32"]}, "fallbacks must be of .* but got 'fp8'"),
        ({"bf16_op_types": ["Gem"]}, "bf16_op_types: 'Gem' is no op type .*mean 'Gemm'"),
        ({"bf16_op_types": ["Conv"]}, "bf16_op_types: fallbacks must have 'bf16'"),
        ({"default_op_types": ["Gemm"]}, "no form of forms is for 'Gemm'"),
        ({"weight_only_bits": [3]}, "weight_only_bits must be of 2, 4 and 8, but got 3"),
        ({"weight_pairs": "yes"}, "weight_pairs must be True or False, but got 'yes'"),
        ({"integer_outputs": 1.5}, "integer_outputs must be True, False or None"),
        ({"provider_options": {"device": 1}}, "provider_options must be pairs of strings"),
    ],
)
def test_bad_file_is_named_with_what_is_wrong(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "npu.json"
    file.write_text(json.dumps({**PROFILE, **changes}))
    with pytest.raises(ValueError, match=rf"npu\.json.*{message}"):
        as_target(file)


def test_what_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no target 'tensort'.*cpu-avx2.*mean 'tensorrt'\?"):
        as_target("tensort")
    with pytest.raises(FileNotFoundError, match=r"no file .*npu\.toml"):
        as_target(tmp_path / "npu.toml")
    with pytest.raises(TypeError, match=r"target must be a name, .* but got 8"):
        as_target(8)  # type: ignore[arg-type]
    file = tmp_path / "npu.json"
    file.write_text("[1]")
    with pytest.raises(ValueError, match=r"must hold a table, but holds \[1\]"):
        as_target(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"The target profile .*npu\.json"):
        as_target(file)


def test_what_a_profile_allows() -> None:
    label = "static a=uint16/asym/per_tensor/mse w=int8/sym/per_channel/minmax"
    option = OpConfig.from_label(label)
    assert TARGETS["qnn"].allows("Conv", option)
    assert not TARGETS["qnn"].allows("MatMul", option)
    assert not TARGETS["tensorrt"].allows("Conv", option)
    weights = OpConfig.from_label("weight_only w=int4/asym/per_group=32/rtn level=4")
    assert TARGETS["cuda"].allows("MatMul", weights)
    assert not TARGETS["tensorrt"].allows("MatMul", weights)
    assert TARGETS["cpu"].allows("LSTM", OpConfig("dynamic", weight=option.weight))
    assert not TARGETS["qnn"].allows("LSTM", OpConfig("dynamic", weight=option.weight))
    assert TARGETS["qnn"].allows("Conv", OpConfig("fp16"))
    assert not TARGETS["cpu"].allows("Conv", OpConfig("fp16"))
    assert TARGETS["cuda"].allows("Conv", OpConfig("bf16"))
    assert not TARGETS["cuda"].allows("ConvTranspose", OpConfig("bf16"))
    assert TARGETS["tensorrt"].allows("ConvTranspose", OpConfig("bf16"))


def test_description_is_of_the_fields_that_differ_from_their_defaults() -> None:
    profile = TargetProfile(
        name="npu",
        provider="SomeProvider",
        forms=(IntegerForm(op_types=("Conv",), activation="int8/sym", weights=()),),
        fallbacks=("fp16", "fp32"),
        note="Old.",
    )
    # A study is continued with the same digest only: this one changes with no new field.
    described = Target(profile).description
    assert described == "npu c0c366f49a41 measured"
    assert Target(replace(profile, note="New.")).description == described
    assert Target(replace(profile, dynamic=False)).description == described
    assert Target(replace(profile, dynamic=True)).description != described

    @dataclass(frozen=True, kw_only=True)
    class Wider(TargetProfile):
        entries: tuple[str, ...] = ()

    given = {each.name: getattr(profile, each.name) for each in fields(profile)}
    assert Target(Wider(**given)).description == described
    assert Target(Wider(**given, entries=("a",))).description != described


def test_provider_that_is_installed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = TARGETS["openvino"]
    target, providers = find_target(profile, None)
    assert target.is_simulated
    assert list(providers) == ["CPUExecutionProvider"]
    installed = [profile.provider, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: installed)
    target, providers = find_target(profile, None)
    assert not target.is_simulated
    assert not target.session_entries
    own = ("OpenVINOExecutionProvider", {"device_type": "CPU"})
    assert list(providers) == [own, "CPUExecutionProvider"]
    # Those that the user names go before it.
    assert find_target(profile, ["CPUExecutionProvider"])[0].is_simulated
    assert not find_target(profile, [profile.provider])[0].is_simulated
    with pytest.raises(ValueError, match="no execution provider 'Other'"):
        find_target(profile, ["Other"])


@pytest.mark.parametrize("name", [name for name, each in TARGETS.items() if each.is_cpu])
def test_cpu_is_never_simulated(name: str) -> None:
    target, providers = find_target(TARGETS[name], None)
    assert not target.is_simulated
    assert list(providers) == ["CPUExecutionProvider"]


def test_reduce_range_that_contradicts_the_target_is_refused() -> None:
    words = "reduce_range=False contradicts target='cpu-avx2'"
    with pytest.raises(ValueError, match=words):
        OnnxRuntimeBackend(convnet(), approach="dynamic", target="cpu-avx2", reduce_range=False)
    options = {"approach": "dynamic", "inspect_only": True}
    assert checked_reduce_range(None, TARGETS["cpu-avx2"])
    assert checked_reduce_range(True, TARGETS["cuda"])
    assert not checked_reduce_range(None, TARGETS["cpu"])
    plain, explicit = (
        OnnxRuntimeBackend(convnet(), **options, **more)  # type: ignore[arg-type]
        for more in ({}, {"reduce_range": False})
    )
    config = plain.tuning_space().default()
    assert plain.fingerprint(config) == explicit.fingerprint(config)
