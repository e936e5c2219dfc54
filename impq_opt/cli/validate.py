"""``impq-opt validate``: the bound held against a really quantized network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt.cli._choices import NETWORKS
from impq_opt.cli._common import WHOLE, JsonFlag, ProblemName, find_problem, parse_bits, parse_sizes, say
from impq_opt.cli._goals import activation_pins, diagnosis_text
from impq_opt.cli._network import NETWORK_HELP, DataOptions, NetworkOptions, need_torch
from impq_opt.cli._progress import shown
from impq_opt.cli._screen import console, grid, number, print_json
from impq_opt.costs import is_mean_bits
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import MissingPackageError, OptionError
from impq_opt.files import load_allocation
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve_in_passing
from impq_opt.text import bits_text

if TYPE_CHECKING:
    from impq_opt.validate.reality import Held, Reality
    from impq_opt.validate.windows import Mean

__all__ = ["validate"]

Row = tuple[str, np.ndarray, "Reality"]


def validate(
    problem: ProblemName,
    /,
    *allocations: Annotated[
        Path, Parameter(help="Files written by `impq-opt solve -o`, or packed networks (.safetensors) of the problem.")
    ],
    network: Annotated[str, NETWORKS, Parameter(help=NETWORK_HELP)],
    data: DataOptions,
    model: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
    uniform: Annotated[str | None, Parameter(help="Also all groups at these bits: 2:8.")] = None,
    bounds: Annotated[str | None, Parameter(help="Also allocations for these bounds: 0.3,0.1,0.01.")] = None,
    bits: Annotated[
        str | None,
        Parameter(
            name=["--bits", "--average-bits"],
            help="Also allocations of these sizes: mean bits of the weights, 3,4.5, or 100KiB.",
        ),
    ] = None,
    weights_only: Annotated[
        bool, Parameter(help="Leave activations in float in every row, so that rows differ in their weights alone.")
    ] = False,
    activation_bits: Annotated[
        str | None, Parameter(help="Bits of every activation in the rows of --uniform, --bounds and --average-bits.")
    ] = None,
    samples: Annotated[
        int, WHOLE, Parameter(help="Also bounds on so many of the samples, ten passes each; all serve the mismatch.")
    ] = 0,
    confidence: Annotated[float, Parameter(help="Of the interval of the mismatch.")] = 0.95,
    plot: Annotated[Path | None, Parameter(help="Draw the curve into this file (.svg, .png, .pdf).")] = None,
    json: JsonFlag = False,
) -> int:
    """Quantize a network as allocated, without retraining, and measure how often it decides differently.

    Prints side by side the problem's bound and the measured mismatch with its confidence interval; with ``--samples``
    also the bound on held-out samples, clipped at 1 per sample, and the Gaussian estimate. They are different things:
    the bound is over random rounding noise, the network is rounded once.

    All rows go over the data together, so several in one call take less time than one after another.

    Rows are alike where they differ in one thing. ``--uniform`` rounds activations too, to the same few bits, where
    allocations leave them fine as long as they cost nothing; with ``--weights-only`` neither rounds them, and each of
    ``--bits`` has the storage of the uniform row of as many bits.
    """
    need_torch("impq-opt validate")
    from impq_opt.validate.reality import Validation

    if not 0 < confidence < 1:
        raise OptionError("must be between 0 and 1", where="--confidence", value=confidence)
    if plot is not None and plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise OptionError("is no kind of picture", where="--plot", value=plot.name, hint="for example curve.svg")
    if samples < 0:
        raise OptionError("must not be negative", where="--samples", value=samples)
    declared = find_problem(problem)
    pins = activation_pins(activation_bits, [], weights_only=weights_only)
    if pins and uniform is bounds is bits is None:
        raise OptionError("is of other rows than those of files", where="--activation-bits", value=activation_bits)
    asked = declared.revise(weights_only=weights_only)
    pinned = asked.revise(pins=pins)
    solved = list(_solved(pinned, bounds, bits))
    wanted = [
        *_read(declared, asked, allocations),
        *_uniform(pinned, uniform, keep=bool(pins)),
        *((name, some) for name, some in solved if some is not None),
    ]
    missed = any(some is None for _, some in solved)
    if not wanted and missed:
        return 1
    if not wanted:
        raise OptionError(
            "nothing to validate",
            where="validate",
            hint="name allocation files, --uniform, --bounds or --bits",
        )
    with shown(f"validating on {data.data}") as progress:
        held = Validation(
            model.load(network), asked, data.load("test", network), samples=samples, confidence=confidence
        )
        for note in held.notes:
            say(note)
        realities = held.hold_all([some for _, some in wanted], progress)
        rows = [(name, held.bits(some), reality) for (name, some), reality in zip(wanted, realities, strict=True)]
    for line in _broken(rows, confidence):
        say(line)
    if plot is not None:
        _plot(asked, rows, plot)
    if json:
        print_json({"samples": held.origin, "confidence": confidence, "rows": [_record(asked, *row) for row in rows]})
    else:
        _print(asked, rows, held.origin, confidence)
    return 1 if missed else 0


def _read(declared: Problem, asked: Problem, files: tuple[Path, ...]) -> Iterator[tuple[str, Held]]:
    """Yield what each file allocates to the groups that are asked for: all of them, or the weights."""
    stems = [file.stem for file in files]
    for file in files:
        name = file.stem if stems.count(file.stem) == 1 else str(file)
        if file.suffix == ".safetensors":
            yield name, file
            continue
        loaded = load_allocation(file, declared)
        if loaded.choice is None:
            raise OptionError("holds no allocation", where=str(file), value=loaded.status.value)
        if len(loaded.problem) == len(asked):
            yield name, loaded
        elif len(loaded.problem) == len(declared):
            yield name, np.asarray(loaded.bits)[declared.weights()]
        else:
            raise OptionError("is of the weights alone", where=str(file), hint="--weights-only leaves activations out")


def _uniform(problem: Problem, widths: str | None, *, keep: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Yield all groups at each of some bits, or all weights, with activations kept at what they are pinned to."""
    weights = problem.weights()
    kept = {g: problem.candidates.of(g)[k] for g, k in problem.pins.items() if keep and not weights[g]}
    for width in [] if widths is None else parse_bits(widths, "--uniform"):
        bits = np.full(len(problem), width)
        bits[list(kept)] = list(kept.values())
        yield f"all {bits_text(width)}", bits


