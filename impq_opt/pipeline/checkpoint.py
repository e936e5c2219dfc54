"""A quantized Hugging Face network as a folder that the target's own loader reads."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from impq_opt.documents.writing import atomic_write
from impq_opt.exchange import Writer
from impq_opt.networks.own import unwrapped
from impq_opt.problem.allocation import Allocation
from impq_opt.quantize import WeightQuantizer, quantized_weights, state_of

__all__ = ["save_checkpoint", "save_rounded"]

_BESIDE = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sentencepiece", "chat_template")
CONFIG, MODEL = "config.json", "model.safetensors"


def save_checkpoint(
    folder: Path, network: nn.Module, quantized: nn.Module, writer: Writer, allocation: Allocation
) -> str:
    """Write ``config.json`` and ``model.safetensors`` of a network that has a configuration as transformers' have.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    network : nn.Module
        In float.
    quantized : nn.Module
        The same with weights on the target's grid.
    writer : Writer
    allocation : Allocation

    Returns
    -------
    str
        Why nothing was written; "" where it was, or where there is nothing to write.
    """
    plain = unwrapped(network)
    described = getattr(getattr(plain, "config", None), "to_dict", None)
    if described is None or not writer.checkpoints:
        return ""
    state: dict[str, Tensor] = state_of(quantized, latent=False)
    for name, weight in quantized_weights(quantized).items():
        quantizer, latent = weight.quantizer, weight.latent
        if latent.ndim != 2 or not isinstance(quantizer, WeightQuantizer):
            return f"{writer.name} has no checkpoint for weights of {latent.ndim} dimensions: {name}"
        codes = quantizer.codes(latent).cpu().numpy().astype(np.int64)
        steps = quantizer.grid(quantizer.side(latent))[0].detach().reshape(len(latent), -1).cpu().numpy()
        parts = writer.checkpoint(name, int(quantizer.group_bits[0]), codes, steps)
        del state[name]
        state |= {part: _tensor(array, latent.dtype) for part, array in parts.items()}
    config = {"architectures": [type(plain).__name__]} | dict(described())
    config |= {"quantization_config": writer.config(allocation)}
    folder.mkdir(exist_ok=True)
    atomic_write(folder / CONFIG, json.dumps(config, indent=2, default=str).encode())
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    atomic_write(folder / MODEL, save(whole, {"format": "pt"}))
    return ""


def save_rounded(folder: Path, network: nn.Module, quantized: nn.Module) -> None:
    """Write a model of Hugging Face's with its weights as rounded, in the types it has, which transformers load.

    Its tokenizer and what else lies beside a model are copied from where it was read.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    network : nn.Module
        In float.
    quantized : nn.Module
    """
    rounded = copy.deepcopy(unwrapped(network))
    rounded.load_state_dict(state_of(quantized, latent=False))
    rounded.config.use_cache = True  # type: ignore[union-attr]
    rounded.save_pretrained(folder)  # type: ignore[operator]
    origin = Path(str(getattr(network, "name_or_path", "")))
    for file in sorted(origin.iterdir()) if str(origin) != "." and origin.is_dir() else ():
        if file.is_file() and file.name.startswith(_BESIDE) and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def _tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: torch.dtype) -> Tensor:
    """Return whole numbers as they are, others in the type of the network's weights."""
    tensor = torch.from_numpy(array)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
