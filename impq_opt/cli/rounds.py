"""``impq-opt rounds``: allocation alternated with retraining, one strategy or several side by side."""

from __future__ import annotations

import dataclasses
import json as json_module
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._common import JsonFlag, console, grid, parse_assignments, print_json, say, spinner
from impq_opt.cli._goals import Many
from impq_opt.cli._network import DATA_HELP, NETWORK_HELP, need_torch
from impq_opt.errors import MissingPackageError, OptionError

if TYPE_CHECKING:
    from torch import nn

    from impq_opt.rounds import Hyper, Report
    from impq_opt.rounds.recipes import Recipe

__all__ = ["rounds"]


def rounds(
    network: Annotated[str | None, Parameter(help=NETWORK_HELP)] = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder of the run; a run in it goes on.")],
    recipe: Annotated[str | None, Parameter(help="A shipped recipe, or a TOML file; options override it.")] = None,
    data: Annotated[str | None, Parameter(help=DATA_HELP)] = None,
    root: Annotated[Path | None, Parameter(help="Where torchvision keeps data sets.")] = None,
    weights: Annotated[str | None, Parameter(help="Of the trained float network: safetensors or a state dict.")] = None,
    pretrain: Annotated[
        int | None, Parameter(help="Where no weights are given: epochs of training in float, kept in the folder.")
    ] = None,
    strategy: Annotated[
        str | None, Parameter(help="iterative, authors-code, or a strategy of `impq-opt solvers`.")
    ] = None,
    compare: Annotated[
        str | None, Parameter(help="Several, with commas: iterative,authors-code,exact,uniform.")
    ] = None,
    seeds: Annotated[int, Parameter(help="With --compare: how many seeds.")] = 1,
    bits_schedule: Annotated[
        str | None, Parameter(help="Effective weight bits by round: geometric:3.5:2, linear:..., fixed:2.")
    ] = None,
    bound_schedule: Annotated[str | None, Parameter(help="Bound on the damage by round: geometric:0.01:10.")] = None,
    groups: Annotated[str | None, Parameter(help="Weights per layer, kernel or slice.")] = None,
    count: Annotated[int | None, Parameter(name="--rounds", help="How many rounds.")] = None,
    epochs_per_round: Annotated[int | None, Parameter(help="Epochs of fine-tuning in each.")] = None,
    set_: Annotated[
        list[str] | None, Many, Parameter(name="--set", help="KEY=VALUE, any other hyper-parameter, such as rate=0.02.")
    ] = None,
    train_samples: Annotated[int | None, Parameter(help="Train on so many samples only.")] = None,
    minutes: Annotated[float | None, Parameter(help="Stop after so long; the same command goes on.")] = None,
    threads: Annotated[int | None, Parameter(help="Threads of torch; with 1, runs are equal to the bit.")] = None,
    device: Annotated[str, Parameter(help="Where torch computes: cpu, cuda.")] = "cpu",
    json: JsonFlag = False,
) -> int:
    """Measure, allocate, fine-tune, and again; killed at any instant, the same command goes on to the same result.

    The folder gets a log (log.jsonl), a checkpoint, and for each round its problem and its weights in their allocated
    bits. --compare runs several strategies from one start with the same epochs and data order, and adds a table and a
    plot. Under `torchrun --nproc-per-node N -m impq_opt rounds ...` the processes share each batch.
    """
    need_torch("impq-opt rounds")
    import torch

    for option, value in (("threads", threads), ("seeds", seeds), ("train-samples", train_samples)):
        if value is not None and value < 1:
            raise OptionError("must be at least 1", where=f"--{option}", value=value)
    if threads is not None:
        torch.set_num_threads(threads)
    if strategy is not None and compare is not None:
        raise OptionError("give a strategy or a comparison", where="--strategy, --compare")
    plan = _plan(recipe, network, data, train_samples, pretrain)
    overrides = _overrides(groups, count, epochs_per_round, set_ or [])
    names = tuple(compare.split(",")) if compare else (strategy,) if strategy else tuple(plan.strategies) or ("exact",)
    if len(set(names)) < len(names):
        raise OptionError("names a strategy twice", where="--compare", value=compare)
    hypers = {name: _hyper(plan, name, overrides, bits_schedule, bound_schedule) for name in names}
    with _distributed(), _shown(minutes) as report:
        found = _run(
            plan, hypers, range(seeds) if compare or len(names) > 1 else None, output, root, weights, device, report
        )
    if found is None:
        say(f"stopped after {minutes:g} minutes; the same command goes on")
        return 1
    if os.environ.get("RANK", "0") == "0":
        _tell(plan, found, output, json)
    return 0


