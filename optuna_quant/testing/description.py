"""What a backend says of itself and its model must be so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import HasConstantInputs
from optuna_quant.backends.base import HasFileEndings
from optuna_quant.backends.base import HasGraph
from optuna_quant.backends.base import NamesOriginal
from optuna_quant.backends.base import NamesSizes
from optuna_quant.backends.base import ReadsFiles
from optuna_quant.backends.base import SimulatesTarget
from optuna_quant.backends.base import TellsLeftOut
from optuna_quant.backends.base import TellsMissingRanges
from optuna_quant.backends.base import TellsOtherRecipes
from optuna_quant.backends.base import TracesOutputs
from optuna_quant.backends.base import WeighsFloats
from optuna_quant.space.left_out import LeftOut
from optuna_quant.testing.fixtures import BackendFixtures


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace


def _is_name(text: object) -> bool:
    """Whether it can stand in a sentence."""
    return isinstance(text, str) and bool(text) and text == text.strip() and "\n" not in text


class DescriptionTests(BackendFixtures):
    """Tests of what a backend may tell on top. What it does not tell is skipped."""

    def test_files_are_there(self, backend: Backend) -> None:
        if not isinstance(backend, ReadsFiles):
            pytest.skip("The backend names no files.")
        for what, path in backend.files.items():
            assert path.exists(), what

    def test_constant_inputs_have_names(self, backend: Backend) -> None:
        if not isinstance(backend, HasConstantInputs):
            pytest.skip("The backend has no constant inputs.")
        assert all(isinstance(name, str) for name in backend.inputs)

    def test_ops_lead_to_outputs(self, backend: Backend, space: TuningSpace) -> None:
        if not isinstance(backend, TracesOutputs):
            pytest.skip("The backend does not trace outputs.")
        known = backend.quantize(space.fp32()).outputs
        ops = [op for tunable in space.tunables for op in tunable.ops]
        found = set(backend.outputs_behind(ops))
        assert found, "No output depends on the ops of the space, so they cannot matter."
        assert found <= set(known), f"There is no such output: {found - set(known)}."
        assert not backend.outputs_behind([]), "No output depends on no op."

    def test_the_graph_has_the_ops(self, backend: Backend) -> None:
        if not isinstance(backend, HasGraph):
            pytest.skip("The backend does not know the graph of its model.")
        nodes = backend.graph_nodes()
        places = {node.name: place for place, node in enumerate(nodes)}
        assert len(places) == len(nodes), "Each node must have a name of its own."
        ops = {op.name for op in backend.capability().ops}
        assert ops <= places.keys(), f"The graph lacks ops: {ops - places.keys()}."
        for node in nodes:
            assert all(places[name] < places[node.name] for name in node.inputs), (
                f"{node.name!r} must come after what it reads."
            )

    def test_less_stays_in_floats_when_ops_are_quantized(
        self, backend: Backend, space: TuningSpace
    ) -> None:
        if not isinstance(backend, WeighsFloats):
            pytest.skip("The backend does not weigh what stays in floats.")
        fp32, quantized = (backend.float_weights(c) for c in (space.fp32(), space.default()))
        assert 0 <= quantized.nbytes <= fp32.nbytes <= fp32.model_bytes == quantized.model_bytes

    def test_the_original_has_a_name(
        self, backend: Backend, make_backend: Callable[[], Backend]
    ) -> None:
        other = make_backend()
        if not isinstance(backend, NamesOriginal) or not isinstance(other, NamesOriginal):
            pytest.skip("The backend does not name the model with nothing quantized.")
        name = backend.original
        assert _is_name(name), f"original must be a name for people, not {name!r}."
        assert name == other.original, "original must be the same in every process."

    def test_what_sizes_are_of_has_a_name(self, backend: Backend) -> None:
        if not isinstance(backend, NamesSizes):
            pytest.skip("The backend does not name what sizes are of.")
        name = backend.sizes_are_of
        assert _is_name(name), f"sizes_are_of must be what sizes are of, not {name!r}."
        assert not name.startswith("of "), (
            f"The summary writes '12 kB of {name}': sizes_are_of must not begin with 'of'."
        )

    def test_the_simulated_target_has_a_name(
        self, backend: Backend, make_backend: Callable[[], Backend]
    ) -> None:
        other = make_backend()
        if not isinstance(backend, SimulatesTarget) or not isinstance(other, SimulatesTarget):
            pytest.skip("The backend simulates no other device.")
        name = backend.simulated_target
        assert name is None or _is_name(name), (
            f"simulated_target must be the name of a device or None, not {name!r}."
        )
        assert name == other.simulated_target, "It must be the same in every process."

    def test_models_are_saved_under_their_usual_endings(
        self, backend: Backend, space: TuningSpace, tmp_path: Path
    ) -> None:
        if not isinstance(backend, HasFileEndings):
            pytest.skip("The backend names no endings of files.")
        endings = backend.file_endings
        assert not isinstance(endings, str), (
            f"file_endings must be a sequence of endings, not the string {endings!r}."
        )
        wrong = [each for each in endings if not each.startswith(".") or set("/\\") & set(each)]
        assert not wrong, f"Endings of files begin with a dot: {wrong}."
        model = backend.quantize(space.fp32())
        for ending in endings:
            model.save(tmp_path / f"model{ending}")
            assert (tmp_path / f"model{ending}").stat().st_size > 0

    def test_ops_that_are_left_out_are_told(self, backend: Backend, space: TuningSpace) -> None:
        if not isinstance(backend, TellsLeftOut):
            pytest.skip("The backend does not tell what a tuning space leaves out.")
        narrowed = backend.tuning_space(op_types=[space.tunables[0].op_type])
        fewer = replace(space, tunables=space.tunables[1:])
        known = {op.name: place for place, op in enumerate(backend.capability().ops)}
        for asked in (space, narrowed, fewer):
            found = backend.ops_left_out(asked)
            assert all(isinstance(each, LeftOut) for each in found)
            names = [each.op for each in found]
            assert len(set(names)) == len(names), f"An op is left out twice: {names}."
            inside = {op for tunable in asked.tunables for op in tunable.ops}
            assert inside.isdisjoint(names), (
                f"These ops are in the tuning space: {sorted(inside & set(names))}."
            )
            default = {op for tunable in space.tunables for op in tunable.ops}
            missing = default - inside - set(names)
            assert not missing, f"These ops are left out as well: {sorted(missing)}."
            places = [known[name] for name in names if name in known]
            assert places == sorted(places), "They must be in the order of the model."
            assert all(_is_name(each.reason) for each in found), "Each must have a reason."
            assert all(each.weight_bytes >= 0 for each in found)

    def test_ops_without_a_range_have_a_reason(self, backend: Backend, space: TuningSpace) -> None:
        if not isinstance(backend, TellsMissingRanges):
            pytest.skip("The backend does not tell which ops have no range.")
        backend.quantize(space.default())
        found = backend.missing_ranges()
        unknown = sorted(found.keys() - {op.name for op in backend.capability().ops})
        assert not unknown, f"The model has no such ops: {unknown}."
        assert all(_is_name(each.reason) for each in found.values()), "Each must have a reason."

    def test_other_recipes_are_others(self, backend: Backend, space: TuningSpace) -> None:
        if not isinstance(backend, TellsOtherRecipes):
            pytest.skip("The backend does not know of recipes that it was not asked for.")
        names = list(backend.other_recipes())
        assert all(_is_name(name) for name in names), f"These must be names: {names}."
        assert len(set(names)) == len(names)
        tuned = {name for name, values in space.recipes.items() if len(values) > 1}
        assert tuned.isdisjoint(names), (
            f"These recipes are in the tuning space: {sorted(tuned & set(names))}."
        )
