"""What progress says of a trial."""

from __future__ import annotations

import math

from fake_backend import FakeBackend
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant import QuantObjective
from optuna_quant.callbacks.trial_line import reference_for
from optuna_quant.callbacks.wording import Reference
from optuna_quant.callbacks.wording import rounded_estimate
from optuna_quant.callbacks.wording import shown_bound
from optuna_quant.callbacks.wording import shown_changes
from optuna_quant.callbacks.wording import shown_config
from optuna_quant.callbacks.wording import shown_interval_of
from optuna_quant.callbacks.wording import shown_sureness
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable
from optuna_quant.study.evidence import Evidence


INT8 = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym", "per_channel"))
OTHER = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym"))
DYNAMIC = OpConfig("dynamic", TensorConfig("uint8"), TensorConfig("int8"))
INT4 = OpConfig("weight_only", None, TensorConfig("int4", "asym", "per_group", "rtn", 32))


def config(*quantized: str, of: str = "abcdef", option: OpConfig = INT8) -> QuantConfig:
    return QuantConfig({op: option if op in quantized else FP32 for op in of})


@pytest.mark.parametrize(
    ("tried", "than", "said"),
    [
        (config(), None, "FP32"),
        (config(*"abcdef"), None, "all 6 ops in INT8"),
        (config(*"abcde"), None, "5 of 6 ops in INT8"),
        (config(*"abcde"), config("a"), "5 of 6 ops in INT8, 4 more than trial 3"),
        (config("a"), config(*"abc"), "1 of 6 ops in INT8, 2 fewer than trial 3 (-b -c)"),
        (config("a"), config("b"), "1 of 6 ops in INT8, 1 more and 1 fewer than trial 3 (+a -b)"),
        (config("a"), config("a"), "1 of 6 ops in INT8, as trial 3"),
        (
            config("a", option=OTHER),
            config("a"),
            "1 of 6 ops in INT8, 1 changed from trial 3 (a: weights per_channel -> per_tensor)",
        ),
        (
            config(*"abcd"),
            config(*"abc", option=OTHER),
            "4 of 6 ops in INT8, 1 more than trial 3 (+d), 3 others changed (weights per_tensor "
            "-> per_channel)",
        ),
        (
            config(*"ab"),
            config("a", option=OTHER),
            "2 of 6 ops in INT8, 1 more than trial 3 (+b), 1 other changed (a: weights "
            "per_tensor -> per_channel)",
        ),
        (
            QuantConfig({"a": INT8, "b": DYNAMIC, "c": INT4, "d": INT8, "e": INT8}),
            QuantConfig({"a": OTHER, "b": INT8, "c": INT8, "d": OTHER, "e": OTHER}),
            "of 5 ops 3 in INT8, 1 in dynamic INT8, 1 in INT4 (weights only), 5 changed from "
            "trial 3 (weights per_tensor -> per_channel in 3, static -> dynamic in 1, and 1 more)",
        ),
        (config("a", option=INT4), None, "1 of 6 ops in INT4 (weights only)"),
        (
            QuantConfig({"a": INT8, "b": INT8, "c": DYNAMIC, "d": OpConfig("fp16")}),
            None,
            "of 4 ops 2 in INT8, 1 in dynamic INT8, 1 in FP16",
        ),
    ],
)
def test_what_is_tried(tried: QuantConfig, than: QuantConfig | None, said: str) -> None:
    assert shown_config(tried, than=than and Reference(than, 3)) == said


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (
            "static a=uint8/asym/per_tensor/kl",
            "static a=uint8/asym/per_tensor/minmax",
            ["activations minmax -> kl"],
        ),
        ("fp16", "fp32", ["FP32 -> FP16"]),
        (
            "weight_only w=int4/asym/per_group=32/rtn level=4",
            "weight_only w=int4/sym/per_group=128/rtn level=0",
            ["weights sym -> asym", "weights per_group=128 -> per_group=32", "level 0 -> 4"],
        ),
        (
            "dynamic a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax",
            "dynamic a=uint8/asym/per_tensor/minmax",
            ["weights quantized"],
        ),
    ],
)
def test_what_has_changed_in_an_op_is_said(now: str, before: str, said: list[str]) -> None:
    assert shown_changes(OpConfig.from_label(now), OpConfig.from_label(before)) == said


def test_ops_that_are_not_tuned_count() -> None:
    assert shown_config(config(*"abcdef"), left_out=2) == "6 of 8 ops in INT8"