def _plan(
    recipe: str | None, network: str | None, data: str | None, train_samples: int | None, pretrain: int | None
) -> Recipe:
    from impq_opt.rounds.recipes import Pretraining, Recipe, load_recipe

    if recipe is not None:
        plan = load_recipe(recipe)
    elif network is None or data is None:
        raise OptionError("needs a network and --data, or a --recipe", where="rounds", hint=_recipes())
    else:
        plan = Recipe(title=f"{network} on {data}", network=network, data=data, hyper={}, strategies={})
    changes: dict[str, Any] = {"network": network, "data": data, "train_samples": train_samples}
    if pretrain is not None:
        changes["pretraining"] = Pretraining(epochs=pretrain, augment="none")
    values = {f: getattr(plan, f) for f in plan.__struct_fields__} | {k: v for k, v in changes.items() if v is not None}
    return Recipe(**values)


def _recipes() -> str:
    from impq_opt.rounds.recipes import recipe_names

    return "recipes are " + ", ".join(recipe_names())


def _overrides(groups: str | None, count: int | None, epochs: int | None, assignments: list[str]) -> dict[str, Any]:
    given = {"granularity": groups, "rounds": count, "epochs": epochs}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, text in parse_assignments(assignments, "--set").items():
        try:
            values[name.replace("-", "_")] = json_module.loads(text)
        except ValueError:
            values[name.replace("-", "_")] = text
    return values


def _hyper(plan: Recipe, name: str, overrides: dict[str, Any], bits: str | None, bound: str | None) -> Hyper:
    from impq_opt.rounds import Hyper
    from impq_opt.rounds.settings import HEURISTICS

    values = plan.hyper | {"strategy": name} | plan.strategies.get(name, {}) | overrides
    if bits is not None and bound is not None:
        raise OptionError("give one schedule", where="--bits-schedule, --bound-schedule")
    if values["strategy"] not in HEURISTICS:
        if bits is not None:
            values |= {"budget": bits, "bound": None}
        elif bound is not None:
            values |= {"bound": bound, "budget": None}
        elif not values.get("budget") and not values.get("bound"):
            values["budget"] = "geometric:3.5:2"
    return Hyper.from_dict(values, "--set")


def _run(
    plan: Recipe,
    hypers: dict[str, Hyper],
    seeds: range | None,
    output: Path,
    root: Path | None,
    weights: str | None,
    device: str,
    report: Report,
) -> dict[str, list[list[dict[str, Any]]]] | None:
    """Return the records by strategy and seed, or None where time ran out."""
    from impq_opt.rounds import PausedError
    from impq_opt.rounds import rounds as run_rounds
    from impq_opt.rounds.compare import compare
    from impq_opt.rounds.measuring import measurer
    from impq_opt.rounds.recipes import pretrained, splits_of

    splits = splits_of(plan, root=root)

    @cache
    def network() -> nn.Module:
        return pretrained(plan, output, weights=weights, root=root, report=report).to(device)

    try:
        if seeds is not None:
            return compare(lambda seed: network(), splits, hypers, seeds, output, measurer=measurer, report=report)
        name, hyper = next(iter(hypers.items()))
        measure = measurer(hyper)
        return {name: [run_rounds(network(), splits, hyper, output, measure=measure, report=report)]}
    except PausedError:
        return None


@contextmanager
def _distributed() -> Iterator[None]:
    """Join the processes that torchrun started, if it did."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    from torch import distributed

    # A weight with one input channel has gradients of another layout than channels_last; they are copied, no more.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def _shown(minutes: float | None) -> Iterator[Report]:
    """Show the loop's lines where stderr is a terminal."""
    from impq_opt.rounds import Report

    deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    if os.environ.get("RANK", "0") != "0":
        yield Report(deadline=deadline)
        return
    with spinner("rounds") as tell:
        yield Report(deadline=deadline) if tell is None else Report(show=tell, deadline=deadline)


