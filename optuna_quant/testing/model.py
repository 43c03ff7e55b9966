"""What the models of every backend must do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import copy
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import pytest

from optuna_quant.backends.base import HasNative
from optuna_quant.backends.base import HasOptionalInputs
from optuna_quant.backends.base import HasThreads
from optuna_quant.backends.base import MayDependOnBatch
from optuna_quant.backends.base import RunsConcurrently
from optuna_quant.backends.base import ShowsInputs
from optuna_quant.backends.base import depends_on_batch
from optuna_quant.data.inputs import InputSpec
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.same import are_close
from optuna_quant.testing.same import assert_same


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


def _free_batch(model: Model, feed: Feed) -> int | None:
    """How many samples a feed has, if a run may have any number of them."""
    sizes = set()
    for spec in model.inputs:
        if not spec.shape or isinstance(spec.shape[0], int):
            return None
        sizes.add(len(feed[spec.name]))
    return sizes.pop() if len(sizes) == 1 else None


class ModelTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.Model`, for each of a few configurations.

    What a model does not offer on top is skipped.
    """

    @pytest.fixture(params=["FP32", "default", "one op in FP32"])
    def model(
        self,
        request: pytest.FixtureRequest,
        backend: Backend,
        configs: Mapping[str, QuantConfig],
    ) -> Model:
        """The model of a configuration."""
        return backend.quantize(configs[request.param])

    @pytest.fixture
    def call_native(self) -> Callable[[Any, Feed], object] | None:
        """A function that calls the runtime's own object with a feed, as users do.

        Default: :obj:`None`, so that it is not tested that a model shows what it is called with.
        """
        return None

    def test_inputs_are_described(self, model: Model, feed: Feed) -> None:
        names = [spec.name for spec in model.inputs]
        assert all(isinstance(spec, InputSpec) for spec in model.inputs)
        assert len(set(names)) == len(names)
        assert set(names) <= feed.keys()

    def test_interface_is_that_of_fp32(
        self, model: Model, backend: Backend, space: TuningSpace
    ) -> None:
        fp32 = backend.quantize(space.fp32())
        assert list(model.inputs) == list(fp32.inputs)
        assert list(model.outputs) == list(fp32.outputs)

    def test_outputs_have_names(self, model: Model) -> None:
        assert not isinstance(model.outputs, str), (
            f"outputs must be a sequence of names, not the string {model.outputs!r}."
        )
        names = list(model.outputs)
        assert names
        assert all(isinstance(name, str) for name in names)
        assert len(set(names)) == len(names)

    def test_all_outputs_are_computed(self, model: Model, feed: Feed) -> None:
        assert len(model.run(feed)) == len(model.outputs)

    def test_models_of_all_options_run(
        self,
        backend: Backend,
        every_option: Mapping[str, QuantConfig],
        feed: Feed,
    ) -> None:
        expected = [np.asarray(y) for y in backend.quantize(every_option["FP32"]).run(feed)]
        for what, config in every_option.items():
            found = [np.asarray(y) for y in backend.quantize(config).run(feed)]
            shapes = [y.shape for y in found], [y.shape for y in expected]
            assert shapes[0] == shapes[1], f"{what}: the outputs have other shapes than in FP32."
            types = [y.dtype for y in found], [y.dtype for y in expected]
            assert types[0] == types[1], (
                f"{what}: the outputs have other types than in FP32: {types[0]}, not {types[1]}."
            )

    def test_samples_of_a_batch_have_no_influence_on_each_other(
        self,
        backend: Backend,
        every_option: Mapping[str, QuantConfig],
        feed: Feed,
    ) -> None:
        checked = 0
        for what, config in every_option.items():
            model = backend.quantize(config)
            batch = _free_batch(model, feed)
            if batch is None or depends_on_batch(model):
                continue
            whole = [np.asarray(y) for y in model.run(feed)]
            single = [
                model.run({name: x[i : i + 1] for name, x in feed.items()}) for i in range(batch)
            ]
            for k, y in enumerate(whole):
                if y.ndim and len(y) == batch and y.dtype.kind == "f":
                    parts = np.concatenate([np.asarray(each[k]) for each in single])
                    assert are_close(parts, y), (
                        f"{what}: a sample gives something else alone than in a batch, so "
                        "depends_on_batch must be True."
                    )
            checked += 1
        if not checked:
            pytest.skip("The models depend on the batch, or have one of a fixed size.")

    def test_chosen_outputs_are_computed_in_their_order(self, model: Model, feed: Feed) -> None:
        expected = dict(zip(model.outputs, model.run(feed), strict=True))
        backwards = list(expected)[::-1]
        assert_same(model.run(feed, backwards), [expected[name] for name in backwards])
        last = backwards[:1]
        assert_same(model.run(feed, last), [expected[name] for name in last])

    def test_runs_give_the_same_and_change_no_input(self, model: Model, feed: Feed) -> None:
        before = copy.deepcopy(dict(feed))
        assert_same(model.run(feed), model.run(feed))
        for name, value in before.items():
            np.testing.assert_array_equal(feed[name], value)

    def test_model_of_another_backend_gives_the_same(
        self,
        make_backend: Callable[[], Backend],
        configs: Mapping[str, QuantConfig],
        feed: Feed,
    ) -> None:
        one, other = (make_backend().quantize(configs["default"]) for _ in range(2))
        assert_same(one.run(feed), other.run(feed))

    def test_runs_at_the_same_time_give_the_same(self, model: Model, feed: Feed) -> None:
        expected = model.run(feed)
        shared = model.for_concurrent_runs(2) if isinstance(model, RunsConcurrently) else model
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(shared.run, [feed] * 4):
                assert_same(found, expected)

    def test_size_is_a_number_of_bytes(self, model: Model) -> None:
        kind = type(model.nbytes).__name__
        assert isinstance(model.nbytes, int), f"nbytes must be an int, not {kind}."
        assert model.nbytes > 0, f"nbytes must be positive, not {model.nbytes}."

    def test_it_is_saved(self, model: Model, tmp_path: Path) -> None:
        path, before = tmp_path / "model", b"what was there before"
        path.write_bytes(before)
        (tmp_path / "the same file").hardlink_to(path)
        model.save(path)
        saved = path.read_bytes()
        assert saved != before, (
            "Nothing was written to exactly this path (np.savez appends .npz): write to an "
            "io.BytesIO, and that with optuna_quant.backends.base.atomic_write."
        )
        assert (tmp_path / "the same file").read_bytes() == before, (
            "The file was written over, and not replaced as a whole: its readers meanwhile "
            "find a part of it. optuna_quant.backends.base.atomic_write does it right."
        )
        model.save(str(path))
        assert path.read_bytes() == saved

    def test_where_it_cannot_be_saved_is_an_error(self, model: Model, tmp_path: Path) -> None:
        with pytest.raises(OSError):
            model.save(tmp_path / "no such folder" / "model")

    def test_runtimes_own_object_is_there(self, model: Model) -> None:
        if not isinstance(model, HasNative):
            pytest.skip("The runtime has no object of its own.")
        assert model.native() is not None
        assert model.native() is model.native()

    def test_what_the_runtimes_own_object_is_called_with_is_shown(
        self,
        backend: Backend,
        configs: Mapping[str, QuantConfig],
        feed: Feed,
        call_native: Callable[[Any, Feed], object] | None,
    ) -> None:
        model = backend.quantize(configs["default"])
        if not isinstance(model, ShowsInputs) or not isinstance(model, HasNative):
            pytest.skip("The model does not show what it is called with.")
        if call_native is None:
            pytest.skip("The fixture call_native is not given.")
        shown: list[dict[str, NDArray[Any]]] = []

        def watch(given: Feed) -> None:
            shown.append({name: np.array(value) for name, value in given.items()})

        with model.showing_inputs(watch):
            call_native(model.native(), feed)
        assert len(shown) == 1, f"One call must be shown once, but was {len(shown)} times."
        assert shown[0].keys() == feed.keys(), (
            f"The call had {sorted(feed)}, but {sorted(shown[0])} was shown."
        )
        for name, value in shown[0].items():
            np.testing.assert_array_equal(value, feed[name])
        call_native(model.native(), feed)
        assert len(shown) == 1, "Calls are shown while the context lasts, and not after it."

    def test_it_tells_of_itself(self, model: Model) -> None:
        if isinstance(model, MayDependOnBatch):
            assert model.depends_on_batch in (True, False)
        if isinstance(model, HasThreads):
            assert model.threads >= 1
        if isinstance(model, HasOptionalInputs):
            needed = {spec.name for spec in model.inputs}
            assert needed.isdisjoint(spec.name for spec in model.optional_inputs)
