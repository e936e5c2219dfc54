"""``impq-opt train``: one network, trained in float or with a method of quantizing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import METHODS, NETWORKS
from impq_opt.cli._common import WHOLE, JsonFlag, refuse
from impq_opt.cli._goals import Many
from impq_opt.cli._methods_table import print_methods
from impq_opt.cli._network import NETWORK_HELP, need_torch
from impq_opt.cli._processes import first_process
from impq_opt.cli._rounds_options import ExperimentOptions, RecipeOption, RunningOptions, assigned
from impq_opt.cli._screen import print_json
from impq_opt.errors import OptionError

if TYPE_CHECKING:
    from impq_opt.baselines import Row
    from impq_opt.rounds import Report, Settings
    from impq_opt.rounds.recipes import Recipe

__all__ = ["train"]

_FLOAT = "float"


def train(
    network: Annotated[str | None, NETWORKS, Parameter(help=NETWORK_HELP)] = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder of the run; a run in it goes on.")],
    method: Annotated[
        str,
        METHODS,
        Parameter(help="How weights are rounded: a method, with options (lq-net:over=tensor), or float."),
    ] = _FLOAT,
    bits: Annotated[
        int | None, WHOLE, Parameter(help="Of every weight; 8 unless given, or what the method has.")
    ] = None,
    activation_bits: Annotated[
        int | None, WHOLE, Parameter(help="Of every activation; unless given they stay in float.")
    ] = None,
    leave_float: Annotated[
        str | None,
        Parameter(
            help="Weights that stay in float: first, last, names or patterns, with commas; paper, as its authors."
        ),
    ] = None,
    epochs: Annotated[int, WHOLE, Parameter(help="Of training.")] = 10,
    seed: Annotated[int, WHOLE, Parameter(help="Of all that is drawn.")] = 0,
    set_: Annotated[
        list[str] | None, Many, Parameter(name="--set", help="KEY=VALUE, any other hyper-parameter, such as rate=0.02.")
    ] = None,
    recipe: RecipeOption = None,
    experiment: ExperimentOptions = ExperimentOptions(),  # noqa: B008 - frozen
    running: RunningOptions = RunningOptions(),  # noqa: B008
    json: JsonFlag = False,
) -> int:
    """Train a network, rounded at every step or in float; killed at any instant, the same command goes on.

    In float it begins with random weights where none are given. With a method it begins with a trained network, that of
    --weights or of --pretrain. The folder gets weights.safetensors, the values that the trained network computes with,
    and with a method its codes as `impq-opt pack` writes them. Test data are read once, at the end.
    """
    need_torch("impq-opt train")
    running.check()
    if epochs < 1:
        raise OptionError("must be at least 1", where="--epochs", value=epochs)
    plan = experiment.plan(network, recipe)
    settings = _settings(method, bits, activation_bits, leave_float, epochs, seed, set_)
    with running.begun() as report:
        row = _run(plan, settings, method, output, experiment, running.device, report)
    if row is None:
        return running.stopped()
    if first_process():
        if json:
            print_json(row.to_dict())
        else:
            print_methods(plan.title, [row])
    return 0


def _settings(
    method: str,
    bits: int | None,
    activation_bits: int | None,
    leave_float: str | None,
    epochs: int,
    seed: int,
    changes: list[str] | None,
) -> Settings:
    from impq_opt.quantize import load_method
    from impq_opt.quantize.methods import FLOAT_BITS
    from impq_opt.rounds.recipes import row_settings

    values: dict[str, Any] = {"start_epochs": epochs, "seed": seed, "activation_bits": activation_bits or FLOAT_BITS}
    if method == _FLOAT:
        for option, value in (("--bits", bits), ("--activation-bits", activation_bits), ("--leave-float", leave_float)):
            refuse(option, value, "goes with a --method")
        values |= {"leave_float": ["*"], "rate": 0.1, "augment": "crop-flip"}
    else:
        left = () if leave_float is None else tuple(leave_float.split(","))
        paper = load_method(method).leaves_float
        values |= {
            "method": method,
            "leave_float": [own for name in left for own in (paper if name == "paper" else [name])],
        }
        values |= {} if bits is None else {"start_bits": bits}
    return row_settings(values | assigned(changes), "--set")


def _run(
    plan: Recipe,
    settings: Settings,
    method: str,
    output: Path,
    experiment: ExperimentOptions,
    device: str,
    report: Report,
) -> Row | None:
    """Return what came of it, or None where time ran out."""
    from impq_opt.baselines import table
    from impq_opt.documents.writing import atomic_write
    from impq_opt.rounds import PausedError, accuracy, rounds
    from impq_opt.rounds.folder import trained_state
    from impq_opt.rounds.measuring import surveyor
    from impq_opt.rounds.recipes import pretrained, splits_of, untrained

    splits = splits_of(plan, root=experiment.root)
    assert splits.test is not None
    fresh = method == _FLOAT and experiment.weights is None
    plan = plan.sized(splits)
    try:
        if fresh:
            start = untrained(plan, settings.seed).to(device)
        else:
            if experiment.weights is None and plan.pretraining is None:
                hint = "--weights FILE, or --pretrain EPOCHS to train it in float first"
                raise OptionError("begins with a trained network", where=f"--method {method}", hint=hint)
            start = pretrained(
                plan, output, weights=experiment.weights, root=experiment.root, device=device, report=report
            )
        records = rounds(start, splits, settings, output, measure=surveyor(settings), report=report)
    except PausedError:
        return None
    if first_process():
        from safetensors.torch import save

        atomic_write(output / "weights.safetensors", save(trained_state(output)))
    fitted = splits.fitted(start)
    before = None if fresh or fitted.test is None else accuracy(start, fitted.test)
    told = table(
        start, {method: [records]}, {method: settings}, lambda seed, name: output,
        test=splits.test, validation=splits.validation, in_float=before,
    )  # fmt: skip
    return told[0]
