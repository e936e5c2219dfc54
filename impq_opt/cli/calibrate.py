"""``impq-opt calibrate``: a quantized network brought closer to the float one without training, and packed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import CALIBRATIONS, METHODS, NETWORKS
from impq_opt.cli._common import WHOLE, JsonFlag, check_ending, parse_specs, say, spare, write_output
from impq_opt.cli._network import NETWORK_HELP, DataOptions, NetworkOptions, need_torch
from impq_opt.cli._progress import shown
from impq_opt.cli._screen import console, counted, grid, number, print_json
from impq_opt.errors import OptionError

if TYPE_CHECKING:
    from impq_opt.calibrate import Calibrated, Step

__all__ = ["calibrate"]


def calibrate(
    network: Annotated[str, NETWORKS, Parameter(help=NETWORK_HELP)],
    problem: Annotated[Path, Parameter(help="The problem that was measured on it.")],
    allocation: Annotated[Path, Parameter(help="An allocation of that problem.")],
    /,
    *,
    data: DataOptions,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The safetensors file to write, packed.")],
    model: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
    steps: Annotated[
        str | None,
        CALIBRATIONS,
        Parameter(
            help="Of ranges, clips, gptq, statistics, bias, adaround and brecq those that are done, in order, options "
            "behind a colon; gptq, statistics and bias unless given."
        ),
    ] = None,
    samples: Annotated[
        int,
        WHOLE,
        Parameter(help="Samples to calibrate on; up to 256 others, a third of all at most, judge each step."),
    ] = 512,
    method: Annotated[
        str | None,
        METHODS,
        Parameter(help="How weights and activations are rounded (`impq-opt methods`), unless as the problem says."),
    ] = None,
    seed: Annotated[int, WHOLE, Parameter(help="Of the draw of samples.")] = 0,
    json: JsonFlag = False,
) -> int:
    """Round a network as allocated, bring its decisions closer to the float network's, and write it packed.

    Needs no labels and trains nothing. After each step both networks decide on samples that it has not seen; a step
    that takes them apart, by the mean Kullback-Leibler divergence and beyond its noise, is undone.
    """
    check_ending(output, ".safetensors")
    spare(output, model.weights, problem, allocation)
    need_torch("impq-opt calibrate")
    from impq_opt.calibrate import STEPS, load_calibration
    from impq_opt.calibrate import calibrate as calibrate_network
    from impq_opt.files import load_allocation, load_problem
    from impq_opt.quantize import load_method, of_other_weights, pack, quantize, state_of

    # What is wrong with these is told before anything is loaded.
    parts = [load_calibration(spec) for spec in (STEPS if steps is None else parse_specs(steps))]
    scheme = None if method is None else load_method(method)
    if not os.path.isdir(output.absolute().parent):
        raise OptionError("is in no folder", where="--output", value=str(output), hint="make the folder first")
    declared = load_problem(problem)
    chosen = load_allocation(allocation, declared)
    float_network = model.load(network)
    quantized = quantize(float_network, chosen.problem, chosen, scheme=scheme)
    note = of_other_weights(declared, state_of(quantized, latent=True))
    with shown(f"calibrating on {data.data}") as progress:
        calibrated = calibrate_network(
            quantized, float_network, data.load("train", network), parts,
            samples=samples, seed=seed, progress=progress,
        )  # fmt: skip
    for line in filter(None, (note, *calibrated.notes)):
        say(line)

    def write(path: Path) -> None:
        pack(calibrated.network, path)

    write_output(output, write)
    if json:
        print_json(_record(calibrated))
    else:
        _print(calibrated)
    return 0


def _record(calibrated: Calibrated) -> dict[str, Any]:
    return {
        "samples": calibrated.samples,
        "held_out": calibrated.held,
        "before": calibrated.before.to_dict(),
        "after": calibrated.after.to_dict(),
        "steps": [step.to_dict() for step in calibrated.steps],
    }


_WORDS = {"kept": "kept", "undone": "undone", "refused": "refused", "nothing": "nothing to do"}


def _print(calibrated: Calibrated) -> None:
    out = console()
    out.print(
        f"calibrated on {counted(calibrated.samples, 'sample')}; KL to the float network, in nat, and share of equal "
        f"decisions on {calibrated.held} others"
    )
    table = grid("step", "", ">changed", ">KL", ">after", ">equal", ">after")
    for step in calibrated.steps:
        table.add_row(step.name, _WORDS[step.outcome], str(len(step.changed)), *_cells(step))
    out.print(table)
    for step in calibrated.steps:
        for line in step.notes if step.outcome == "nothing" else (*filter(None, [step.reason]), *step.notes):
            out.print(f"{step.name}: {line}")


def _cells(step: Step) -> tuple[str, str, str, str]:
    before, after = step.before, step.after
    return number(before.kl), number(after.kl), f"{before.agreement:.1%}", f"{after.agreement:.1%}"
