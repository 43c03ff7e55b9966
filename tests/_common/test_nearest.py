from __future__ import annotations

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.nearest import did_you_mean_inside
from optuna_quant._common.nearest import nearest
from optuna_quant._common.nearest import nearest_names


NAMES = ["Conv", "MatMul", "Gemm", "ConvTranspose"]


def test_the_most_similar_name_is_found_whatever_its_case() -> None:
    assert nearest("conv", NAMES) == "Conv"
    assert nearest("matmull", NAMES) == "MatMul"


def test_nothing_is_found_where_nothing_is_similar() -> None:
    assert nearest("Softmax", ["Gemm"]) is None
    assert nearest("Conv", []) is None
    assert did_you_mean("Softmax", ["Gemm"]) == did_you_mean_inside("Softmax", ["Gemm"]) == ""


def test_several_come_in_order_and_no_more_than_asked_for() -> None:
    names = ["abcdxx", "abcdef", "abcdex"]
    assert nearest_names("abcdef", names) == ["abcdef", "abcdex", "abcdxx"]
    assert nearest_names("abcdef", names, most=1) == ["abcdef"]


def test_a_name_that_begins_with_the_word_comes_first() -> None:
    assert nearest("acc", ["mcc", "balanced_accuracy", "accuracy"]) == "accuracy"
    assert nearest_names("conv", ["Convolution", "Conx", "ConvT"]) == [
        "ConvT",
        "Convolution",
        "Conx",
    ]
    assert nearest("a", ["abc"]) is None


def test_of_names_that_differ_in_case_the_first_is_given() -> None:
    assert nearest("conv", ["CONV", "Conv"]) == "CONV"


def test_questions_can_be_put_into_messages() -> None:
    assert did_you_mean("Gem", NAMES) == " Did you mean 'Gemm'?"
    assert did_you_mean_inside("Gem", NAMES) == " (did you mean 'Gemm'?)"
