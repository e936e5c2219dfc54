"""``impq-opt measure``: from a trained network and data to a problem file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt.cli import invocation
from impq_opt.cli._choices import ESTIMATORS, GRIDS, GROUPS, METRICS, NETWORKS, WRITERS, choices
from impq_opt.cli._common import WHOLE, JsonFlag, check_ending, parse_bits, refuse, say, write_output
from impq_opt.cli._goals import ActivationBits, Many, activation_pins
from impq_opt.cli._network import NETWORK_HELP, WINDOWS, DataOptions, NetworkOptions, is_language, left_out, need_torch
from impq_opt.cli._processes import first_process, group_left
from impq_opt.cli._progress import shown
from impq_opt.cli._screen import console, counted, grid, number, print_json
from impq_opt.errors import OptionError
from impq_opt.exchange import fused_ties, writer_of
from impq_opt.files import save_problem
from impq_opt.problem.problem import Problem

__all__ = ["measure"]

FEW = 3  # weights of a grid that are told by name


def measure(
    network: Annotated[str, NETWORKS, Parameter(help=NETWORK_HELP)],
    /,
    *,
    data: DataOptions,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The problem file to write.")],
    model: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
    groups: Annotated[str, GROUPS, Parameter(help="Weights per layer, kernel, slice, or block:N.")] = "layer",
    metric: Annotated[
        str | None,
        METRICS,
        Parameter(
            help="impq (unless given), sakr, impq-code, gaussian, measured-error, hawq, fisher (unless given of hf: "
            "networks), fit; or, with one group quantized at a time, kl, output-error, loss-delta."
        ),
    ] = None,
    estimator: Annotated[
        str | None,
        ESTIMATORS,
        Parameter(
            help="importance (unless given), signs, batch, exact, or top; importance:64 or top:9 sets draws a chunk or "
            "margins."
        ),
    ] = None,
    samples: Annotated[
        int | None, WHOLE, Parameter(help="Samples of the pool; all unless given, of a text 128 windows.")
    ] = None,
    relative_error: Annotated[
        float | None, Parameter(help="Stop when the standard errors are below this share of the values.")
    ] = None,
    quantile: Annotated[
        float | None,
        Parameter(help="With --relative-error: share of groups whose error must be there, 0.95 unless given."),
    ] = None,
    concede: Annotated[
        float | None,
        Parameter(help="Share of samples, with the smallest margins, given up as lost at any precision; none, 0."),
    ] = None,
    look: Annotated[
        str | None,
        choices("float32", "bfloat16"),
        Parameter(
            help="float32 (unless given), or bfloat16: a quicker first pass over the samples, where the processor "
            "multiplies in it."
        ),
    ] = None,
    bits: Annotated[
        str | None, Parameter(help="Candidates, such as 2,4,8; 1:8, or what the target stores, unless given.")
    ] = None,
    for_: Annotated[
        str | None,
        WRITERS,
        Parameter(
            name="--for",
            help="Tool that the network is meant for (`impq-opt formats`), options behind a colon: its grid is "
            "measured, and the problem has what it stores.",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        GRIDS,
        Parameter(
            help="How weights are rounded: mid-rise, zero (a grid with a zero level), symmetric, integer, asymmetric, "
            "affine, normal, bwn, twn, elq, lq-net, dbq, uniq, rq, rq-st (`impq-opt methods`; dorefa, pact and ttq "
            "need training), or auto: zero where many weights are exactly 0, mid-rise elsewhere; auto unless given."
        ),
    ] = None,
    residual: Annotated[
        str,
        choices("tie", "accumulate"),
        Parameter(help="tie: quantize both summands of a residual addition, alike; accumulate: neither for the sum."),
    ] = "tie",
    pin: Annotated[
        list[str] | None,
        Many,
        Parameter(help="NAME=B has the problem give B bits to what NAME means: a layer, kind:weight or type:Linear."),
    ] = None,
    activation_bits: ActivationBits = None,
    weights_only: Annotated[
        bool, Parameter(negative="", help="Leave activations out of the problem: they stay in float.")
    ] = False,
    interactions: Annotated[
        bool,
        Parameter(
            negative="",
            help="Measure what pairs of groups do together as well: with --metric kl or fisher, by layers.",
        ),
    ] = False,
    embeddings: Annotated[
        bool,
        Parameter(
            negative="",
            help="Embeddings and the head of an hf: network are groups too, one where they share a weight; they stay "
            "as they are unless given.",
        ),
    ] = False,
    fused: Annotated[
        bool,
        Parameter(negative="", help="Layers that serving engines fuse (q, k and v; gate and up) get one precision."),
    ] = False,
    bf16: Annotated[
        bool, Parameter(negative="", help="Propagate in bfloat16; the bias is measured and stored.")
    ] = False,
    seed: Annotated[int, WHOLE, Parameter(help="Of samples, signs and draws.")] = 0,
    json: JsonFlag = False,
) -> int:
    """Measure what each precision of each group does to a trained network's decisions, and write the problem.

    Of a language model, hf:FOLDER, each token of a text is a decision and each window a sample; activations stay in
    float unless their bits are given.

    Interrupted, it resumes from the last finished chunk when called again with the same arguments. Under `torchrun
    --nproc-per-node N -m impq_opt measure ...` the processes share the work and write the same numbers as one.
    """
    check_ending(output, ".toml")
    need_torch("impq-opt measure")
    from impq_opt.measure import Sampling
    from impq_opt.measure import measure as measure_network

    language = is_language(network, embeddings=embeddings)
    metric = metric or ("fisher" if language else "impq")
    weights_only = weights_only or (language and activation_bits is None)
    _refuse_ignored(metric, relative_error, quantile, {"--estimator": estimator, "--concede": concede, "--look": look})
    if samples is None and data.is_text:
        samples = WINDOWS
    sampling = Sampling(
        samples=samples, relative_error=relative_error, quantile=0.95 if quantile is None else quantile,
        concede=concede or 0.0, seed=seed, look=look or "float32",
    )  # fmt: skip
    problem_options = {
        "groups": _groups(groups),
        "estimator": _estimator(estimator or "importance"),
        "bits": parse_bits(bits or "1:8"),
        "grid": grid or "auto",
        "pins": activation_pins(activation_bits, pin or [], weights_only=weights_only),
        "weights_only": weights_only,
        "interactions": interactions,
    }
    target = None if for_ is None else writer_of(for_)
    if target is not None:
        refuse("--grid", grid, "goes without --for: it is the target's")
        refuse("--activation-bits", activation_bits, "goes without --for: weights alone are measured for a target")
        own_grid, own_bits = target.measured(groups, parse_bits(bits) if bits else ())
        problem_options |= {"grid": own_grid, "bits": own_bits, "weights_only": True}
    if not os.path.isdir(output.absolute().parent):  # before the work, not after it
        raise OptionError("is in no folder", where="--output", value=str(output), hint="make the folder first")
    first = first_process()
    with _shown(f"measuring {network}") as progress, group_left():
        loaded = model.load(network)
        problem = measure_network(
            loaded, data.load("train", network), without=left_out(loaded, language and not embeddings),
            metric=metric, sampling=sampling, residual=residual, device=model.device, bf16=bf16,
            checkpoint=output.with_name(output.name + ".partial"), progress=progress, tell=say if first else None,
            provenance={"network": network, "command": invocation()}, **problem_options,
        )  # fmt: skip
    if not first:
        return 0
    if target is not None:
        problem = target.prepare(problem)
    if fused:
        problem = problem.revise(ties=fused_ties(problem.names))
    write_output(output, lambda path: save_problem(problem, path))
    reached = problem.provenance.get("relative_error", {}).get("reached", 0.0)
    missed = relative_error is not None and reached > relative_error
    if missed:
        say(f"the samples ended at a standard error of {reached:.1%}, above {relative_error:.1%}")
    carried = problem.provenance.get("tail", {}).get("of_the_top_sample", 0.0)
    if carried > 0.2 and not concede:
        say(f"one sample carries {carried:.0%} of the sensitivities; --concede 0.005 gives up the nearest decisions")
    if json:
        print_json(_summary(problem))
    else:
        _print(problem)
    return 1 if missed else 0


def _refuse_ignored(
    metric: str, relative_error: float | None, quantile: float | None, given: dict[str, object]
) -> None:
    """Raise OptionError for options that the metric, or the lack of another option, would leave aside."""
    from impq_opt.measure.metrics import load_metric

    if relative_error is None:
        refuse("--quantile", quantile, "goes with --relative-error")
    if not load_metric(metric).margins:
        for option, value in given.items():
            refuse(option, value, f"goes with metrics of margins, and {metric} is none")
    elif not str(given["--estimator"] or "importance").startswith("importance") and not given["--concede"]:
        refuse("--look", given["--look"], "goes with the estimator importance, or --concede")


def _groups(text: str) -> Any:
    from impq_opt.measure import Grouping

    return Grouping.read(text, "--groups")


def _estimator(text: str) -> Any:
    from impq_opt.measure import Estimator

    name, colon, value = text.partition(":")
    options = {"importance": "draws", "signs": "probes", "batch": "probes", "top": "margins"}
    if colon and name in options:
        return Estimator(name, **{options[name]: _count(value, "--estimator")})
    return Estimator(text)


def _count(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OptionError("needs a whole number behind the colon", where=where, value=text) from None


@contextlib.contextmanager
def _shown(what: str) -> Iterator[Callable[[int, int, float], None]]:
    """Show how far measuring is."""
    with shown(what) as tell:
        yield lambda done, total, error: tell("chunks", done, total, f"standard errors {error:.1%}")


def _summary(problem: Problem) -> dict[str, Any]:
    return {
        "groups": len(problem),
        "weight_groups": int(problem.weights().sum()),
        "metric": problem.metric,
        "damage_unit": problem.damage_unit,
        "problem_digest": problem.digest,
        "stays": None
        if problem.stays is None
        else [asdict(stay) | {"bits": float(stay.bits)} for stay in problem.stays],
        "unmeasured": [problem.names[g] for g in np.flatnonzero(problem.unmeasured)]
        if problem.unmeasured is not None
        else [],
        "provenance": dict(problem.provenance),
    }


def _zeros(problem: Problem) -> list[str]:
    """Return in words why damages came out at exactly 0."""
    record = problem.provenance.get("zero_damages", {})
    why = {
        "no_gradient": "no gradient comes back from the logits, which change all the same; is there a sign, a "
        "rounding or a comparison behind?",
        "no_effect": f"at its fewest bits rounding changes no logit of {record.get('samples')} samples",
    }
    return [f"damage 0 at {record[key]['such_as']}: {text}" for key, text in why.items() if key in record]


def _print(problem: Problem) -> None:
    """Print what was measured, largest sensitivities first."""
    from impq_opt.groups.damage import PowerLaw

    out, record = console(), problem.provenance
    weights = int(problem.weights().sum())
    errors = record.get("relative_error")
    out.print(
        f"{counted(weights, 'weight group')}, {counted(len(problem) - weights, 'activation group')}; "
        f"{record['samples']} samples, "
        f"{record['chunks']} chunks" + ("" if errors is None else f", standard errors {errors['median']:.1%} (median)")
    )
    for line in [*_noise(problem), *problem.notes(), *_zeros(problem)]:
        out.print(line)
    if "bf16_bias" in record:
        bias = record["bf16_bias"]
        out.print(f"bfloat16 changes values by {bias['median']:+.2%} (median), at most {bias['largest']:.2%}")
    if not isinstance(problem.damage, PowerLaw):
        return
    values, errors = problem.damage.sensitivity, problem.damage.stderr
    table = grid("most sensitive", ">size", ">E", ">standard error")
    for group in (-values).argsort(kind="stable")[:8]:
        error = None if errors is None else float(errors[group])
        table.add_row(
            problem.names[int(group)], str(problem.sizes[group]), number(float(values[group])), number(error, 2)
        )
    out.print(table)


def _noise(problem: Problem) -> Iterator[str]:
    """Yield in a line each which grids are not mid-rise, and where rounding errors are not the noise of the bound."""
    if problem.grids:
        labels: dict[str, list[str]] = {}
        for label, spec in problem.grids.items():
            labels.setdefault(spec, []).append(label)
        yield "grids: " + ", ".join(
            f"{spec} at {len(some)} weights" if len(some) > FEW else ", ".join(f"{label} {spec}" for label in some)
            for spec, some in labels.items()
        )
    record = problem.provenance.get("noise")
    if not record:
        return
    unlike = record.get("errors_as_they_are", {})
    if unlike:
        yield (
            f"noise of mean 0 and variance step^2/12: {record['holds']} of {record['of']} weight groups; "
            "for the others damages are of the errors as they are:"
        )
    for label, reason in unlike.items():
        yield f"  {label}: {reason}"
