"""The default strategy where ops lose all in a 16-bit float mode that looks as good as FP32."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import optuna
import pytest
from samplers.simulated import CRITERION
from samplers.simulated import met
from samplers.simulated import searched
from spaces import STATIC
from spaces import evaluated
from spaces import make_space

from optuna_quant.costs import CostTable
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers._models.earlier_study import study_prior
from optuna_quant.samplers._models.op_sensitivities import floats_of_16_bits
from optuna_quant.samplers._models.op_sensitivities import sensitivity_matrix
from optuna_quant.samplers._models.prior_in_space import PriorInSpace
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.tunable import Tunable
from optuna_quant.study import record


BF16, FP16 = OpConfig("bf16"), OpConfig("fp16")
CUDA, OPENVINO_GPU = (STATIC, BF16, FP16, FP32), (STATIC, FP16, FP32)
# Activation times weight.
BITS = {STATIC: 8 * 8, BF16: 16 * 16, FP16: 16 * 16, FP32: 32 * 32}
SCORED = pytest.mark.parametrize("scored", [True, False], ids=["scored", "unscored"])


class Model:
    """A model some of whose ops lose 0.3 in INT8 and in some modes of 16 bits.

    Args:
        options:
            The options of each op.
        bad:
            For each of those ops, the modes of 16 bits in which it loses that.
        ops:
            How many ops there are.
        seed:
            Of which ops those are, and of what the others lose and cost.
    """

    def __init__(
        self,
        options: Sequence[OpConfig],
        bad: Sequence[Sequence[OpConfig]],
        *,
        ops: int,
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.space = make_space(ops, options)
        names = list(self.space.default().ops)
        sizes = np.exp(rng.normal(0, 0.7, ops))
        lost = np.exp(rng.normal(0, 1, ops))
        lost *= 0.004 / lost.sum()
        self.losses = {
            name: {o.label: float(value) if o.is_quantized else 0.0 for o in options}
            for name, value in zip(names, lost, strict=True)
        }
        for i, modes in zip(rng.choice(ops, len(bad), replace=False), bad, strict=True):
            self.losses[names[i]] |= {o.label: 0.3 for o in (STATIC, *modes)}
        costs = {
            name: {o.label: float(size) * BITS[o] for o in options}
            for name, size in zip(names, sizes, strict=True)
        }
        self.table = CostTable("bit_operations", "", costs)
        off = np.exp(rng.normal(0, 0.5, ops))
        self.off = dict(zip(names, off.tolist(), strict=True))

    @property
    def least_cost(self) -> float:
        """That of each op in the cheapest option that loses little; together they meet."""
        return sum(
            min(cost for label, cost in costs.items() if self.losses[op][label] < 0.1)
            for op, costs in self.table.ops.items()
        )

    def metric(self, config: QuantConfig) -> float:
        lost = sum(self.losses[op][option.label] for op, option in config.ops.items())
        return 0.9 - min(lost, 0.85)

    def sensitivity(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        """Nothing is known of floats."""
        return {
            op: 3 * self.off[op] * self.losses[op][o.label] if o.is_quantized else 0.0
            for op in ops
            for o in [config.ops[op]]
        }

    def searched(self, *, scored: bool) -> optuna.Study:
        sampler = SurrogateQuantSampler(
            self.space,
            criterion=CRITERION,
            costs=self.table,
            sensitivity=self.sensitivity if scored else None,
        )
        return searched(sampler, self.metric)

    def trials_until_met(self, study: optuna.Study) -> int:
        """How many trials it took, the baseline's included, until the criterion was met."""
        first = met(study, self.space)[0]
        return [config.key for config in evaluated(study, self.space)].index(first.key) + 1

    def check(self, study: optuna.Study, most: int, excess: float) -> None:
        """The criterion is met within this number of trials, and at the end nearly for nothing."""
        assert self.trials_until_met(study) <= most
        cost = min(self.table.cost(config) for config in met(study, self.space))
        assert cost <= excess * self.least_cost


# An op in INT8 costs a quarter of one in 16 bits, and that a quarter of one in FP32.


