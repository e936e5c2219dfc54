"""A network of one's own: a name in a module or a file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from impq_opt.errors import OptionError, first_line, nearest

__all__ = ["own_network", "unwrapped"]


def own_network(name: str) -> nn.Module:
    """Return the network that ``package.module:name`` or ``file.py:name`` is, or returns when it is called.

    Raises
    ------
    OptionError
        Nothing of that name can be imported, it raises, or it is no network.
    """
    module, _, attribute = name.rpartition(":")
    network = _imported(module, name)
    for part in attribute.split("."):
        try:
            network = getattr(network, part)
        except AttributeError:
            known = [known for known in vars(network) if not known.startswith("_")]
            raise OptionError(
                f"{module} has no {part!r}", where="network", value=name, hint=nearest(part, known)
            ) from None
    if not isinstance(network, nn.Module):
        if not callable(network):
            raise OptionError(
                "must be a torch module, or return one", where=f"network {name}", value=type(network).__name__
            )
        try:
            network = network()
        except Exception as error:  # the caller's own code may raise anything
            first = first_line(error)
            raise OptionError(
                "could not be built", where=f"network {name}", value=f"{type(error).__name__}: {first}",
                hint="it is called without arguments",
            ) from error  # fmt: skip
    if not isinstance(network, nn.Module):
        raise OptionError("must return a torch module", where=f"network {name}", value=type(network).__name__)
    return unwrapped(network)


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside what ``torch.compile`` and data-parallel wrappers made of it."""
    while not isinstance(network, torch.jit.ScriptModule):
        inner = network._modules.get("_orig_mod")
        if inner is None and isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = network.module
        if not isinstance(inner, nn.Module):
            break
        network = inner
    return network


def _imported(module: str, name: str) -> Any:
    """Import a module by name, or from a file, beside which its own imports are looked for first."""
    path = Path(module).expanduser()
    is_file = path.suffix == ".py"
    if is_file and not os.path.isfile(path):
        raise OptionError("no such file", where=f"network {name}", value=str(path))
    beside = str(path.absolute().parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.insert(0, beside)  # as python and python -m do
    try:
        return _from_file(path) if is_file else importlib.import_module(module)
    except ImportError as error:
        raise OptionError("cannot be imported", where="network", value=name, hint=str(error)) from None
    except Exception as error:  # the caller's own code may raise anything
        first = first_line(error)
        said = f"{type(error).__name__}: {first}"
        raise OptionError("cannot be imported", where="network", value=name, hint=said) from error


def _from_file(path: Path) -> ModuleType:
    name = f"network_in_{path.stem}"  # not to stand in the way of another module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look it up by name
    spec.loader.exec_module(module)
    return module
