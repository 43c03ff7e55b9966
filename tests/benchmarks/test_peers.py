"""The comparison with other tools: running one, counting what it runs, and the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import sys
from typing import Any

import numpy as np
import onnx
from onnx import helper
import onnxruntime
import pytest


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.inside.task import Task
from benchmarks.peers.inside.task import model_for_peer
from benchmarks.peers.inside.task import read_task
from benchmarks.peers.measure import integer_ops
from benchmarks.peers.measure import measure_quality
from benchmarks.peers.table import BEGIN
from benchmarks.peers.table import END
from benchmarks.peers.table import make_table
from benchmarks.peers.table import write_table
from benchmarks.peers.tasks import write_task
from benchmarks.peers.tools import Tool
from benchmarks.peers.tools import run_tool


SEARCH = """
import shutil
import onnxruntime

def search(task, way, path, counter):
    session = onnxruntime.InferenceSession(task.model)
    assert session.get_session_options().intra_op_num_threads == 1
    session.run(None, {task.input_name: task.calibration})
    for _ in range(3):
        with counter.evaluating():
            task.metric(session)
    if way == "crash":
        raise ValueError("no such op")
    if way == "hang":
        while True:
            pass
    shutil.copy(task.model, path)
    return {"note": way}
"""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Identity on three numbers: the largest one's place is the class."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="op")],
        "model",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "fp32.onnx")
    x = np.random.default_rng(0).random((10, 3), np.float32)
    labels = x.argmax(1)
    labels[:2] = (labels[:2] + 1) % 3
    return Task(
        name="case",
        model=str(tmp_path / "fp32.onnx"),
        input_name="x",
        batch_size=4,
        tolerable_loss=0.1,
        relative=False,
        transformer=False,
        calibration=x[:5],
        x=x,
        labels=labels,
    )


@pytest.fixture
def folder(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_task(task, tmp_path / "task")
    (tmp_path / "search_fake.py").write_text(SEARCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def outcome(folder: Path, way: str, timeout: float = 60.0) -> dict[str, Any]:
    tool = Tool("fake", "search_fake", way, None, ())
    return run_tool(tool, folder / "task", folder / "out", timeout=timeout)


def test_task_is_read_as_it_was_written(task: Task, tmp_path: Path) -> None:
    write_task(task, tmp_path / "task")
    read = read_task(tmp_path / "task")
    assert (read.model, read.tolerable_loss) == (task.model, task.tolerable_loss)
    np.testing.assert_array_equal(read.labels, task.labels)


def test_old_model_is_raised_for_peers_and_does_the_same(task: Task, tmp_path: Path) -> None:
    assert model_for_peer(task, tmp_path) == task.model
    old = onnx.load(task.model)
    old.opset_import[0].version = 11
    onnx.save(old, tmp_path / "old.onnx")
    raised = model_for_peer(replace(task, model=str(tmp_path / "old.onnx")), tmp_path)
    assert onnx.load(raised).opset_import[0].version == 13
    assert task.metric(onnxruntime.InferenceSession(raised)) == 0.8


def test_score_is_the_part_of_a_samples_labels(task: Task) -> None:
    outputs = np.eye(3)[[[0, 1], [2, 2]]]
    np.testing.assert_array_equal(task.scores(outputs, np.array([[0, 1], [2, 0]])), [1.0, 0.5])


def test_samples_are_counted_evaluations_apart(folder: Path) -> None:
    found = outcome(folder, "fine")
    assert found["status"] == "done"
    assert found["note"] == "fine"
    assert (found["sets"], found["other_sets"]) == (3.0, 0.5)
    assert (folder / "out" / "model.onnx").exists()


def test_crash_is_told_with_its_message(folder: Path) -> None:
    found = outcome(folder, "crash")
    assert (found["status"], found["message"]) == ("crash", "ValueError: no such op")
    assert found["sets"] == 3.0


def test_search_is_ended_after_its_time(folder: Path) -> None:
    found = outcome(folder, "hang", timeout=1.0)
    assert found["status"] == "timeout"
    assert found["sets"] == 3.0


def test_file_is_judged_on_all_samples(task: Task) -> None:
    found = measure_quality(task, Path(task.model))
    assert (found["metric"], found["loss"], found["met"]) == (0.8, 0.0, True)
    assert (found["integer"], found["ops"]) == (0, 1)


def test_integer_kernels_are_counted(task: Task, tmp_path: Path) -> None:
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(task.model, calibration_data={"x": task.calibration})
    backend.quantize(backend.tuning_space().default()).save(tmp_path / "int8.onnx")
    assert integer_ops(tmp_path / "int8.onnx") == (1, 1)


def test_table_has_a_row_for_each_result_and_tells_of_crashes() -> None:
    done = {
        "status": "done",
        "met": True,
        "loss": 0.0123,
        "relative": True,
        "sets": 3.04,
        "other_sets": 0.3,
        "integer": 2,
        "ops": 5,
        "ratio_1": 0.5,
        "ratio_32": 1.5,
        "bytes": 50,
        "fp32_bytes": 100,
        "cpu_seconds": 2.0,
    }
    crash = {"status": "crash", "message": "ValueError: no", "sets": 1.0, "cpu_seconds": 0.5}
    table = make_table({"b": {"t": done}, "a": {"u": crash}}, ["a", "b", "c"], ["t", "u"])
    lines = table.splitlines()
    assert lines[2] == "| a | u | crash |  | 1.0 |  |  |  |  |  | 0.5 |"
    assert lines[3] == "| b | t | yes | 1.23% | 3.0 | 0.3 | 2 of 5 | 0.50 | 1.50 | 0.50 | 2.0 |"
    assert lines[5:] == ["- a, u: crash: `ValueError: no`"]


def test_table_replaces_the_one_in_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_page_without_a_place_for_the_table_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"page\.md has no lines"):
        write_table(page, "new")