@SCORED
@pytest.mark.parametrize(("ops", "seed"), [(10, 0), pytest.param(30, 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("options", "bad"),
    [(OPENVINO_GPU, [FP16]), (CUDA, [BF16]), (CUDA, [BF16, FP16])],
    ids=["openvino-gpu", "cuda", "cuda, both"],
)
def test_an_op_that_overflows_is_found_within_six_trials(
    options: Sequence[OpConfig], bad: Sequence[OpConfig], ops: int, seed: int, scored: bool
):
    model = Model(options, [bad], ops=ops, seed=seed)
    study = model.searched(scored=scored)
    model.check(study, 6, 1.01)
    assert len(study.trials) <= (8 if scored else 16)


@SCORED
@pytest.mark.parametrize(
    ("options", "bad"),
    [
        pytest.param(OPENVINO_GPU, [[FP16]] * 3, id="openvino-gpu", marks=pytest.mark.slow),
        pytest.param(CUDA, [[BF16]] * 3, id="cuda"),
        pytest.param(CUDA, [[BF16], [], [], []], id="cuda, one of four"),
    ],
)
def test_several_ops_that_overflow_are_found(
    options: Sequence[OpConfig], bad: Sequence[Sequence[OpConfig]], scored: bool
):
    model = Model(options, bad, ops=10, seed=1)
    model.check(model.searched(scored=scored), 6 if scored else 15, 1.3)


def test_an_op_that_is_harmed_by_nothing_but_integers_costs_no_further_trial():
    model = Model(CUDA, [[]], ops=16, seed=0)
    study = model.searched(scored=True)
    model.check(study, 3, 1.0)
    assert {o for c in evaluated(study, model.space) for o in c.ops.values()} <= {
        STATIC,
        BF16,
        FP32,
    }


def test_all_in_16_bits_is_not_tried_as_an_answer():
    model = Model(CUDA, [[BF16]] * 3, ops=10, seed=0)
    configs = evaluated(model.searched(scored=False), model.space)
    assert all(c.quantized_ops or c == model.space.fp32() for c in configs)


# What the model of the loss starts from.


def test_the_error_in_16_bits_is_a_part_of_that_in_the_default():
    tunables = [Tunable(name, "Conv", (name,), CUDA) for name in "ab"]
    scores = {"a": {STATIC.label: 0.5}, "b": {STATIC.label: 0.02}}
    found, is_scored = sensitivity_matrix(tunables, scores)
    assert is_scored
    np.testing.assert_allclose(found, [[0.5, 5e-3, 5e-3, 0], [0.02, 2e-4, 2e-4, 0]])
    assert floats_of_16_bits(tunables).tolist() == [[False, True, True, False]] * 2
    unscored, is_scored = sensitivity_matrix(tunables, {})
    assert not is_scored
    assert (unscored[:, 1] < unscored[:, 0]).all() and (
        unscored[:, 1] > 0.1 * unscored[:, 0]
    ).all()


def test_an_op_without_a_quantized_option_has_one_too():
    tunables = [
        Tunable("a", "Conv", ("a",), (STATIC, FP32)),
        Tunable("b", "Conv", ("b",), (BF16, FP32)),
    ]
    found, _ = sensitivity_matrix(tunables, {"a": {STATIC.label: 0.1}})
    assert found[0].tolist() == [0.1, 0.0]
    assert found[1, 0] > 0 and found[1, 1] == 0


def test_an_earlier_study_says_which_floats_its_ops_had():
    model = Model(CUDA, [[BF16]], ops=6, seed=0)
    study = model.searched(scored=True)
    study.set_user_attr(record.CRITERION, asdict(CRITERION))
    found = study_prior(study, same_model=True, same_evaluation=True)
    known = PriorInSpace(found, model.space, CRITERION, model.table)
    quantized = [config for config in evaluated(study, model.space) if config.quantized_ops]
    assert any(BF16 in config.ops.values() for config in quantized)
    assert all(known.has_seen(config, baseline=0.9) for config in quantized)
    assert known.failed == {c.key for c in quantized if model.metric(c) < 0.89}
