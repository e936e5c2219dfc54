"""Finding a network by name and loading its weights; weights are never unpickled."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError, OptionError, first_line, nearest
from impq_opt.networks.huggingface import folder_of, load_huggingface
from impq_opt.networks.matching import fill
from impq_opt.networks.mobilenet import mobilenet_v1, mobilenet_v1_tf
from impq_opt.networks.own import own_network
from impq_opt.networks.resnet import resnet8, resnet20
from impq_opt.networks.shipped import SHIPPED
from impq_opt.networks.small import small_cnn
from impq_opt.networks.states import State, read_states
from impq_opt.networks.vgg import vgg_small

__all__ = ["FACTORIES", "load_network", "read_state"]

FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet8": resnet8,
    "vgg-small": vgg_small,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v1-tf": mobilenet_v1_tf,
    "small-cnn": small_cnn,
}


def load_network(
    name: str,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    channels: int | None = None,
    untrained: bool = False,
) -> nn.Module:
    """Return a network in eval mode.

    Parameters
    ----------
    name : str
        A trained network that ships with the package (``resnet20-fashion-mnist``), one of :data:`FACTORIES`, a
        classifier of torchvision (``resnet18``), or one's own: ``package.module:name`` or ``file.py:name`` of a module,
        or of what returns one when called without arguments; or ``hf:FOLDER``, a model in a folder of Hugging Face's
        (:mod:`~impq_opt.networks.huggingface`). Compiled and data-parallel ones are taken out of their
        wrappers.
    weights : str or Path, optional
        What :func:`~impq_opt.networks.states.read_states` reads: safetensors, a state dict, a checkpoint with one in
        it, a folder of Hugging Face's; or ``"pretrained"`` for those torchvision offers.
    classes, channels : int, optional
        For :data:`FACTORIES`, and ``classes`` for torchvision; the weights tell where they are left out.
    untrained : bool
        Allow a network with random weights.

    Raises
    ------
    OptionError
        No such network.
    FileError, DataError
        Weights that cannot be read, or do not fit.
    """
    states = None if weights is None or str(weights) == "pretrained" else read_states(weights)
    if name in SHIPPED:
        network = SHIPPED[name].build()
        states, untrained = states or [State("", _shipped_state(name))], True
    elif name in FACTORIES:
        options = {"classes": classes, "channels": channels}
        if states:
            options = {key: value or _told(states[0].tensors, key) for key, value in options.items()}
        network = FACTORIES[name](**{key: value for key, value in options.items() if value})
    elif (folder := folder_of(name)) is not None:
        if states is not None:
            raise OptionError("goes with a network without weights", where="weights", value=weights, hint=name)
        return load_huggingface(folder)
    elif ":" in name:
        network, untrained = own_network(name), True  # its weights are its own affair
    else:
        pretrained = str(weights) == "pretrained"
        network, untrained = _torchvision(name, classes, pretrained, states), untrained or pretrained
    if states:
        fill(network, states, str(weights or name))
    elif not untrained:
        raise OptionError(
            "has no weights, and a network that was never trained tells nothing",
            where="network", value=name, hint="name a state dict or safetensors file with --weights",
        )  # fmt: skip
    return network.eval()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the likeliest weights of what :func:`~impq_opt.networks.states.read_states` reads; never runs code."""
    return {key.removeprefix("module."): value for key, value in read_states(path)[0].tensors.items()}


def _shipped_state(name: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(importlib.resources.files("impq_opt.networks.weights").joinpath(f"{name}.safetensors").read_bytes())


def _told(state: dict[str, Tensor], option: str) -> int:
    """Read the number of classes or input channels off the shapes of the last or first weights; 0 without any."""
    shapes = [tensor.shape for tensor in state.values() if tensor.ndim > 1]
    if not shapes:
        return 0
    return int(shapes[-1][0] if option == "classes" else shapes[0][1])


def _torchvision(name: str, classes: int | None, pretrained: bool, states: list[State] | None) -> nn.Module:
    models = torchvision_module("models")
    known = models.list_models(module=models)
    if name not in known:
        hint = nearest(name, [*known, *FACTORIES, *SHIPPED]) + "; or package.module:name, or file.py:name"
        if Path(name).suffix == ".py":
            hint = f"{name}:name, where name is a module in the file or a function that returns one"
        elif Path(name).suffix and os.path.exists(name):
            hint = "name the network, and a file of its weights with --weights"
        raise OptionError("unknown network", where="network", value=name, hint=hint)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False} if not pretrained else {}
    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: other classes than pretrained weights have
        first = first_line(error)
        what = "its weights could not be downloaded" if isinstance(error, OSError) else "cannot be built so"
        raise DataError(what, where=f"network {name}", value=first) from None
    told = None if classes is not None or not states else _classes_of(network, states)
    return network if told is None else _torchvision(name, told, False, None)


def _classes_of(network: nn.Module, states: list[State]) -> int | None:
    """Return the number of classes that the weights of a network's last layer have, where it is another one."""
    last, weight = [(name, p) for name, p in network.named_parameters() if p.ndim > 1][-1]
    stored = next((t for key, t in states[0].tensors.items() if key == last or key.endswith(f".{last}")), None)
    if stored is None or stored.shape[1:] != weight.shape[1:] or len(stored) == len(weight):
        return None
    return len(stored)
