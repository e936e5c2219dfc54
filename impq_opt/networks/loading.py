"""Finding a network by name and loading its weights; weights are never unpickled."""

from __future__ import annotations

import importlib
import importlib.resources
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError, FileError, OptionError, nearest
from impq_opt.networks.mobilenet import mobilenet_v1
from impq_opt.networks.resnet import resnet8, resnet20
from impq_opt.networks.shipped import SHIPPED
from impq_opt.networks.small import small_cnn
from impq_opt.networks.vgg import vgg_small

__all__ = ["FACTORIES", "load_network", "read_state"]

FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet8": resnet8,
    "vgg-small": vgg_small,
    "mobilenet-v1": mobilenet_v1,
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
        classifier of torchvision (``resnet18``), or ``package.module:factory``, called without arguments.
    weights : str or Path, optional
        A state dict (``.pt``, ``.pth``, ``.bin``) or a ``.safetensors`` file, or ``"pretrained"`` for those
        torchvision offers.
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
    shipped = SHIPPED.get(name)
    if shipped is not None:
        network = shipped.build()
        if weights is None:
            _fill(network, _shipped_state(name), name)
            return network.eval()
        return _filled(network, weights)
    state = None if weights is None or str(weights) == "pretrained" else read_state(weights)
    options = {"classes": classes, "channels": channels}
    if name in FACTORIES:
        if state is not None:
            options = {key: value or _told(state, key) for key, value in options.items()}
        network = FACTORIES[name](**{key: value for key, value in options.items() if value})
    elif ":" in name:
        network, untrained = _factory(name), True  # its weights are its own affair
    else:
        network, untrained = _torchvision(name, classes, str(weights) == "pretrained"), untrained or weights is not None
    if state is not None:
        _fill(network, state, str(weights))
    elif not untrained:
        raise OptionError(
            "has no weights, and a network that was never trained tells nothing",
            where="network", value=name, hint="name a state dict or safetensors file with --weights",
        )  # fmt: skip
    return network.eval()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or of a state dict; never runs code of the file."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileError("no such file", where="weights", value=str(path))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the protocol of a pickle that it then refuses
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FileError(
            "holds more than tensors and will not be unpickled", where=str(path), hint="save the state dict alone"
        ) from None
    except Exception as error:  # safetensors, zip and pickle each raise their own kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError("is not a state dict or safetensors file", where=str(path), value=first) from None
    while isinstance(state, dict) and not any(isinstance(v, Tensor) for v in state.values()):
        inner = next((state[key] for key in ("state_dict", "model", "network") if key in state), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise FileError("is not a state dict", where=str(path), value=type(state).__name__)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _shipped_state(name: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(importlib.resources.files("impq_opt.networks.weights").joinpath(f"{name}.safetensors").read_bytes())


def _filled(network: nn.Module, weights: str | Path) -> nn.Module:
    _fill(network, read_state(weights), str(weights))
    return network.eval()


def _fill(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    own = network.state_dict()
    # Counters of batches are no part of the function and missing from some files.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unknown or wrong:
        said = "; ".join(
            f"{what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}"
            for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
            if keys
        )
        raise DataError(f"the weights do not fit the network ({said})", where=where)
    network.load_state_dict(state, strict=False)


def _told(state: dict[str, Tensor], option: str) -> int:
    """Read the number of classes or input channels off the shapes of the last or first weights."""
    shapes = [tensor.shape for tensor in state.values() if tensor.ndim > 1]
    return int(shapes[-1][0] if option == "classes" else shapes[0][1])


def _factory(name: str) -> nn.Module:
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does: a file of the user's own beside the data
    try:
        factory: Any = importlib.import_module(module)
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError) as error:
        raise OptionError("cannot be imported", where="network", value=name, hint=str(error)) from None
    network = factory()
    if not isinstance(network, nn.Module):
        raise OptionError("must return a torch module", where=f"network {name}", value=type(network).__name__)
    return network


def _torchvision(name: str, classes: int | None, pretrained: bool) -> nn.Module:
    models = torchvision_module("models")
    known = models.list_models(module=models)
    if name not in known:
        raise OptionError(
            "unknown network", where="network", value=name,
            hint=nearest(name, [*known, *FACTORIES, *SHIPPED]) + "; or package.module:factory",
        )  # fmt: skip
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False} if not pretrained else {}
    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except (OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError("its weights could not be downloaded", where=f"network {name}", value=first) from None
    return network
