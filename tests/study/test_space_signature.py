"""A study and its tuning space: the same one is taken, another one refused with the difference."""

from __future__ import annotations

import json
import random
import string

import optuna
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import make_space

from optuna_quant import _optuna
from optuna_quant.space.config import FP32
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import blobs
from optuna_quant.study.space_signature import check_space
from optuna_quant.study.space_signature import differences


def base(**changes: object) -> TuningSpace:
    arguments = {"ops": 3, "recipes": {"r": (0, 1)}, "calibration_sizes": (10, 20)} | changes
    return make_space(**arguments)


@pytest.mark.parametrize("storage", [None, "sqlite://"])
def test_the_same_space_is_taken(storage: str | None) -> None:
    study = optuna.create_study(storage=storage)
    check_space(study, base())
    attrs = _optuna.study_system_attrs(study)
    for _ in range(2):
        check_space(study, base())
    assert _optuna.study_system_attrs(study) == attrs
    assert study.user_attrs == {}


def test_the_order_of_the_ops_does_not_matter() -> None:
    study = optuna.create_study()
    check_space(study, make_space([("a", "Conv"), ("b", "Conv")]))
    check_space(study, make_space([("b", "Conv"), ("a", "Conv")]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (base(ops=2), "op 'op2' is in the study but not in the given space"),
        (base(ops=4), "op 'op3' is in the given space but not in the study"),
        (
            base(options=(STATIC, DYNAMIC, FP32)),
            f"op 'op0' now has '{DYNAMIC.label}'; op 'op1' now has",
        ),
        (base(options=(STATIC,)), "op 'op0' no longer has 'fp32'"),
        (
            base(options=(STATIC_KL, FP32)),
            f"op 'op0' no longer has '{STATIC.label}' and now has '{STATIC_KL.label}'",
        ),
        (base(recipes={"r": (1, 0)}), "recipe 'r' has its options in another order"),
        (base(recipes={"r": (False, True)}), "recipe 'r' no longer has 0, 1 and now has False"),
        (base(recipes={"r": (0.0, 1.0)}), "recipe 'r' no longer has 0, 1 and now has 0.0, 1.0"),
        (base(recipes={"r": ("0", "1")}), "recipe 'r' no longer has 0, 1 and now has '0', '1'"),
        (base(recipes={}), "recipe 'r' is in the study but not in the given space"),
        (base(calibration_sizes=(10,)), "calibration_size no longer has 20"),
        (base(calibration_sizes=()), "calibration_size no longer has 10, 20"),
        (base().group(g=["op0", "op1"]), "group 'g' is in the given space but not in the study"),
    ],
)
def test_another_space_is_refused_with_what_differs(other: TuningSpace, message: str) -> None:
    study = optuna.create_study(study_name="mine")
    check_space(study, base())
    with pytest.raises(ValueError) as error:
        check_space(study, other)
    assert "The study 'mine' was started with another tuning space: " in str(error.value)
    assert message in str(error.value)
    assert "Use the same model and options, or another study name." in str(error.value)
    # The first space stays.
    check_space(study, base())


def test_many_differences_are_counted() -> None:
    study = optuna.create_study()
    check_space(study, make_space(3))
    with pytest.raises(ValueError, match="; and 95 more. Use") as error:
        check_space(study, make_space(103))
    assert len(str(error.value)) < 1000


def test_many_different_options_are_counted() -> None:
    stored = {"op:a": [f"option {i}" for i in range(40)]}
    text = differences(stored, {"op:a": ["option 0"]})
    assert text.startswith("op 'a' no longer has 'option 1', 'option 2'")
    assert text.endswith("'option 5' and 34 more")


def test_a_big_space_is_stored_in_pieces() -> None:
    letters = random.Random(0)
    names = ["".join(letters.choices(string.printable, k=40)) for _ in range(3000)]
    space = make_space([(name, "Conv") for name in names])
    study = optuna.create_study(storage="sqlite://")
    check_space(study, space)
    attrs = _optuna.study_system_attrs(study)
    assert len(attrs) > 3
    # MySQL's TEXT holds 65,535 bytes.
    assert all(len(json.dumps(value)) < 65_535 for value in attrs.values())
    check_space(study, space)
    fewer = make_space([(name, "Conv") for name in names[1:]])
    with pytest.raises(ValueError) as error:
        check_space(study, fewer)
    assert f"op {names[0]!r} is in the study but not in the given space" in str(error.value)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(blobs, "_CHUNK", chunk)
    study = optuna.create_study()
    check_space(study, base())
    with pytest.raises(ValueError, match="op 'op3' is in the given space"):
        check_space(study, base(ops=4))


def test_spaces_of_different_prefix_do_not_meet() -> None:
    study = optuna.create_study()
    encoder, decoder = make_space(2, prefix="encoder"), make_space(3, prefix="decoder")
    check_space(study, encoder)
    check_space(study, decoder)
    check_space(study, encoder)
    with pytest.raises(ValueError, match="another tuning space"):
        check_space(study, make_space(3, prefix="encoder"))


def test_a_start_that_was_cut_off_is_done_again() -> None:
    """The head is written last: without it, nothing of the space counts."""
    study = optuna.create_study()
    check_space(study, base())
    name = "optuna_quant:space:quant"
    attrs = _optuna.study_system_attrs(study)
    cut_off = optuna.create_study()
    for key, value in attrs.items():
        if key != name:
            _optuna.set_study_system_attr(cut_off, key, value)
    check_space(cut_off, base(ops=2))
    with pytest.raises(ValueError, match="op 'op2' is in the given space but not in the study"):
        check_space(cut_off, base())


def test_another_protocol_is_refused() -> None:
    space = make_space(3)
    study = optuna.create_study()
    check_space(study, space)
    mark = {"protocol": 0, "version": "0.0.1"}
    _optuna.set_study_system_attr(study, "optuna_quant:protocol", mark)
    with pytest.raises(ValueError, match=r"started with optuna_quant 0\.0\.1, whose"):
        check_space(study, space)
