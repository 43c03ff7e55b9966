"""The tests that any backend can run find what breaks a promise, and say which."""

from __future__ import annotations

from pathlib import Path

import pytest


HERE = Path(__file__).parent

# What is found of each broken backend, and a part of what is said.
FOUND = {
    ("WithoutDynamic", "test_models_of_all_options_run"): "dynamic",
    ("WithoutDynamic", "test_model_has_the_fingerprint_of_its_configuration"): "dynamic",
    ("WrongSizes", "test_sizes_are_those_of_the_models"): "the table says",
    ("WrongScores", "test_weights_are_told_apart"): "There must be scores of each configuration",
    ("WrongScores", "test_fewer_samples_or_batches_give_scores"): "NoneType",
    ("NegativeScores", "test_each_op_has_a_score"): "must be finite and not negative",
    ("FloatsScored", "test_an_op_in_fp32_scores_nothing"): "must score 0",
    ("BuildsAnything", "test_option_that_an_op_does_not_have_is_refused"): "DID NOT RAISE",
    ("TellsNothing", "test_it_tells_what_runs"): "an entry for each op",
    ("SaysNothingOfData", "test_another_model_or_other_data_are_told"): "nor the signature says",
    (
        "SaysNothingOfWeights",
        "test_another_model_or_other_data_are_told",
    ): "nor the signature says",
    (
        "SaysNothingOfData",
        "test_calibration_of_another_model_or_other_data_is_refused",
    ): "must have another key",
    (
        "TakesAnyCalibration",
        "test_calibration_of_another_model_or_other_data_is_refused",
    ): "DID NOT RAISE",
    ("NoSuchInput", "test_preview_fits_the_model"): "has arrays for ['input'], but the model's",
    ("WritesOver", "test_it_is_saved"): "not replaced as a whole",
    (
        "BatchDependent",
        "test_samples_of_a_batch_have_no_influence_on_each_other",
    ): "depends_on_batch must be True",
    (
        "WrongFingerprint",
        "test_model_has_the_fingerprint_of_its_configuration",
    ): "not what the backend says",
    ("OneFingerprint", "test_models_with_one_fingerprint_are_the_same"): "in what they compute",
    ("OneFingerprintOfSizes", "test_models_with_one_fingerprint_are_the_same"): "differ in size",
    ("OtherScoresUntold", "test_scores_of_other_data_are_not_taken_for_these"): "nor the key",
    ("NumpySize", "test_size_is_a_number_of_bytes"): "nbytes must be an int, not int64",
    ("FloatsNotScored", "test_an_op_in_fp32_scores_nothing"): "no score of a",
    ("AllZero", "test_what_changes_outputs_has_a_score"): "all scores are 0",
    ("TakesAnyRecipe", "test_recipe_that_the_model_does_not_have_is_refused"): "DID NOT RAISE",
    ("SizesOfModes", "test_search_for_the_smallest"): "has no cost for op",
    ("NoName", "test_the_original_has_a_name"): "must be a name for people",
    ("SizesOfOf", "test_what_sizes_are_of_has_a_name"): "must not begin with 'of'",
    ("OtherTargets", "test_the_simulated_target_has_a_name"): "the same in every process",
    ("EndingWithoutDot", "test_models_are_saved_under_their_usual_endings"): "with a dot",
    ("LeavesOutAll", "test_ops_that_are_left_out_are_told"): "are in the tuning space",
    ("LeavesOutNothing", "test_ops_that_are_left_out_are_told"): "are left out as well",
    ("RangesOfNoOp", "test_ops_without_a_range_have_a_reason"): "has no such ops",
    ("RecipeWithoutName", "test_other_recipes_are_others"): "must be names",
    (
        "WrongCalibrationBytes",
        "test_the_size_of_an_export_is_told_before_it_is_made",
    ): "calibration_bytes says 1000000000",
    ("ForgetsMoreData", "test_what_configurations_need_besides_is_shared"): "is calibrated",
    (
        "ShowsNothing",
        "test_what_the_runtimes_own_object_is_called_with_is_shown",
    ): "was 0 times",
    ("CompilesAnother", "test_what_is_compiled_computes_the_same"): "gives something else",
    ("SimulatesAnother", "test_the_simulation_stands_in_for_the_model"): "than the model",
    ("ForgetsRate", "test_what_is_trained_is_what_is_built_from_the_record"): "another model",
    ("ForgetsRate", "test_a_hyperparameter_that_is_missing_is_an_error"): "DID NOT RAISE",
    ("OneOp", "test_default_space_is_of_the_capability"): "a model with two ops or more",
}


class Found:
    """Gathers, as a plugin, which backends there are and what is said of the tests that fail."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.said: dict[tuple[str, str], str] = {}

    def pytest_pycollect_makeitem(self, name: str, obj: object) -> None:
        if isinstance(obj, type) and name.startswith("Test"):
            self.broken.add(name.removeprefix("Test"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            _, test_class, test = report.nodeid.split("::")
            key = test_class.removeprefix("Test"), test.partition("[")[0]
            self.said[key] = f"{self.said.get(key, '')}{report.longreprtext}\n"


@pytest.fixture(scope="module")
def found() -> Found:
    """What the tests find that are expected to find something, each of its backend."""
    path = HERE / "broken_backends.py"
    chosen = [f"{path}::Test{broken}::{test}" for broken, test in FOUND]
    # What this process has set up stays: the other run has no conftest, and ends no timers.
    alone = ["--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout"]
    gathered = Found()
    status = pytest.main(["-q", "-s", *alone, *chosen], plugins=[gathered])
    assert status == pytest.ExitCode.TESTS_FAILED
    return gathered


@pytest.mark.parametrize(("broken", "said"), FOUND.items(), ids=lambda x: " ".join(x)[:60])
def test_what_is_broken_is_found(found: Found, broken: tuple[str, str], said: str) -> None:
    assert said in found.said.get(broken, "It was not found.")


def test_each_broken_backend_is_among_those(found: Found) -> None:
    assert found.broken == {broken for broken, _ in FOUND}
