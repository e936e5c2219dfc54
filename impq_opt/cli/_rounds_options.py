"""What ``impq-opt rounds`` is asked, by what it is about."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import DATA, GROUPS, POLICIES, RECIPES
from impq_opt.cli._common import WHOLE, parse_assignments, refuse, say
from impq_opt.cli._goals import Many
from impq_opt.cli._network import DATA_HELP
from impq_opt.cli._processes import first_process, group_of_processes
from impq_opt.cli._progress import watched
from impq_opt.errors import OptionError

if TYPE_CHECKING:
    from impq_opt.rounds import Report, Settings
    from impq_opt.rounds.recipes import Recipe

__all__ = ["ChoosingOptions", "ExperimentOptions", "RecipeOption", "RunningOptions", "SettingsOptions", "assigned"]

RecipeOption = Annotated[
    str | None, RECIPES, Parameter(name="--recipe", help="A shipped recipe, or a TOML file; options override it.")
]


def _at_least_one(where: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise OptionError("must be at least 1", where=where, value=value)


@Parameter(name="*")
@dataclass(frozen=True)
class ExperimentOptions:
    """Which network is trained on what."""

    data: Annotated[str | None, DATA, Parameter(help=DATA_HELP)] = None
    root: Annotated[Path | None, Parameter(help="Where torchvision keeps data sets.")] = None
    weights: Annotated[str | None, Parameter(help="Of the trained float network: safetensors or a state dict.")] = None
    pretrain: Annotated[
        int | None,
        WHOLE,
        Parameter(help="Where no weights are given: epochs of training in float, kept in the folder."),
    ] = None
    train_samples: Annotated[int | None, WHOLE, Parameter(help="Train on so many samples only.")] = None

    def plan(self, network: str | None, recipe: str | None) -> Recipe:
        """Return the recipe of that name, or one of the network and the data, and what replaces its parts."""
        from impq_opt.rounds.recipes import Pretraining, Recipe, load_recipe, recipe_names

        _at_least_one("--train-samples", self.train_samples)
        if recipe is not None:
            plan = load_recipe(recipe)
        elif network is None or self.data is None:
            known = "recipes are " + ", ".join(recipe_names())
            raise OptionError("needs a network and --data, or a --recipe", hint=known)
        else:
            plan = Recipe(title=f"{network} on {self.data}", network=network, data=self.data, hyper={}, strategies={})
        if self.weights is not None:
            refuse("--pretrain", self.pretrain, "goes without --weights: these are of a trained network")
        changes: dict[str, Any] = {"network": network, "data": self.data, "train_samples": self.train_samples}
        if self.pretrain is not None:
            changes["pretraining"] = Pretraining(epochs=self.pretrain, augment="none")
        return plan.but(**{name: value for name, value in changes.items() if value is not None})


@Parameter(name="*")
@dataclass(frozen=True)
class SettingsOptions:
    """Settings that replace the recipe's."""

    bits_schedule: Annotated[
        str | None, Parameter(help="Effective weight bits by round: geometric:3.5:2, linear:..., fixed:2.")
    ] = None
    bound_schedule: Annotated[str | None, Parameter(help="Bound on the damage by round: geometric:0.01:10.")] = None
    groups: Annotated[str | None, GROUPS, Parameter(help="Weights per layer, kernel or slice.")] = None
    count: Annotated[int | None, WHOLE, Parameter(name="--rounds", help="How many rounds.")] = None
    epochs_per_round: Annotated[int | None, WHOLE, Parameter(help="Epochs of fine-tuning in each.")] = None
    set_: Annotated[
        list[str] | None, Many, Parameter(name="--set", help="KEY=VALUE, any other hyper-parameter, such as rate=0.02.")
    ] = None

    def settings(self, plan: Recipe, name: str) -> Settings:
        """Return the settings of a strategy of the recipe, or of one that it does not mention."""
        from impq_opt.rounds import Settings
        from impq_opt.rounds.policies import policy_fields, strategy_class

        values = plan.hyper | {"strategy": name} | plan.strategies.get(name, {}) | self._given()
        takes_either = "bound" in policy_fields(strategy_class(values["strategy"])[0])
        if self.bits_schedule is not None and self.bound_schedule is not None:
            raise OptionError("give one schedule", where="--bits-schedule, --bound-schedule")
        if self.bits_schedule is not None:
            values |= {"budget": self.bits_schedule, "bound": None}
        elif self.bound_schedule is not None:
            values |= {"bound": self.bound_schedule, "budget": None}
        elif takes_either and not values.get("budget") and not values.get("bound"):
            values["budget"] = "geometric:3.5:2"
        return Settings.from_dict(values, "--set")

    def _given(self) -> dict[str, Any]:
        given = {"granularity": self.groups, "rounds": self.count, "epochs": self.epochs_per_round}
        return {name: value for name, value in given.items() if value is not None} | assigned(self.set_)