def _tell(plan: Recipe, found: dict[str, list[list[dict[str, Any]]]], output: Path, json: bool) -> None:
    """Print the table, and keep it and the plot in the folder."""
    from impq_opt.documents.writing import atomic_write
    from impq_opt.rounds.compare import advantage, against_end, plot, reached, trails

    several = len(found) > 1 or len(next(iter(found.values()))) > 1
    document: dict[str, Any] = {
        "title": plan.title,
        "trails": [_plain(row) for row in trails(found)],
        "reached": {},
        "advantage": {},
        "against_end": {},
        "runs": found,
    }
    reference = next((name for name in ("iterative", "authors-code") if name in found), None)
    if reference is not None and several:
        document["reached"] = {"reference": reference} | _plain(reached(found, reference))
        document["advantage"] = {"reference": reference} | _plain(advantage(found, reference))
        document["against_end"] = {"reference": reference} | _plain(against_end(found, reference))
    if several:
        atomic_write(output / "comparison.json", json_module.dumps(document).encode())
        try:
            plot(found, output / "comparison.svg")
        except MissingPackageError as error:
            say(f"no plot: {error}")
    if json:
        print_json(document)
    else:
        _print(plan, document)


def _print(plan: Recipe, document: dict[str, Any]) -> None:
    out = console()
    columns = (
        "strategy",
        ">round",
        ">epochs",
        ">B_w,eff",
        ">B_a,eff",
        ">CR",
        ">storage",
        ">C_C",
        ">validation",
        ">test",
    )
    table = grid(*columns, title=plan.title)
    for row in document["trails"]:
        table.add_row(
            row["strategy"], str(row["round"]), str(row["epochs"]), _text(row["bits"]), _text(row["activation_bits"]),
            f"{16 / row['bits']['mean']:.2f}", _cost(row["costs"], "storage"), _cost(row["costs"], "slides"),
            _percent(row["validation"]), _percent(row["test"]),
        )  # fmt: skip
    out.print(table)
    out.print(
        "means over seeds +- standard errors; C_C by the slides' convention (adders, and 576 a convolution output)"
    )
    for name, row in document["reached"].items():
        if name != "reference":
            at = f"({row['seeds_that_reach_it']} of {row['seeds']} seeds)"
            goal = f"as accurate as {document['reached']['reference']} ends"
            out.print(
                f"{name}: {goal} with {_text(row['bits'])} bits {at}, and no larger after {_text(row['epochs'])} epochs"
            )
    for name, rows in document["against_end"].items():
        if name not in ("reference", document["against_end"]["reference"]) and rows:
            end, than = rows[-1], document["against_end"]["reference"]
            bits, valid, test = _text(end["bits"], "+"), _percent(end["validation"], "+"), _percent(end["test"], "+")
            out.print(f"{name}: ends with {bits} bits, {valid} % validation and {test} % test accuracy against {than}")
    for name, rows in document["advantage"].items():
        if name != "reference" and rows:
            at = ", ".join(f"{_percent(row['difference'])} at {row['bits']['mean']:.2f} bits" for row in rows)
            out.print(f"{name}: accuracy above {document['advantage']['reference']}'s at equal bits [%]: {at}")
    if plan.published:
        published = grid("published", ">B_w", ">B_a", ">float", ">top-1", ">C_C", "", title="the slides' table")
        for one in plan.published:
            numbers = (one.activation_bits, one.float_accuracy, one.accuracy, one.operations)
            published.add_row(one.method, one.weight_bits, *("-" if n is None else f"{n:g}" for n in numbers), one.note)
        out.print(published)


def _plain(value: Any) -> Any:
    """Return dataclasses as dicts, NaN as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(estimate: dict[str, Any] | None, sign: str = "") -> str:
    if estimate is None:
        return "-"
    return f"{estimate['mean']:{sign}.3f}" + ("" if not estimate["stderr"] else f" +- {estimate['stderr']:.3f}")


def _percent(estimate: dict[str, Any] | None, sign: str = "") -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate['mean']:{sign}.2f}" + (
        "" if not estimate["stderr"] else f" +- {100 * estimate['stderr']:.2f}"
    )


def _cost(costs: dict[str, Any], name: str) -> str:
    from impq_opt.costs import format_quantity

    return format_quantity(costs[name]["value"], costs[name]["unit"]) if name in costs else "-"
