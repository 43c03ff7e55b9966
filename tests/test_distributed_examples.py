"""The examples with many workers run, and the files for containers say what the command takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import mpi
import pytest

from optuna_quant.cli.parser import command_parser


EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "distributed"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=mpi.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", mpi.LAUNCHERS)
def test_script_of_several_ranks(launcher: str, tmp_path: Path) -> None:
    done = run(*mpi.command(launcher, 2, [EXAMPLES / "mpi_script.py", "s.journal"]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rank 0 of 2:\nA quantized model meets the criterion.")
    assert done.stdout.count("criterion.\n") == 1
    assert (tmp_path / "digits.int8.onnx").exists()


@pytest.mark.slow
def test_dask_workers(tmp_path: Path) -> None:
    for module in ("distributed", "optuna_integration"):
        pytest.importorskip(module)
    done = run(sys.executable, EXAMPLES / "dask_workers.py", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "different answers: 1\nA quantized model meets the criterion." in done.stdout


def argument_lists() -> Iterator[tuple[str, list[str]]]:
    """The arguments of every container that runs our command."""
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    yield "compose.yaml", compose["services"]["worker"]["command"]
    for path in sorted((EXAMPLES / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            for container in containers(document):
                if "optuna-quant" in container["image"]:
                    yield path.name, container["args"]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    template = document.get("spec", {}).get("template", {})
    found: list[dict[str, Any]] = template.get("spec", {}).get("containers", [])
    return found


def test_containers_run_what_the_command_takes() -> None:
    lists = dict(argument_lists())
    assert set(lists) == {"compose.yaml", "workers.yaml", "grpc-proxy.yaml"}
    for arguments in lists.values():
        args = command_parser().parse_args(arguments)
        assert re.match(r"postgresql://optuna:.*@(db|optuna-db)/optuna$", args.storage)


def test_ranks_of_the_pods_are_as_many_as_there_are() -> None:
    yaml = pytest.importorskip("yaml")
    job, _ = yaml.safe_load_all((EXAMPLES / "kubernetes" / "workers.yaml").read_text())
    (worker,) = containers(job)
    (ranks,) = [each["value"] for each in worker["env"] if each["name"] == "OPTUNA_QUANT_RANKS"]
    assert int(ranks) == job["spec"]["completions"] == job["spec"]["parallelism"]
