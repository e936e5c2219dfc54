"""llama.cpp: a file for ``llama-quantize --tensor-type-file``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from impq_opt.documents.reading import read_text
from impq_opt.encodings.gguf import GGUF_TYPES
from impq_opt.errors import AllocationError, FileError
from impq_opt.exchange.base import Precision, Writer
from impq_opt.exchange.choice import Chooser, Said, first_rules
from impq_opt.exchange.gguf_model import gguf_reader
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["LlamaCpp"]

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
        return tuple(
            Precision(kind.name, kind.nominal, kind.name, kind.block, kind.block_bits - kind.nominal * kind.block)
            for kind in GGUF_TYPES
        )

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
    tensors = gguf_reader(path).tensors
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
