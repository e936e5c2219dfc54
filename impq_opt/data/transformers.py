"""The one place that imports transformers, which read the folders of Hugging Face's models."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
from pathlib import Path
from typing import Any

from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import FileError, MissingPackageError, first_line

__all__ = ["config_of", "is_folder_of_a_model", "tokenizer_of", "transformers_module"]


@functools.cache
def transformers_module() -> Any:
    """Import ``transformers``, which says less than it would.

    Raises
    ------
    MissingPackageError
        It is not installed.
    """
    with contextlib.suppress(MissingPackageError):  # what it imports must not fail for a mixed installation
        torchvision_module()
    try:
        module = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        package = (error.name or "transformers").partition(".")[0]
        raise MissingPackageError(package, "a model of Hugging Face's", "'impq-opt[language]'") from None
    module.utils.logging.set_verbosity_error()
    module.utils.logging.disable_progress_bar()
    return module


def is_folder_of_a_model(folder: Path) -> bool:
    """Return whether a folder has a configuration as transformers write it."""
    return os.path.isfile(folder / "config.json")


def config_of(folder: Path) -> Any:
    """Return the configuration of a model.

    Raises
    ------
    FileError
        The folder is none of a model, or of one that these transformers do not know.
    """
    if not os.path.isdir(folder):
        raise FileError("no such folder", where="network", value=f"hf:{folder}", hint="models are read from folders")
    if not is_folder_of_a_model(folder):
        held = sorted(path.name for path in folder.iterdir())[:5]
        raise FileError(
            "holds no config.json", where=f"hf:{folder}", value=held, hint="name the folder of one model, as saved"
        )
    transformers = transformers_module()
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raise many kinds
        hint = "code that comes with a model is not run; is transformers new enough?"
        raise FileError(
            "is no configuration that can be read", where=f"{folder}/config.json", value=first_line(error), hint=hint
        ) from None


def tokenizer_of(folder: Path) -> Any:
    """Return the tokenizer of a model.

    Raises
    ------
    FileError
        There is none in the folder, or it cannot be read.
    """
    known = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
    if not any(os.path.isfile(folder / name) for name in known):
        raise FileError(
            "holds no tokenizer, which turns text into tokens", where=f"hf:{folder}",
            value=sorted(path.name for path in folder.iterdir()),
            hint="save it beside the model (tokenizer.json), or give tokens: an .npz with input_ids and labels",
        )  # fmt: skip
    try:
        return transformers_module().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except MissingPackageError:
        raise
    except Exception as error:  # transformers raise many kinds
        raise FileError("its tokenizer cannot be read", where=f"hf:{folder}", value=first_line(error)) from None