def _solved(problem: Problem, bounds: str | None, sizes: str | None) -> Iterator[tuple[str, Allocation | None]]:
    """Yield the allocation for each bound, and for each size; None, told why, where there is none."""
    goals: list[tuple[str, dict[str, Any]]] = [
        *((f"bound {bound:g}", {"bound": bound}) for bound in _numbers(bounds, "--bounds")),
        *(
            (_size_text(size), {"budget": size, "minimize": "storage"})
            for size in ([] if sizes is None else parse_sizes(sizes, "--bits"))
        ),
    ]
    for name, goal in goals:
        answer = solve_in_passing(problem, **goal)
        if answer.choice is None:
            say(f"{name} is left out, {answer.status.value}: {diagnosis_text(answer)}")
            yield name, None
        else:
            yield name, answer


def _size_text(size: str) -> str:
    return f"average {bits_text(float(size[:-3]))}" if is_mean_bits(size) else f"size {size}"


def _numbers(text: str | None, where: str) -> list[float]:
    try:
        numbers = [] if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError("must be numbers", where=where, value=text) from None
    if not all(0 < number < math.inf for number in numbers):
        raise OptionError("must be positive numbers", where=where, value=text)
    return numbers


def _effective(problem: Problem, bits: np.ndarray) -> tuple[float, float | None]:
    weights = problem.weights()
    means = [
        float(np.average(bits[some], weights=problem.sizes[some])) if some.any() else None
        for some in (weights, ~weights)
    ]
    return means[0] or 0.0, means[1]


def _record(problem: Problem, name: str, bits: np.ndarray, held: Reality) -> dict[str, Any]:
    weight, activation = _effective(problem, bits)
    return {
        "name": name,
        "effective_bits": {"weight": weight, "activation": activation},
        **asdict(held),
        **({} if held.language else {"bound_holds": held.low <= held.bound}),  # as far as the interval tells
    }


