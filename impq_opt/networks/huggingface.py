"""Models in folders of Hugging Face's: ``hf:FOLDER``. Nothing is downloaded, and no code of a folder is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from impq_opt.data.text import WINDOW, Tokens
from impq_opt.data.transformers import config_of, transformers_module
from impq_opt.errors import FileError, OptionError, first_line

__all__ = ["PREFIX", "embeddings", "folder_of", "is_huggingface", "load_huggingface", "tokens_of"]

PREFIX = "hf:"


def folder_of(name: str) -> Path | None:
    """Return the folder that ``hf:FOLDER`` names; None where it is another network."""
    return Path(name.removeprefix(PREFIX)).expanduser() if name.startswith(PREFIX) else None


def load_huggingface(folder: Path) -> nn.Module:
    """Return the model of a folder in eval mode, its parameters in the types that they have there.

    A causal or masked language model, a classifier, or an encoder without a head, as its configuration says; without a
    cache of keys and values, and without a pooler that nothing reads.

    Raises
    ------
    FileError
        A folder that holds no such model, or weights that are missing, cut or of another one.
    MissingPackageError
        transformers is not installed.
    """
    config = config_of(folder)
    kind = _class(config, folder)
    options: dict[str, Any] = {"config": config, "local_files_only": True, "dtype": "auto", "output_loading_info": True}
    build = getattr(transformers_module(), kind).from_pretrained
    try:
        try:
            network, told = build(folder, **options, **({"add_pooling_layer": False} if kind == "AutoModel" else {}))
        except TypeError:
            network, told = build(folder, **options)
    except Exception as error:  # transformers and safetensors raise many kinds
        raise FileError(
            "has weights that cannot be read", where=f"hf:{folder}", value=first_line(error),
            hint="is it all there, and as long as it was?",
        ) from None  # fmt: skip
    lacking = sorted(told["missing_keys"])
    if lacking:
        raise FileError(
            f"lacks {len(lacking)} of the weights of its {type(network).__name__}", where=f"hf:{folder}",
            value=lacking[0], hint="they would be random",
        )  # fmt: skip
    network.config.use_cache = False
    loaded: nn.Module = network.eval()
    return loaded


def is_huggingface(network: nn.Module) -> bool:
    """Return whether a network is one that transformers write into a folder and read from it."""
    return hasattr(network, "save_pretrained") and hasattr(network, "config")


def tokens_of(folder: Path, window: int | None = None) -> Tokens:
    """Return how the model of a folder takes text, in windows of 256 tokens, or of as many as it takes.

    Raises
    ------
    FileError
        The folder holds no model.
    OptionError
        A classifier, whose samples are no windows; or windows longer than its positions.
    """
    config = config_of(folder)
    kinds = {"AutoModelForCausalLM": "causal", "AutoModelForMaskedLM": "masked", "AutoModel": "states"}
    kind = kinds.get(_class(config, folder))
    if kind is None:
        raise OptionError(
            "classifies texts, and text alone says nothing of their labels", where=f"network hf:{folder}",
            value=config.architectures[0], hint="give its samples as an .npz: input_ids, attention_mask and labels",
        )  # fmt: skip
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and text.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
    ):  # their positions begin behind
        longest -= (text.pad_token_id or 0) + 1
    wanted = min(WINDOW, longest or WINDOW) if window is None else window
    return Tokens(folder, kind, int(text.vocab_size), longest, wanted)


def embeddings(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters that embed tokens, and of the head of a language model."""
    tables = [part.weight for part in network.modules() if isinstance(part, nn.Embedding)]
    ask: Any = getattr(network, "get_output_embeddings", None)
    head = ask() if ask is not None else None
    if head is not None and getattr(head, "weight", None) is not None:
        tables.append(head.weight)
    held = {id(table) for table in tables}
    return tuple(name for name, weight in network.named_parameters(remove_duplicate=False) if id(weight) in held)


def _class(config: Any, folder: Path) -> str:
    """Return which of transformers' classes builds the model."""
    named = (config.architectures or [""])[0]
    if named.endswith(("ForCausalLM", "LMHeadModel")):
        return "AutoModelForCausalLM"
    if named.endswith("ForMaskedLM"):
        return "AutoModelForMaskedLM"
    if named.endswith("ForSequenceClassification"):
        return "AutoModelForSequenceClassification"
    if named.endswith("Model") or not named:
        return "AutoModel"
    raise FileError(
        "is of a kind that is not measured", where=f"hf:{folder}", value=named,
        hint="causal and masked language models, sequence classifiers and encoders are",
    )  # fmt: skip
