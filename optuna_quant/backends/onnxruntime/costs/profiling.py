"""The runtime's own profile of a model: how long each node of the optimized graph takes."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
import json
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING
from typing import Any

import onnx

from optuna_quant.backends.onnxruntime.executed.optimized import changed_options
from optuna_quant.backends.onnxruntime.executed.optimized import weights_aside
from optuna_quant.backends.onnxruntime.model.session_maker import load_errors
from optuna_quant.costs.timing import quickest


if TYPE_CHECKING:
    import onnxruntime

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


_NODE_SUFFIX = "_kernel_time"


@dataclass(frozen=True, eq=False)
class Profile:
    """What a profile says.

    Args:
        runs:
            The seconds of each node in each run, by the node's name.
        providers:
            The provider of each node.
    """

    runs: Mapping[str, tuple[float, ...]]
    providers: Mapping[str, str]

    @cached_property
    def nodes(self) -> Mapping[str, float]:
        """The seconds of each node: the mean of its quickest runs.

        The profile counts in whole microseconds of elapsed time, with whatever else the machine
        did meanwhile. A mean tells parts of a microsecond, and the quickest runs are undisturbed.
        """
        return {name: quickest(times) for name, times in self.runs.items()}


class ProfiledModel:
    """A session that profiles itself until :meth:`finish`, and then runs on without.

    Args:
        model:
            The model.
        sessions:
            Makes the session.
        base_dir:
            The directory that the model's external data are relative to.

    Attributes:
        graph:
            The optimized graph; None if the runtime cannot show it.

    Raises:
        ModelLoadError:
            If the runtime does not load the model.
    """

    def __init__(
        self, model: onnx.ModelProto, sessions: SessionMaker, base_dir: Path | None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        path = folder / "optimized.onnx"
        size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        try:
            with load_errors(), sessions.lock, sessions.options_at_level():
                options = sessions.options_for(base_dir)
                profile = str(folder / "profile")
                with changed_options(options, weights_aside(size), str(path), profile=profile):
                    self.session: onnxruntime.InferenceSession = _load(model, options, sessions)
            self.graph = onnx.load(path, load_external_data=False).graph if path.exists() else None
        except BaseException:
            self._folder.cleanup()
            raise
        path.unlink(missing_ok=True)

    def run(self, feed: Feed) -> None:
        """Run once."""
        self.session.run(None, feed)

    def finish(self, skip: int) -> Profile:
        """End the profile and read it.

        Args:
            skip:
                How many runs at the start do not count.
        """
        path = Path(self.session.end_profiling())
        try:
            events = json.loads(path.read_bytes())
        finally:
            self._folder.cleanup()
        return read_profile(events, skip)


def _load(
    model: onnx.ModelProto, options: onnxruntime.SessionOptions, sessions: SessionMaker
) -> onnxruntime.InferenceSession:
    import onnxruntime

    content, providers = model.SerializeToString(), list(sessions.providers)
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception:
        # Either the model cannot be loaded, or its graph cannot be written.
        options.optimized_model_filepath = ""
        return onnxruntime.InferenceSession(content, options, providers=providers)


def read_profile(events: Iterable[Mapping[str, Any]], skip: int = 0) -> Profile:
    """The times of the nodes in a profile in Chrome's trace format.

    A node that runs several times in a run, in a loop, is summed up there.

    Args:
        events:
            The events of the trace.
        skip:
            How many runs at the start do not count.
    """
    runs: list[tuple[float, float]] = []
    nodes: list[tuple[float, str, float]] = []
    providers: dict[str, str] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_NODE_SUFFIX):
            name = name.removesuffix(_NODE_SUFFIX)
            nodes.append((float(event["ts"]), name, float(event["dur"])))
            providers[name] = str(event.get("args", {}).get("provider", ""))
        elif name == "model_run":
            start = float(event["ts"])
            runs.append((start, start + float(event["dur"])))
    runs = sorted(runs)[skip:]
    nodes.sort()
    times: dict[str, list[float]] = {}
    i = 0
    for number, (start, end) in enumerate(runs):
        while i < len(nodes) and nodes[i][0] < start:
            i += 1
        while i < len(nodes) and nodes[i][0] <= end:
            _, name, duration = nodes[i]
            mine = times.setdefault(name, [0.0] * len(runs))
            mine[number] += 1e-6 * duration
            i += 1
    return Profile({name: tuple(mine) for name, mine in times.items()}, providers)