def _broken(rows: list[Row], confidence: float) -> Iterator[str]:
    """Yield for each row whose bound does not hold on what was seen that it does not."""
    for name, _, held in rows:
        if held.low > held.bound and held.language is None:
            yield (
                f"the bound of {name} does not hold on these samples: it says {held.bound:.3g}, and "
                f"{held.mismatch:.3g} was seen ({held.low:.3g} .. {held.high:.3g}, {confidence:.0%} confidence)"
            )


def _print(problem: Problem, rows: list[Row], origin: str, confidence: float) -> None:
    first = rows[0][2]
    if first.language is not None:
        _print_language(problem, rows, origin, confidence)
        return
    out = console()
    looked = bool(first.looked_at)
    out.print(
        f"{first.samples} {origin}"
        + (f"; bounds on {first.looked_at} of them" if looked else "")
        + f"; interval of {confidence:.0%}"
        + ("" if first.float_accuracy is None else f"; float accuracy {first.float_accuracy:.2%}")
    )
    estimates = (">on samples", ">clipped", ">Gaussian") if looked else ()
    table = grid("", ">bits w", ">bits a", ">bound", *estimates, ">mismatch", ">interval", ">accuracy")
    for name, bits, held in rows:
        weight, activation = _effective(problem, bits)
        table.add_row(
            name,
            f"{weight:.2f}",
            "-" if activation is None else f"{activation:.2f}",
            number(held.bound, 3),
            *(number(value, 3) for value in (held.here, held.clipped, held.gaussian) if looked),
            number(held.mismatch, 3),
            f"{held.low:.2g} .. {held.high:.2g}",
            "-" if held.accuracy is None else f"{held.accuracy:.2%}",
        )
    out.print(table)
    out.print("The bound is over random rounding noise; the mismatch is of one rounding. Neither stands for the other.")


def _print_language(problem: Problem, rows: list[Row], origin: str, confidence: float) -> None:
    out, first = console(), rows[0][2].language
    assert first is not None
    out.print(
        f"{first.windows} windows, {origin}; intervals of {confidence:.0%} over windows"
        + ("" if first.float_perplexity is None else f"; float perplexity {number(first.float_perplexity, 4)}")
    )
    table = grid("", ">bits w", ">said", ">KL", ">above the first", ">perplexity", ">others")
    for name, bits, held in rows:
        told = held.language
        assert told is not None
        table.add_row(
            name,
            f"{_effective(problem, bits)[0]:.2f}",
            number(held.bound, 3),
            spread(told.kl),
            "-" if told.ahead is None else spread(told.ahead),
            "-" if told.perplexity is None else number(told.perplexity, 4),
            f"{held.mismatch:.2%}",
        )
    out.print(table)
    out.print(
        "KL is nat a token, from the float network, and how far above that of the first row, paired. The problem said "
        f"so much, {problem.damage_unit}. Others are tokens that are predicted otherwise."
    )


def spread(mean: Mean) -> str:
    """Return a mean with half of its interval."""
    return f"{number(mean.value, 3)} ± {number(mean.high - mean.value, 2)}"


def _plot(problem: Problem, rows: list[Row], path: Path) -> None:
    """Draw bound, estimates and mismatch over effective weight bits."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingPackageError("matplotlib", "--plot", "'impq-opt[report]'") from None
    import io

    rows = sorted(rows, key=lambda row: _effective(problem, row[1])[0])
    x = [_effective(problem, bits)[0] for _, bits, _ in rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, style in (("bound", "k-"), ("here", "k:"), ("clipped", "C0-"), ("gaussian", "C2-")):
        values = [getattr(held, label) for _, _, held in rows]
        if values[0] is not None:
            axes.plot(x, values, style, label="bound on samples" if label == "here" else label)
    measured = np.array([held.mismatch for _, _, held in rows])
    spread = np.array([[h.mismatch - h.low for _, _, h in rows], [h.high - h.mismatch for _, _, h in rows]])
    axes.errorbar(x, measured, np.maximum(spread, 0), fmt="C3o-", capsize=3, label="measured mismatch")
    axes.set(xlabel="effective weight bits", ylabel="share of samples", yscale="log", ylim=(1e-5, None))
    axes.legend()
    buffer = io.BytesIO()
    kind = path.suffix.lstrip(".").lower()
    figure.savefig(buffer, format=kind)
    atomic_write(path, buffer.getvalue())