def assigned(texts: list[str] | None) -> dict[str, Any]:
    """Return settings as ``--set`` gives them: values of JSON, or texts."""
    values: dict[str, Any] = {}
    for name, text in parse_assignments(texts or [], "--set").items():
        try:
            values[name.replace("-", "_")] = json.loads(text)
        except ValueError:
            values[name.replace("-", "_")] = text
    return values


@Parameter(name="*")
@dataclass(frozen=True)
class ChoosingOptions:
    """Which strategies run, and how often."""

    strategy: Annotated[
        str | None,
        POLICIES,
        Parameter(help="slides (or iterative), authors-code, haq, or a strategy of `impq-opt solvers`."),
    ] = None
    compare: Annotated[
        str | None, POLICIES, Parameter(help="Several, with commas: iterative,authors-code,exact,uniform.")
    ] = None
    seeds: Annotated[int | None, WHOLE, Parameter(help="With --compare: how many seeds; 1 unless given.")] = None
    start: Annotated[
        Path | None, Parameter(help="The folder of a run that has ended: its last round is round 0 of this one.")
    ] = None

    def names(self, plan: Recipe) -> tuple[str, ...]:
        """Return the strategies that are asked for, or all of the recipe."""
        _at_least_one("--seeds", self.seeds)
        if self.compare is None and (self.strategy is not None or len(plan.strategies) < 2):
            refuse("--seeds", self.seeds, "goes with --compare")
        if self.strategy is not None and self.compare is not None:
            raise OptionError("give a strategy or a comparison", where="--strategy, --compare")
        if self.strategy is not None:
            return (self.strategy,)
        if self.compare is None:
            return tuple(plan.strategies) or ("exact",)
        names = tuple(self.compare.split(","))
        if len(set(names)) < len(names):
            raise OptionError("names a strategy twice", where="--compare", value=self.compare)
        return names


@Parameter(name="*")
@dataclass(frozen=True)
class RunningOptions:
    """How long, and where."""

    minutes: Annotated[float | None, Parameter(help="Stop after so long; the same command goes on.")] = None
    threads: Annotated[int | None, WHOLE, Parameter(help="Threads of torch; with 1, runs are equal to the bit.")] = None
    device: Annotated[str, Parameter(help="Where torch computes: cpu, cuda.")] = "cpu"

    @contextmanager
    def begun(self) -> Iterator[Report]:
        """Set torch up, join the processes that torchrun started if it did, and show lines on a terminal."""
        import torch

        from impq_opt.rounds import Report

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        deadline = float("inf") if self.minutes is None else time.monotonic() + 60 * self.minutes
        # A weight with one input channel has gradients of another layout than channels_last; they are copied, no more.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        with group_of_processes():
            if not first_process():
                yield Report(deadline=deadline)
                return
            with watched("rounds") as tell:
                yield Report(show=tell, deadline=deadline)

    def stopped(self) -> int:
        """Say that the time is over; return the exit status."""
        say(f"stopped after {self.minutes:g} minutes; the same command goes on")
        return 1

    def check(self) -> None:
        """Raise OptionError for what cannot be."""
        _at_least_one("--threads", self.threads)
