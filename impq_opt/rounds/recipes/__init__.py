"""Recipes: a network, its data, its training and the strategies to compare, as TOML files that run end to end."""

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from impq_opt.data import load_data
from impq_opt.documents.wording import in_words
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import FileError, InputError, OptionError, nearest
from impq_opt.networks import load_network
from impq_opt.rounds.loop import Splits
from impq_opt.rounds.settings import Settings
from impq_opt.rounds.watch import Report
from impq_opt.training import Course, Hook, Training, train
from impq_opt.training.seeds import mix, processes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Pretraining", "Published", "Recipe", "load_recipe", "pretrained", "recipe_names", "splits_of"]


class Pretraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the float network is trained where no weights are given: SGD, linear rise, cosine to 0.

    Parameters
    ----------
    epochs, batch : int
    rate, momentum, decay, warmup : float
    augment : {"none", "flip", "crop-flip"}
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    warmup: float = 0.1
    augment: str = "crop-flip"

    def training(self) -> Training:
        """Return the settings of the training loop."""
        values = msgspec.structs.asdict(self)
        return Training(**{name: value for name, value in values.items() if name != "epochs"})


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the slides' tables, to stand beside what is measured.

    Parameters
    ----------
    method : str
    weight_bits : str
        As printed: a number, or "ternary".
    accuracy : float
        Top-1, percent.
    float_accuracy : float, optional
    activation_bits : float, optional
    operations : float, optional
        The slides' C_C in Gbit-OPs.
    note : str
    """

    method: str
    weight_bits: str
    accuracy: float
    float_accuracy: float | None = None
    activation_bits: float | None = None
    operations: float | None = None
    note: str = ""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One experiment.

    Parameters
    ----------
    title : str
    network : str
        As :func:`impq_opt.networks.load_network` knows it.
    data : str
        As :func:`impq_opt.data.load_data` knows it.
    hyper : dict
        Hyper-parameters that all strategies share.
    strategies : dict of str to dict
        Hyper-parameters of each strategy on top, by the strategy's name, or by another where they name the strategy.
    pretraining : Pretraining, optional
        Where left out, weights must be given.
    channels, classes : int, optional
        Of the network.
    train_samples : int, optional
        Use the first so many training samples of a fixed random order.
    size : int
        Side in pixels of the pictures of a folder.
    published : tuple of Published
    """

    title: str
    network: str
    data: str
    hyper: dict[str, Any]
    strategies: dict[str, dict[str, Any]]
    pretraining: Pretraining | None = None
    channels: int | None = None
    classes: int | None = None
    train_samples: int | None = None
    size: int = 224
    published: tuple[Published, ...] = ()

    def but(self, **changes: Any) -> Recipe:
        """Return the recipe with some of its values replaced."""
        return msgspec.structs.replace(self, **changes)

    def hypers(self, names: tuple[str, ...] = ()) -> dict[str, Settings]:
        """Return the settings by strategy, of all of them or of ``names``.

        Raises
        ------
        OptionError
            Where a setting is unknown or says what cannot be.
        """
        for name in names:
            if name not in self.strategies:
                raise OptionError(
                    "is not in the recipe", where="strategy", value=name, hint=nearest(name, self.strategies)
                )
        chosen = names or tuple(self.strategies)
        return {
            name: Settings.from_dict(self.hyper | {"strategy": name} | self.strategies[name], f"strategies.{name}")
            for name in chosen
        }


def recipe_names() -> tuple[str, ...]:
    """Return the shipped recipes."""
    files = resources.files("impq_opt.rounds.recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_recipe(name: str) -> Recipe:
    """Return a shipped recipe by name, or one from a TOML file.

    Raises
    ------
    OptionError, FileError
        No such recipe; or the file says something that is not a recipe, with its place.
    """
    if name in recipe_names():
        data = resources.files("impq_opt.rounds.recipes").joinpath(f"{name}.toml").read_bytes()
    elif name.endswith(".toml") or os.path.exists(name):
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror}", where=name) from None
    else:
        raise OptionError(
            "no such recipe and no such file", where="recipe", value=name, hint=nearest(name, recipe_names())
        )
    try:
        recipe = msgspec.convert(tomllib.loads(data.decode()), Recipe)
        recipe.hypers()
    except msgspec.ValidationError as error:
        what, place = in_words(error)
        raise FileError(f"is not a recipe: {what}", where=f"{name}: {place}" if place else name) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        first = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise FileError(f"is not a recipe: {first}", where=name) from None
    except InputError as error:
        raise error.within(name) from None
    return recipe


def splits_of(recipe: Recipe, *, root: Path | None = None, download: bool = True) -> Splits:
    """Return training, validation and test data; ``train_samples`` of the first."""
    parts = [
        load_data(recipe.data, split, root=root, size=recipe.size, download=download)
        for split in ("train", "validation", "test")
    ]
    if recipe.train_samples is not None and recipe.train_samples < len(parts[0]):
        order = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(0))
        parts[0] = parts[0].subset(order[: recipe.train_samples])
    return Splits(*parts)


def pretrained(
    recipe: Recipe,
    folder: Path,
    *,
    weights: str | Path | None = None,
    root: Path | None = None,
    report: Report | None = None,
) -> nn.Module:
    """Return the float network: from ``weights``, from ``folder``, or trained on all training data and kept there."""
    known = {"classes": recipe.classes, "channels": recipe.channels}
    kept = folder / "pretrained.safetensors"
    if weights is not None or os.path.exists(kept):
        return load_network(recipe.network, weights=weights or kept, **known)  # type: ignore[arg-type]
    how = recipe.pretraining
    if how is None:
        return load_network(recipe.network, **known)  # type: ignore[arg-type]
    torch.manual_seed(mix(0))
    network = load_network(recipe.network, untrained=True, **known)  # type: ignore[arg-type]
    data = load_data(recipe.data, "train", root=root, size=recipe.size)
    train(network, data, how.training(), epochs=how.epochs, hook=_Told(report or Report()))
    if processes()[0] == 0:
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
        atomic_write(kept, save(state))
    return network.eval()


class _Told(Hook):
    """A line every fifty steps."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def after_step(self, course: Course) -> None:
        done = course.progress
        if done.step % 50 == 0:
            self.report.show(f"training in float: step {done.step}, loss {done.loss / done.seen:.3f}")
