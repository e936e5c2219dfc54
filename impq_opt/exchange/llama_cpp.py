"""llama.cpp: a file for ``llama-quantize --tensor-type-file``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from impq_opt.documents.reading import read_text
from impq_opt.errors import AllocationError, FileError
from impq_opt.exchange.base import Precision, Writer, need
from impq_opt.exchange.choice import Chooser, Said, first_rules
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["LlamaCpp"]

# Block sizes and bytes a block of ggml's types (ggml-common.h): scales, minima and codebooks included.
_TYPES = (
    # name, nominal bits, elements of a block, bytes of a block
    ("q2_k", 2, 256, 84),
    ("iq2_s", 2, 256, 82),
    ("iq2_xs", 2, 256, 74),
    ("iq2_xxs", 2, 256, 66),
    ("q3_k", 3, 256, 110),
    ("iq3_s", 3, 256, 110),
    ("iq3_xxs", 3, 256, 98),
    ("q4_k", 4, 256, 144),
    ("iq4_xs", 4, 256, 136),
    ("q4_0", 4, 32, 18),
    ("q4_1", 4, 32, 20),
    ("iq4_nl", 4, 32, 18),
    ("q5_k", 5, 256, 176),
    ("q5_0", 5, 32, 22),
    ("q5_1", 5, 32, 24),
    ("q6_k", 6, 256, 210),
    ("q8_0", 8, 32, 34),
    ("bf16", 16, 1, 2),
    ("f16", 16, 1, 2),
    ("f32", 32, 1, 4),
)

# Names of Llama-like models in Hugging Face's form, and in GGUF's (gguf-py/gguf/tensor_mapping.py).
_BLOCK = re.compile(r"^(?:model\.)?layers\.(\d+)\.(.+)$")
_IN_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "lm_head": "output"}
_GGUF = re.compile(r"^(blk\.\d+\.[a-z0-9_]+|token_embd|output)$")


@dataclass(frozen=True)
class LlamaCpp(Writer, Chooser):
    r"""One line a tensor, ``^blk\.0\.attn_q\.weight$=q4_k``: a regular expression, and the first that matches wins.

    What llama.cpp chose is read from such a file, or from a quantized ``.gguf``.
    """

    name: ClassVar[str] = "llama.cpp"
    ending: ClassVar[str] = ".txt"
    summary: ClassVar[str] = "tensor types for llama-quantize --tensor-type-file"
    source: ClassVar[str] = "https://github.com/ggml-org/llama.cpp/tree/master/tools/quantize"
    limits: ClassVar[str] = "one type a tensor, weights only, rows a multiple of the block (256 for k-quants)"

    def precisions(self) -> tuple[Precision, ...]:
        return tuple(Precision(name, bits, name, block, size * 8 - bits * block) for name, bits, block, size in _TYPES)

    def config(self, allocation: Allocation) -> dict[str, str]:
        """Return tensor name (GGUF) to type."""
        return {gguf_name(layer.name): layer.weight.entry for layer in self.layers(allocation)}

    def dump(self, allocation: Allocation) -> bytes:
        lines = [f"^{re.escape(name)}$={kind}\n" for name, kind in self.config(allocation).items()]
        return "".join(lines).encode()

    def load_choice(self, path: Path) -> list[tuple[str, str]]:
        """Return rules, an expression and a type each, from a tensor-type file or the tensors of a ``.gguf``.

        Raises
        ------
        FileError
            What is neither.
        MissingPackageError
            Where a ``.gguf`` is given and gguf is not installed.
        """
        if path.suffix.casefold() == ".gguf":
            return _tensors(path)
        rules = []
        for number, entry in enumerate(read_text(path, "a tensor-type file").split(), 1):
            expression, equals, kind = entry.rpartition("=")
            if not (equals and expression and kind):
                raise FileError("must be TENSOR=TYPE", where=f"{path}: entry {number}", value=entry)
            rules.append((expression, kind))
        return rules

    def choice(self, configuration: Sequence[tuple[str, str]], problem: Problem) -> Mapping[str, Said]:
        tensors = {layer: gguf_name(layer) for layer in dict.fromkeys(problem.names.layers)}
        found = first_rules(configuration, tensors.values(), anchored=False, where="tensor types")
        return {layer: (found[tensor],) for layer, tensor in tensors.items() if tensor in found}


def _tensors(path: Path) -> list[tuple[str, str]]:
    reader = need("gguf", "the tensors of a .gguf file", "gguf")
    if not path.is_file():
        raise FileError("there is no such file", where=str(path))
    try:
        tensors = reader.GGUFReader(path).tensors
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise FileError("is not GGUF, or not whole", where=str(path)) from error
    return [(f"^{re.escape(tensor.name)}$", tensor.tensor_type.name) for tensor in tensors]


def gguf_name(layer: str) -> str:
    """Return the GGUF tensor that holds the weights of ``layer``, named by GGUF or by Hugging Face.

    Raises
    ------
    AllocationError
        Where llama.cpp is not known to have such a tensor.
    """
    stem = layer.removesuffix(".weight")
    block = _BLOCK.match(stem)
    if block and block[2] in _IN_BLOCK:
        return f"blk.{block[1]}.{_IN_BLOCK[block[2]]}.weight"
    stem = _OUTSIDE.get(stem, stem)
    if not _GGUF.match(stem):
        raise AllocationError(
            "is not a name that llama.cpp is known to give a tensor",
            where=layer,
            hint="name the groups as the GGUF file does, such as blk.0.attn_q.weight",
        )
    return f"{stem}.weight"
