"""What the plots of predicted costs and of the model's graph show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
import optuna
import plotted_studies
from plotted_studies import GraphBackend
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs.study_costs import recorded_costs
from optuna_quant.study import record
from optuna_quant.study.blobs import write_text
from optuna_quant.tuning.recorded_outcome import recorded_outcome
from optuna_quant.visualization._cost_prediction import _Compared
from optuna_quant.visualization._cost_prediction import _get_cost_prediction_info
from optuna_quant.visualization._model_graph import _get_model_graph_info
from optuna_quant.visualization._model_graph import title_of
from optuna_quant.visualization._options import BITS_4 as FOUR
from optuna_quant.visualization._options import FLOAT16
from optuna_quant.visualization._options import FP32
from optuna_quant.visualization._options import STATIC_8


def test_cost_prediction_of_time(study: optuna.Study) -> None:
    info = _get_cost_prediction_info(study)
    assert info.models == [
        _Compared("model 0", 1e-3, 1.1e-3),
        _Compared("model 1", 2e-3, 1.9e-3),
        _Compared("model 2", 3e-3, 3.2e-3),
    ]
    assert (info.noise, info.rank_correlation) == (1e-4, 1.0)
    assert info.unit.title == "Time of a run (ms)"


def test_cost_prediction_of_size(study: optuna.Study) -> None:
    info = _get_cost_prediction_info(study, measure="size")
    assert info.models == [
        _Compared("trial 0", 4000.0, 4000.0),
        _Compared("trial 1", 3850.0, 1000.0),
        _Compared("trial 2", 3900.0, 1900.0),
        _Compared("trial 4", 3900.0, 1800.0),
    ]
    assert info.unit.title == "Size of the model (kB)"


def test_cost_prediction_of_what_is_not_kept() -> None:
    study, space = plotted_studies.hand_made()
    plotted_studies.add(study, space, space.default(), metric=0.9)
    with pytest.raises(ValueError, match="keeps no table of the measure 'size'.*objective='size'"):
        _get_cost_prediction_info(study)
    plotted_studies.keep_costs(study, space, quantized={"op0": 0.5, "op1": 0.5, "op2": 0.5})
    with pytest.raises(ValueError, match="keeps no times of whole models"):
        _get_cost_prediction_info(study, measure="latency")
    with pytest.raises(ValueError, match="measure must be 'latency' or 'size'.*'ops'"):
        _get_cost_prediction_info(study, measure="ops")


def test_given_costs_go_before_measured_ones() -> None:
    study, space = plotted_studies.hand_made()
    assert recorded_costs(study) is None
    plotted_studies.keep_costs(study, space, quantized={"op0": 0.5, "op1": 0.5, "op2": 0.5})
    measured = recorded_costs(study)
    assert measured is not None
    assert not measured.is_given
    costs = Costs({"size": CostTable("size", "bytes", {"op0": {"fp32": 1.0}})})
    write_text(study, f"{record.GIVEN_COSTS}:{'1' * 32}", costs.dumps())
    given = recorded_costs(study)
    assert given is not None
    assert given.is_given
    assert list(given.tables) == ["size"]


def test_model_graph(study: optuna.Study) -> None:
    info = _get_model_graph_info(study, GraphBackend(["op0", "op1", "op2"]))
    assert info.trial == 2
    assert title_of(info) == "Model of trial 2: 2 of 3 ops quantized"
    assert [(c.op, c.op_type, c.precision, c.x, c.y) for c in info.cells] == [
        ("op0", "Conv", FP32, 0.0, 0.0),
        ("op1", "Conv", STATIC_8, 0.0, 1.0),
        ("op2", "Conv", STATIC_8, 0.0, 2.0),
    ]
    assert info.edges == [(0.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 2.0)]
    assert [label.text for label in info.labels] == ["op0", "op1", "op2"]
    assert info.joins == []
    other = _get_model_graph_info(study, GraphBackend(["op0", "op1", "op2"]), trial=3)
    assert [cell.precision for cell in other.cells] == [FLOAT16, FOUR, STATIC_8]


def test_the_graph_counts_ops_that_were_left_out_of_the_search() -> None:
    study = plotted_studies.searched()
    write_text(study, f"{record.LEFT_OUT}:quant", '["op3"]')
    info = _get_model_graph_info(study, GraphBackend(["op0", "op1", "op2", "op3"]))
    assert title_of(info) == "Model of trial 2: 2 of 4 ops quantized"


class CallsItsGraph(FakeBackend):
    """A backend that knows the graph of its model."""

    def graph_nodes(self) -> list[Any]:
        return list(GraphBackend(["a", "b", "c"]).graph_nodes())


def test_a_result_knows_its_model_and_its_trial() -> None:
    result = tune(
        backend=CallsItsGraph({"a": 0.2, "b": 0.0, "c": 0.3}),
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.1),
        show_progress=False,
    )
    info = _get_model_graph_info(result)
    assert result.trial is not None
    assert info.trial == result.trial.number
    assert [cell.op for cell in info.cells] == ["a", "b", "c"]
    loose = result.choose(tolerable_loss=0.9)
    assert loose.trial is not None
    assert _get_model_graph_info(loose).trial == loose.trial.number != result.trial.number
    for without in (result.study, recorded_outcome(result.study)):
        with pytest.raises(ValueError, match="model: a study does not hold the model"):
            _get_model_graph_info(without)


def test_bad_models(study: optuna.Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model: it does not have 3 of the 3 ops .*'op0'"):
        _get_model_graph_info(study, GraphBackend(["x"]))
    with pytest.raises(ValueError, match=r"model: it does not have 1 of the 3 ops .*'op1'"):
        _get_model_graph_info(study, GraphBackend(["op0", "op2", "x"]))
    with pytest.raises(FileNotFoundError, match="model: there is no file"):
        _get_model_graph_info(study, tmp_path / "none.onnx")

    class WithoutGraph:
        def tuning_space(self) -> None: ...

    with pytest.raises(ValueError, match="WithoutGraph does not know the graph"):
        _get_model_graph_info(study, WithoutGraph())
