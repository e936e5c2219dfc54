"""``impq-opt quantize``: from a trained network to the quantized network of a given size, in one command."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from impq_opt.cli import invocation
from impq_opt.cli._choices import GRIDS, GROUPS, METRICS, NETWORKS, WRITERS
from impq_opt.cli._common import WHOLE, JsonFlag, parse_bits, parse_budgets, parse_specs, refuse, say
from impq_opt.cli._goals import Many
from impq_opt.cli._network import (
    NETWORK_HELP,
    WINDOWS,
    NetworkOptions,
    SamplesOptions,
    is_language,
    left_out,
    need_torch,
)
from impq_opt.cli._progress import shown
from impq_opt.cli._screen import console, cost_text, grid, number, print_json
from impq_opt.errors import OptionError

if TYPE_CHECKING:
    from impq_opt.pipeline import Outcome, Plan
    from impq_opt.pipeline.differences import Difference
    from impq_opt.validate.windows import Language

__all__ = ["quantize"]


def quantize(
    network: Annotated[str, NETWORKS, Parameter(help=NETWORK_HELP)],
    /,
    *,
    data: SamplesOptions,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder of the run; a run in it goes on.")],
    budget: Annotated[
        list[str] | None,
        Many,
        Parameter(
            help="Largest size of the file, all counted: 100KiB. NAME=VALUE limits another cost. May be repeated, "
            "or have commas between."
        ),
    ] = None,
    bits: Annotated[float | None, Parameter(help="Largest mean precision of the weights, such as 3 or 2.25.")] = None,
    accuracy_loss: Annotated[
        str | None,
        Parameter(help="Largest fall of the accuracy, such as 0.5%: the smallest network within it."),
    ] = None,
    bound: Annotated[float | None, Parameter(help="Largest mismatch bound p_m.")] = None,
    activation_bits: Annotated[
        float | None, Parameter(help="Bits of every activation; unless given they stay in float.")
    ] = None,
    weights_only: Annotated[bool, Parameter(negative="", help="Leave activations in float, as usual.")] = False,
    groups: Annotated[str, GROUPS, Parameter(help="Weights per layer, kernel, slice, or block:N.")] = "layer",
    metric: Annotated[
        str | None,
        METRICS,
        Parameter(help="What prices precisions; of layers kl, of finer groups measured-error, of hf: fisher."),
    ] = None,
    interactions: Annotated[
        bool,
        Parameter(negative="", help="Allocate by what pairs of layers do together as well; with --metric kl."),
    ] = False,
    grid_: Annotated[
        str | None, GRIDS, Parameter(name="--grid", help="How weights are rounded (`impq-opt methods`).")
    ] = None,
    candidates: Annotated[
        str | None, Parameter(help="Precisions that weights may take, such as 2,4,8; 1:8, or what the target stores.")
    ] = None,
    for_: Annotated[
        str | None,
        WRITERS,
        Parameter(
            name="--for",
            help="Tool that the network is meant for (`impq-opt formats`), options behind a colon: its grid and its "
            "precisions are taken, and its configuration is written too.",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        Parameter(help="Steps of calibration with commas (`impq-opt calibrate --help`), or none, as of hf:."),
    ] = None,
    samples: Annotated[
        int | None, WHOLE, Parameter(help="Samples to measure and to calibrate on; 512, of a text 128, unless given.")
    ] = None,
    embeddings: Annotated[
        bool,
        Parameter(negative="", help="Quantize embeddings and the head of an hf: network too; they stay unless given."),
    ] = False,
    seed: Annotated[int, WHOLE, Parameter(help="Of their draw.")] = 0,
    confidence: Annotated[float, Parameter(help="Of intervals, and of keeping a loss of accuracy.")] = 0.95,
    model: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
    json: JsonFlag = False,
) -> int:
    """Measure, allocate, calibrate, judge and pack, for a size, a loss of accuracy, or a bound; one of them is given.

    Measures and calibrates on training data, judges on test data, of data that are one set on parts of it; labels are
    needed for a loss of accuracy alone. Uniform precision of at most the same size, on the same grid and calibrated
    alike, is always judged too, and taken where it comes out closer to the float network. Stopped at any time, the same
    command goes on.

    The folder gets problem.toml, allocation.json, network.safetensors (`impq-opt unpack` and validate read it),
    network.pt2 (torch.export.load reads it), report.html and result.json; of an hf: network, in place of the program,
    checkpoint, which transformers load.
    """
    need_torch("impq-opt quantize")
    from impq_opt.pipeline import Plan, quantize_network

    if weights_only:
        refuse("--activation-bits", activation_bits, "--weights-only leaves activations in float")
    language = is_language(network, embeddings=embeddings)
    if language:
        metric, calibration = metric or "fisher", calibration or "none"
    plain, limits = parse_budgets(budget or ())
    if len(plain) > 1:
        raise OptionError("more than one size", where="--budget", value=" and ".join(plain))
    named = {"metric": metric, "grid": grid_, "calibration": None if calibration is None else _steps(calibration)}
    plan = Plan(
        budget=plain[0] if plain else None,
        bits=bits,
        accuracy_loss=None if accuracy_loss is None else _share(accuracy_loss),
        bound=bound,
        limits=limits,
        activation_bits=activation_bits,
        groups=groups,
        interactions=interactions,
        candidates=() if candidates is None else tuple(parse_bits(candidates, "--candidates")),
        target=for_ or "",
        samples=samples if samples is not None else WINDOWS if data.is_text else 512,
        seed=seed,
        confidence=confidence,
        **{name: value for name, value in named.items() if value is not None},  # type: ignore[arg-type]
    )
    with shown(f"quantizing {network}") as progress:
        loaded = model.load(network)
        plan = dataclasses.replace(plan, without=left_out(loaded, language and not embeddings))
        outcome = quantize_network(
            loaded, data.load("train", network), data.load("test", network), plan, output,
            device=model.device, progress=progress, tell=say,
            provenance={"network": network, "command": invocation()},
        )  # fmt: skip
    if json:
        print_json(outcome.to_dict(plan.confidence))
    else:
        _print(outcome, plan)
    return 0 if outcome.met else 1


def _steps(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(parse_specs(text))


def _share(text: str) -> float:
    """Return a share that people write as 0.5% or 0.005."""
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise OptionError("must be a share", where="--accuracy-loss", value=text, hint="such as 0.5%") from None


def _print(outcome: Outcome, plan: Plan) -> None:
    out = console()
    labelled = outcome.rows[0].accuracy is not None
    language = any(row.language for row in outcome.rows)
    out.print(f"judged on {outcome.samples:,} samples of {outcome.origin}; intervals of {plan.confidence:.0%}")
    columns = (">accuracy", ">loss in points") if labelled else (">KL", ">interval", ">perplexity") if language else ()
    table = grid("", ">file", ">bits a weight", *columns, ">decides alike")
    for row in outcome.rows:
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.2%}"
        loss = "-" if row.loss is None else _points(row.loss, plan.confidence)
        shown = (accuracy, loss) if labelled else language_cells(row.language) if language else ()
        table.add_row(
            row.name, cost_text(8 * row.size, "bit"), f"{row.weight_bits:.3g}", *shown, f"{row.agreement:.2%}"
        )
    out.print(table)
    if language and (compared := outcome.rows[-1].language) is not None and compared.ahead is not None:
        more = compared.ahead
        out.print(
            f"KL of {outcome.rows[-1].name} less that of the allocated: {number(more.value, 2)} "
            f"({number(more.low, 2)} .. {number(more.high, 2)}), paired over windows"
        )
    if outcome.ahead is not None:
        what = "right" if labelled else "as the float network decides"
        out.print(f"allocated ahead of {outcome.rows[2].name}: {_points(outcome.ahead, plan.confidence)} points {what}")
    for step in outcome.calibration:
        told = "" if step["outcome"] == "kept" else f" ({step['reason']})"
        before, after = step["before"]["kl"], step["after"]["kl"]
        out.print(f"{step['name']}: {step['outcome']}, KL {before:.3g} to {after:.3g}{told}")
    for note in outcome.notes:
        out.print(note)
    if outcome.chosen != "allocated":
        out.print(f"{outcome.chosen} is the answer: it was closer to the float network on samples that nobody had seen")
    if outcome.reason:
        out.print(f"the goal is not shown to be kept: {outcome.reason}")
    out.print(f"written to {outcome.folder}")


def language_cells(told: Language | None) -> tuple[str, str, str]:
    """Return divergence, its interval and perplexity; nothing of the float network."""
    if told is None:
        return "-", "-", "-"
    perplexity = "-" if told.perplexity is None else number(told.perplexity, 4)
    return number(told.kl.value, 3), f"{told.kl.low:.2g} .. {told.kl.high:.2g}", perplexity


def _points(value: Difference, confidence: float) -> str:
    low, high = value.interval(confidence)
    return f"{100 * value.value:.2f} ({100 * low:.2f} .. {100 * high:.2f})"
