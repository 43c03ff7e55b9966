"""The packages for OptunaHub, in the form of its registry."""

from __future__ import annotations

from pathlib import Path
import re
import runpy
from typing import Any

import pytest

from optuna_quant import samplers
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import strategies


REGISTRY = Path(__file__).resolve().parents[1] / "optunahub" / "package"
PACKAGES = ("samplers/accuracy_aware_quantization", "pruners/accuracy_criterion")
FIELDS = {"author", "title", "description", "tags", "optuna_versions", "license"}

optunahub = pytest.importorskip("optunahub")


def load(package: str) -> Any:
    return optunahub.load_local_module(package, registry_root=str(REGISTRY))


def test_all_packages_are_tested() -> None:
    assert {p.parent.relative_to(REGISTRY).as_posix() for p in REGISTRY.rglob("LICENSE")} == set(
        PACKAGES
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_the_form_of_the_registry(package: str) -> None:
    folder = REGISTRY / package
    assert (folder / "LICENSE").read_text().startswith("MIT License")
    readme = (folder / "README.md").read_text()
    front = readme.split("---")[1]
    assert {line.split(":")[0] for line in front.strip().splitlines()} == FIELDS
    tags = re.search(r"tags: \[(.*)\]", front)
    assert tags is not None and package.split("/")[0].rstrip("s") in tags[1].split(", ")
    for heading in ("Abstract", "APIs", "Installation", "Example"):
        assert f"\n## {heading}\n" in readme
    assert f'load_module(package="{package}")' in readme
    assert "<" not in re.sub(r"```.*?```", "", readme, flags=re.DOTALL)


def test_the_samplers_are_all_there_are() -> None:
    module = load(PACKAGES[0])
    public = {name for name in samplers.__all__ if name.endswith("QuantSampler")}
    assert set(module.__all__) == public - {"QuantSampler", "StagedQuantSampler"}
    ours = {kind for kind in strategies().values() if kind.__module__.startswith("optuna_quant.")}
    assert len(module.__all__) >= len(ours) - 1
    assert module.BasicQuantSampler is samplers.BasicQuantSampler


def test_the_pruner() -> None:
    assert load(PACKAGES[1]).AccuracyPruner is AccuracyPruner


@pytest.mark.parametrize(
    ("package", "printed"),
    [
        (PACKAGES[0], "in FP32: conv1, conv4\n"),
        (PACKAGES[1], "fp32 COMPLETE 4000\ngood COMPLETE 4000\nbad PRUNED"),
    ],
)
def test_the_examples_run(
    package: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(optunahub, "load_module", lambda package: load(package))
    runpy.run_path(str(REGISTRY / package / "example.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith(printed)
