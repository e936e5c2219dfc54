"""Recipes: a network, its data, its training and the strategies to compare, as TOML files that run end to end."""

from __future__ import annotations

import dataclasses
import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from impq_opt.data import Dataset, load_data
from impq_opt.documents.wording import in_words
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import DataError, FileError, InputError, OptionError, nearest
from impq_opt.networks import load_network
from impq_opt.quantize import load_method
from impq_opt.quantize.methods import FLOAT_BITS
from impq_opt.rounds.folder import trained_state
from impq_opt.rounds.loop import Splits, rounds
from impq_opt.rounds.measuring import surveyor
from impq_opt.rounds.settings import Settings
from impq_opt.rounds.watch import Report
from impq_opt.training.seeds import mix, processes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "Pretraining",
    "Published",
    "Recipe",
    "load_recipe",
    "pretrained",
    "recipe_names",
    "row_settings",
    "splits_of",
    "train_float",
    "untrained",
]


class Pretraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the float network is trained where no weights are given: as :class:`impq_opt.training.Training` has it.

    Parameters
    ----------
    epochs, batch : int
    rate, momentum, decay, warmup : float
    augment : {"none", "flip", "crop-flip"}
    schedule : {"cosine", "cosine-from-start", "one-cycle"}
    optimizer : {"sgd", "nesterov", "adam"}
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    warmup: float = 0.1
    augment: str = "crop-flip"
    schedule: str = "cosine"
    optimizer: str = "sgd"

    def table(self) -> dict[str, Any]:
        """Return the settings of a run of rounds that has no more than its start."""
        values = msgspec.structs.asdict(self)
        return {"start_epochs" if name == "epochs" else name: value for name, value in values.items()}


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
    schedule : str
        How its authors trained it, where that is known.
    row : str
        The row of the recipe's ``methods`` that it stands beside; empty where there is none.
    """

    method: str
    weight_bits: str
    accuracy: float
    float_accuracy: float | None = None
    activation_bits: float | None = None
    operations: float | None = None
    note: str = ""
    schedule: str = ""
    row: str = ""


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
    methods : dict of str to dict
        The rows of a table of methods (:mod:`impq_opt.baselines`): hyper-parameters of each on top of ``table``.
    table : dict
        Hyper-parameters that the rows of that table share; nothing of ``hyper``.
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
    methods: dict[str, dict[str, Any]] = {}
    table: dict[str, Any] = {}
    pretraining: Pretraining | None = None
    channels: int | None = None
    classes: int | None = None
    train_samples: int | None = None
    size: int = 224
    published: tuple[Published, ...] = ()

    def but(self, **changes: Any) -> Recipe:
        """Return the recipe with some of its values replaced."""
        return msgspec.structs.replace(self, **changes)

    def sized(self, data: Splits) -> Recipe:
        """Return the recipe with classes and channels as the data have them, where it names none."""
        classes, channels = getattr(data.train, "classes", None), None
        inputs = data.train.rows(torch.arange(1))[0]
        if isinstance(inputs, torch.Tensor) and inputs.dim() == 4:
            channels = inputs.shape[1]
        return self.but(classes=self.classes or classes, channels=self.channels or channels)

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

    def rows(self, names: tuple[str, ...] = ()) -> dict[str, Settings]:
        """Return the settings of the rows of the table of methods, of all of them or of ``names``.

        A row that names no strategy trains with one precision, ``start_bits``, and chooses nothing.

        Raises
        ------
        OptionError
            A row that is not in the recipe; a setting that is unknown or says what cannot be.
        """
        for name in names:
            if name not in self.methods:
                hint = nearest(name, self.methods) if self.methods else "the recipe has no table of methods"
                raise OptionError("is not in the recipe", where="methods", value=name, hint=hint)
        chosen = names or tuple(self.methods)
        return {name: row_settings(self.table | self.methods[name], f"methods.{name}") for name in chosen}


def row_settings(values: dict[str, Any], where: str) -> Settings:
    """Return the settings of one row of a table of methods: of one precision, unless it names a strategy.

    Raises
    ------
    OptionError
        A setting that is unknown or says what cannot be.
    """
    if "strategy" in values:
        return Settings.from_dict(values, where)
    bits = values.get("start_bits", load_method(values["method"]).widths[-1] if values.get("method") else 8)
    alone = {"strategy": "uniform", "budget": f"fixed:{bits}", "start_bits": bits, "bits": [bits], "rounds": 0}
    return Settings.from_dict(values | alone, where)


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
        recipe.rows()
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
    """Return training, validation and test data; ``train_samples`` of the first.

    Where the data have no validation part of their own a tenth of the training part, drawn with seed 0, is held out.
    """

    def part(split: str) -> Dataset:
        return load_data(recipe.data, split, root=root, size=recipe.size, download=download)

    train, test, order = part("train"), part("test"), torch.Generator().manual_seed(0)
    try:
        validation = part("validation")
    except DataError as error:
        if error.value != "validation":  # another fault than that there is none
            raise
        rows = torch.randperm(len(train), generator=order)
        held = max(1, len(train) // 10)
        validation, train = (train.subset(own.sort().values) for own in (rows[:held], rows[held:]))
    if recipe.train_samples is not None and recipe.train_samples < len(train):
        train = train.subset(torch.randperm(len(train), generator=order.manual_seed(0))[: recipe.train_samples])
    return Splits(train, validation, test)


def pretrained(
    recipe: Recipe,
    folder: Path,
    *,
    weights: str | Path | None = None,
    root: Path | None = None,
    device: str = "cpu",
    report: Report | None = None,
) -> nn.Module:
    """Return the float network: from ``weights``, from ``folder``, or trained on all training data and kept there."""
    known = {"classes": recipe.classes, "channels": recipe.channels}
    kept = folder / "pretrained.safetensors"
    if weights is not None or os.path.exists(kept):
        return load_network(recipe.network, weights=weights or kept, **known).to(device)  # type: ignore[arg-type]
    how = recipe.pretraining
    if how is None:
        return load_network(recipe.network, **known).to(device)  # type: ignore[arg-type]
    everything = splits_of(recipe.but(train_samples=None), root=root)
    return train_float(recipe, everything, how, kept, device=device, report=report)


def train_float(
    recipe: Recipe,
    data: Splits,
    how: Pretraining,
    kept: Path,
    *,
    device: str = "cpu",
    report: Report | None = None,
) -> nn.Module:
    """Train the recipe's network in float from random weights; killed, the same call goes on.

    It is a run of rounds in which everything stays in float, beside ``kept``, where the weights are at the end.

    Raises
    ------
    PausedError
        The report's deadline has passed.
    """
    network = untrained(recipe, 0).to(device)
    settings = row_settings(how.table() | {"leave_float": ["*"], "activation_bits": FLOAT_BITS}, "float")
    report = report or Report()
    told = dataclasses.replace(report, show=lambda line: report.show(f"in float: {line}"))
    folder = kept.with_suffix("")
    rounds(network, dataclasses.replace(data, test=None), settings, folder, measure=surveyor(settings), report=told)
    state = trained_state(folder)
    network.load_state_dict(state)
    if processes()[0] == 0:
        from safetensors.torch import save

        atomic_write(kept, save(state))
    return network.eval()


def untrained(recipe: Recipe, seed: int) -> nn.Module:
    """Return the recipe's network with random weights."""
    torch.manual_seed(mix(seed))
    return load_network(recipe.network, untrained=True, classes=recipe.classes, channels=recipe.channels)