def test_recipes_are_named_unless_they_are_at_their_default() -> None:
    tunables = (Tunable("a", "Conv", ("a",), (INT8, FP32)),)
    recipes = {"smooth_quant": ("off", "alpha=0.5"), "equalization": (False, True)}
    space = TuningSpace(tunables, recipes, (10, 100))
    tried = QuantConfig({"a": INT8}, {"smooth_quant": "alpha=0.5", "equalization": True}, 100)
    assert shown_config(tried, space) == (
        "the only op in INT8, smooth_quant alpha=0.5, equalization, calibrated on 100 samples"
    )
    plain = QuantConfig({"a": INT8}, {"smooth_quant": "off", "equalization": False}, 10)
    assert "smooth" not in shown_config(plain, space)


@pytest.mark.parametrize(
    ("estimate", "samples", "said"),
    [
        (0.98864213, 57, "about 0.99"),
        (0.98864213, 4000, "about 0.989"),
        (0.5, 57, "about 0.50"),
        (1.0, 10, "about 1.00"),
        (0.0, 64, "about 0.00"),
        (-3.14159, 64, "about -3.1"),
        (2314.159, 64, "about 2300"),
        (12.3456, 5000, "about 12.3"),
        (None, 5, "unknown"),
        (math.nan, 5, "unknown"),
    ],
)
def test_an_estimate_has_no_more_digits_than_its_samples_can_tell(
    estimate: float | None, samples: int, said: str
) -> None:
    assert rounded_estimate(estimate, samples) == said


@pytest.mark.parametrize("samples", [8, 57, 64, 500, 10_000])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
def test_the_last_digit_of_a_share_is_no_smaller_than_a_tenth_of_its_error(
    samples: int, share: float
) -> None:
    error = math.sqrt(share * (1 - share) / samples)
    digits = len(rounded_estimate(share, samples).partition(".")[2])
    assert 10.0**-digits >= error / 10


@pytest.mark.parametrize(
    ("low", "high", "threshold", "said"),
    [
        (0.8512, 0.9749, None, "0.85 to 0.98"),
        (0.97512, 0.97549, None, "0.97512 to 0.97549"),
        (-math.inf, 0.9749, None, "at most 0.975"),
        (0.9741, math.inf, None, "at least 0.974"),
        # Rounded to 0.98 it would not be below.
        (0.8512, 0.9749, 0.98, "0.851 to 0.975"),
        (-math.inf, 0.97951, 0.9796, "at most 0.97951"),
        (0.5, 0.5, None, "0.500"),
    ],
)
def test_intervals_are_rounded_outwards(
    low: float, high: float, threshold: float | None, said: str
) -> None:
    assert shown_interval_of(low, high, threshold) == said


def evidence(**given: object) -> Evidence:
    usual: dict[str, object] = {"samples": 64, "of": 899, "decision": "fails", "estimate": 0.9}
    return Evidence(**(usual | given))  # type: ignore[arg-type]


def test_the_bound_on_the_side_that_is_missed_is_shown() -> None:
    assert shown_bound(evidence(bounds=(0.1, 0.95)), 0.98) == "at most 0.950"
    # Where lower is better.
    assert shown_bound(evidence(bounds=(0.2, math.inf)), 0.1) == "at least 0.200"
    assert shown_bound(evidence(bounds=(0.1, 0.99)), 0.98) == "about 0.90"


def test_how_sure_it_is() -> None:
    assert shown_sureness(evidence(error_probability=0.001)) == "99.9% sure"
    assert shown_sureness(evidence(error_probability=1e-5)) == "99.999% sure"
    assert shown_sureness(evidence(error_probability=0.0)) == "certain"
    assert shown_sureness(evidence()) == ""


def test_a_configuration_that_is_tried_again_is_described_by_its_trial() -> None:
    backend, criterion = FakeBackend({"a": 0.0, "b": 0.3}), AccuracyCriterion(tolerable_loss=0.1)
    space = backend.tuning_space()
    default = space.default()
    objective = QuantObjective(backend, space, lambda model: model.accuracy, criterion)
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    for each in (space.fp32(), default, default.with_fallback("b"), default):
        study.enqueue_trial(space.params_of(each))
    study.optimize(objective, n_trials=4)
    than = reference_for(study, study.trials, 3, ExitPolicy(criterion))
    assert than is not None
    assert than.number == 1  # And not the best so far, 2.
