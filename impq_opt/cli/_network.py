"""The options that name a network and its data, shared by the commands that run one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import DATA, choices
from impq_opt.cli._common import WHOLE, refuse
from impq_opt.cli._streams import say
from impq_opt.errors import MissingPackageError, OptionError

if TYPE_CHECKING:
    from torch import nn

    from impq_opt.data import Dataset

__all__ = ["WINDOWS", "DataOptions", "NetworkOptions", "SamplesOptions", "is_language", "left_out", "need_torch"]

NETWORK_HELP = (
    "A shipped network (resnet20-fashion-mnist, resnet20-cifar10), one of resnet20, resnet8, vgg-small, mobilenet-v1, "
    "mobilenet-v1-tf and small-cnn, a classifier of torchvision such as resnet18, or one's own: package.module:name or "
    "file.py:name of a module, or of what returns one; or hf:FOLDER, a model in a folder of Hugging "
    "Face's."
)
DATA_HELP = (
    "fashion-mnist, cifar10, digits, a folder with one sub-folder of pictures per class, or an .npz, .npy or "
    ".safetensors file of arrays: images and labels, tokens, or inputs by keyword; or a .txt for hf:FOLDER, in windows."
)


WINDOWS = 128  # samples of a text, unless it is said how many


def is_language(network: str, *, embeddings: bool) -> bool:
    """Return whether a network is a model in a folder, hf:FOLDER; raise OptionError for what goes with these alone."""
    from impq_opt.networks.huggingface import folder_of

    language = folder_of(network) is not None
    if not language:
        refuse("--embeddings", embeddings, "goes with hf:FOLDER; elsewhere they are groups")
    return language


def left_out(network: nn.Module, asked: bool) -> tuple[str, ...]:
    """Return the names of what embeds tokens, where it is to stay as it is."""
    from impq_opt.networks.huggingface import embeddings

    return embeddings(network) if asked else ()


def need_torch(purpose: str) -> None:
    """Raise MissingPackageError where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise MissingPackageError("torch", purpose, "'impq-opt[torch]'") from None


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """How a network is built and run."""

    weights: Annotated[
        str | None,
        Parameter(
            help="A safetensors file, a state dict or checkpoint, never unpickled, an index of shards, or a folder of "
            "Hugging Face's; or 'pretrained' (torchvision)."
        ),
    ] = None
    classes: Annotated[int | None, WHOLE, Parameter(help="Classes, where the weights do not tell.")] = None
    channels: Annotated[int | None, WHOLE, Parameter(help="Input channels, where the weights do not tell.")] = None
    device: Annotated[str, Parameter(help="Where torch computes: cpu, cuda, cuda:1.")] = "cpu"
    threads: Annotated[
        int | None, WHOLE, Parameter(help="Threads of torch; with 1, repeated runs are equal to the bit.")
    ] = None

    def load(self, name: str) -> nn.Module:
        """Return the network called ``name``, on its device."""
        need_torch("a network")
        import torch

        from impq_opt.networks import FACTORIES, SHIPPED, load_network
        from impq_opt.networks.huggingface import folder_of

        if self.threads is not None:
            if self.threads < 1:
                raise OptionError("must be at least 1", where="--threads", value=self.threads)
            torch.set_num_threads(self.threads)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError):
            usable = "cpu, or cuda" if torch.cuda.is_available() else "cpu: torch finds no other device here"
            raise OptionError("cannot be used here", where="--device", value=self.device, hint=usable) from None
        if name in SHIPPED or ":" in name:
            refuse("--classes", self.classes, f"is known of {name}")
        if name not in FACTORIES:
            refuse("--channels", self.channels, f"is known of {name}")
        in_folder = folder_of(name) is not None
        if in_folder:  # before it is read
            refuse("--weights", self.weights, f"{name} has its own")
        network = load_network(name, weights=self.weights, classes=self.classes, channels=self.channels)
        if self.weights is None and ":" in name and not in_folder:
            say(f"no --weights: {name} runs with those that its own code gives it")
        return network.to(self.device)


@Parameter(name="*")
@dataclass(frozen=True)
class SamplesOptions:
    """Which data, of which a command takes the parts that it needs."""

    data: Annotated[str, DATA, Parameter(help=DATA_HELP)]
    root: Annotated[Path | None, Parameter(help="Where torchvision keeps data sets.")] = None
    size: Annotated[
        int | None, WHOLE, Parameter(help="Side in pixels of the pictures of a folder; 224 unless given.")
    ] = None
    window: Annotated[
        int | None, WHOLE, Parameter(help="Tokens of a sample of text; 256, or as many as the model takes.")
    ] = None

    @property
    def is_text(self) -> bool:
        """Whether the data are a text, which windows are cut from."""
        from impq_opt.data.text import TEXT

        return Path(self.data).suffix in TEXT

    def load(self, split: str, network: str = "") -> Dataset:
        """Return a part of the data, as the network of that name takes them."""
        need_torch("data")
        from impq_opt.data import load_data
        from impq_opt.networks.huggingface import folder_of, tokens_of

        if not os.path.isdir(Path(self.data).expanduser()):
            refuse("--size", self.size, "goes with a folder of pictures")
        if self.data not in ("cifar10", "fashion-mnist"):
            refuse("--root", self.root, "goes with data sets of torchvision")
        size = 224 if self.size is None else self.size
        folder = folder_of(network)
        if not self.is_text or folder is None:
            refuse("--window", self.window, "goes with a text and hf:FOLDER")
        tokens = tokens_of(folder, self.window) if self.is_text and folder is not None else None
        return load_data(self.data, split, root=self.root, size=size, tokens=tokens)


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions(SamplesOptions):
    """Which samples."""

    split: Annotated[
        str | None,
        choices("train", "validation", "test", "all"),
        Parameter(help="train, validation or test; all, of data that are one set."),
    ] = None

    def load(self, split: str, network: str = "") -> Dataset:
        """Return the data; ``split`` where none is named."""
        return super().load(self.split or split, network)
