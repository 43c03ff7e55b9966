"""The language model of the benchmarks is one: against plain NumPy, and with what came before."""

from __future__ import annotations

from pathlib import Path
import sys

import numpy as np
import onnx
import onnxruntime
import pytest


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.language.decoder import DecoderShape
from benchmarks.language.decoder import write_decoder
from benchmarks.language.perplexity import perplexity
from benchmarks.language.text import CALIBRATED
from benchmarks.language.text import EVALUATED
from benchmarks.language.text import docstrings
from benchmarks.language.tokenizer import Tokenizer


SHAPE = DecoderShape(
    layers=2, width=24, hidden=40, heads=6, kv_heads=2, vocabulary=50, rope_base=100.0
)
TOKENS = np.random.default_rng(0).integers(0, SHAPE.vocabulary, (2, 9))


class _Weights(dict[str, np.ndarray]):
    def __call__(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng(len(self))
        self[name] = (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
        return self[name]


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "with past"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, _Weights]:
    weights = _Weights()
    folder = tmp_path_factory.mktemp("decoder")
    return write_decoder(folder, SHAPE, weights, with_past=request.param), weights


def _past(length: int) -> dict[str, np.ndarray]:
    empty = np.zeros((len(TOKENS), SHAPE.kv_heads, length, SHAPE.head_width), np.float32)
    names = [f"past_{kind}.{i}" for i in range(SHAPE.layers) for kind in ("key", "value")]
    return dict.fromkeys(names, empty)


def _run(path: Path, tokens: np.ndarray, past: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    names = {value.name for value in session.get_inputs()}
    feed = {name: value for name, value in past.items() if name in names}
    return list(session.run(None, {"tokens": tokens, **feed}))


def _reference(weights: _Weights, tokens: np.ndarray) -> np.ndarray:
    """The same in plain NumPy, a token at a time."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + SHAPE.epsilon) * weights[name]

    def turned(x: np.ndarray) -> np.ndarray:
        """Heads of shape ``(length, head_width)``, as complex numbers."""
        half = SHAPE.head_width // 2
        angles = np.outer(np.arange(len(x)), SHAPE.rope_base ** (-np.arange(half) / half))
        found = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
        return np.concatenate([found.real, found.imag], axis=1)

    def attention(x: np.ndarray, name: str) -> np.ndarray:
        width, group = SHAPE.head_width, SHAPE.heads // SHAPE.kv_heads
        query, key, value = (x @ weights[f"{name}.{p}"].T for p in ("query", "key", "value"))
        found = np.zeros_like(query)
        for head in range(SHAPE.heads):
            own = slice(head * width, (head + 1) * width)
            shared = slice(head // group * width, (head // group + 1) * width)
            scores = turned(query[:, own]) @ turned(key[:, shared]).T / width**0.5
            for place in range(len(x)):
                seen = np.exp(scores[place, : place + 1])
                found[place, own] = seen / seen.sum() @ value[: place + 1, shared]
        return found @ weights[f"{name}.output"].T

    def feed_forward(x: np.ndarray, name: str) -> np.ndarray:
        gate = x @ weights[f"{name}.gate"].T
        hidden = gate / (1 + np.exp(-gate)) * (x @ weights[f"{name}.up"].T)
        return hidden @ weights[f"{name}.down"].T

    h = weights["embedding"][tokens].astype(np.float64)
    for i in range(SHAPE.layers):
        h = h + attention(norm(h, f"layers.{i}.attention_norm"), f"layers.{i}.attention")
        h = h + feed_forward(norm(h, f"layers.{i}.feed_forward_norm"), f"layers.{i}.feed_forward")
    return norm(h, "norm") @ weights["embedding"].T


def test_decoder_computes_what_plain_numpy_does(model: tuple[Path, _Weights]) -> None:
    path, weights = model
    onnx.checker.check_model(str(path))
    (logits, *_) = _run(path, TOKENS, _past(0))
    expected = [_reference(weights, each) for each in TOKENS]
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("model", [True], ids=["with past"], indirect=True)
def test_token_after_what_came_before_is_as_in_the_whole(model: tuple[Path, _Weights]) -> None:
    path, _ = model
    whole, *_ = _run(path, TOKENS, _past(0))
    _, *seen = _run(path, TOKENS[:, :-1], _past(0))
    names = list(_past(0))
    last, *_ = _run(path, TOKENS[:, -1:], dict(zip(names, seen, strict=True)))
    np.testing.assert_allclose(last[:, 0], whole[:, -1], atol=2e-5)


def test_parameters_are_counted(model: tuple[Path, _Weights]) -> None:
    _, weights = model
    assert sum(each.size for each in weights.values()) == SHAPE.parameters


def test_perplexity_of_a_guess_is_the_vocabulary() -> None:
    class Guesses:
        def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.full((*feed["tokens"].shape, 50), 3.0, np.float32)]

    assert perplexity(Guesses(), [TOKENS[:1], TOKENS[1:, :4]]) == pytest.approx(50)


MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "o r")
LETTERS = [chr(value) for value in range(33, 127)] + ["Ġ", "Ċ", "Ã", "¶"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hello world", ["hello", "Ġw", "or", "l", "d"]),
        ("  hell 12", ["Ġ", "Ġ", "hell", "Ġ", "1", "2"]),
        ("he'll\n\n", ["he", "'", "ll", "Ċ", "Ċ"]),
        ("wö_", ["w", "Ã", "¶", "_"]),
    ],
)
def test_tokens_of_a_text(text: str, parts: list[str]) -> None:
    vocabulary = LETTERS + [merge.replace(" ", "") for merge in MERGES]
    tokenizer = Tokenizer(vocabulary, MERGES)
    numbers = tokenizer.encode(text)
    assert [vocabulary[number] for number in numbers] == parts
    assert tokenizer.decode(numbers) == text


@pytest.mark.parametrize("module", [*EVALUATED, *CALIBRATED])
def test_text_is_there(module: str) -> None:
    assert len(docstrings(module)) > 1000
