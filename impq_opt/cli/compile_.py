"""``impq-opt compile``: an allocation as integer code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import DATA, NETWORKS, PROBLEMS, TARGETS
from impq_opt.cli._common import WHOLE, JsonFlag, find_problem, refuse, say
from impq_opt.cli._network import DATA_HELP, NETWORK_HELP, DataOptions, NetworkOptions, need_torch
from impq_opt.cli._progress import shown
from impq_opt.cli._screen import console, cost_text, grid, print_json
from impq_opt.errors import FileError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from impq_opt.compile import Agreement, Encoding, Program, Rounded
    from impq_opt.compile.targets import Compiled, Ran
    from impq_opt.problem.allocation import Allocation

__all__ = ["compile_"]

TO_HELP = (
    "What to write: c, one C99 file and its header; onnx, weights of 2, 4 and 8 bits, or onnx-unsplit, one type a "
    "weight; onnx-qdq and onnx-qdq-unsplit, the same with real scales, faster, near the reference; qonnx, Quant nodes."
)

_RUN = 256  # samples that an engine runs, where one is here
# What of the C file lies where.
_MEMORY = {"flash": ("weights", "scales and biases", "tables"), "ram": ("activations", "scratch")}
_WHOLE_OF = {"flash": "flash, all of it", "ram": "RAM, all of it"}
_PACKED = "network.safetensors"  # in a folder of quantize


def compile_(
    network: Annotated[str, NETWORKS, Parameter(help=NETWORK_HELP)],
    source: Annotated[
        str,
        PROBLEMS,
        Parameter(help="The problem that was measured on it; or a packed file, or a folder of `impq-opt quantize`."),
    ],
    allocation: Annotated[Path | None, Parameter(help="An allocation of that problem.")] = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder to write to.")],
    to: Annotated[str, TARGETS, Parameter(help=TO_HELP)] = "c",
    data: Annotated[
        str | None, DATA, Parameter(help=f"Tells the input's range, and decisions are compared on it: {DATA_HELP}")
    ] = None,
    split: Annotated[str | None, Parameter(help="train, validation, test or all; test unless given.")] = None,
    root: Annotated[Path | None, Parameter(help="Where torchvision keeps data sets.")] = None,
    size: Annotated[int | None, WHOLE, Parameter(help="Side in pixels of the pictures of a folder.")] = None,
    samples: Annotated[int | None, WHOLE, Parameter(help="The first so many samples; all unless given.")] = None,
    input_range: Annotated[
        str | None, Parameter(help="LOW:HIGH, what the first and last of 256 input codes stand for, without --data.")
    ] = None,
    output_bits: Annotated[int, WHOLE, Parameter(help="Of the logits, 2 to 24.")] = 24,
    name: Annotated[str | None, Parameter(help="Of the function and the files; the network's unless given.")] = None,
    model: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
    json: JsonFlag = False,
) -> int:
    """Write a quantized network as code that computes in whole numbers, each kernel in its allocated bits.

    Layers are split by precision, batch-norms and biases are part of one rounding by a 32-bit multiplier and a shift.
    The code puts out, bit for bit, what the reference of this package does; with --data its decisions are held against
    those of the quantized network in floating point. What has no form in whole numbers is refused before anything is
    written.
    """
    need_torch("impq-opt compile")
    from impq_opt.compile import agreement
    from impq_opt.compile.targets import load_target, ran

    write = load_target(to)
    if data is None:
        for option, value in {"--split": split, "--root": root, "--size": size, "--samples": samples}.items():
            refuse(option, value, "goes with --data")
    if (data is None) == (input_range is None):
        raise OptionError("gives the range of the input: one of both", where="--data or --input-range")
    given = None if data is None else _samples(DataOptions(data, root, size, split=split), samples)
    rounded, chosen = _rounded(model, network, source, allocation, None if given is None else given[0][:2])
    encoding = _encoding(rounded, input_range) if given is None else _encoding_of(given[0])
    program = rounded.program(
        encoding, name=name or re.sub(r"\W", "_", Path(network).stem, flags=re.ASCII), output_bits=output_bits
    )
    limit = None if chosen is None or to != "c" else chosen.problem.budgets.get("ram")
    compiled = write(program) if limit is None else write(program, ram=int(limit) // 8)
    memory = {} if chosen is None or to != "c" else _memory(chosen, compiled)
    alike, put_out = None, None
    if given is not None:
        put_out = ran(program, compiled, given[0][:_RUN].cpu().numpy())
        with shown("comparing decisions") as progress:
            alike = agreement(
                program, rounded.network, *given,
                progress=None if progress is None else lambda done, total: progress("comparing", done, total),
            )  # fmt: skip
    _write(output, compiled)
    if json:
        print_json(_record(program, compiled, memory, alike, put_out))
    else:
        _print(program, compiled, memory, alike, put_out, output)
    return 0


def _samples(options: DataOptions, most: int | None) -> tuple[Tensor, Tensor | None]:
    import torch

    from impq_opt.errors import DataError

    data = options.load("test")
    x, labels = data.rows(torch.arange(len(data) if most is None else min(most, len(data))))
    if not isinstance(x, torch.Tensor):
        raise DataError("has several inputs", where="--data", hint="networks of one input can be compiled")
    return x, labels


def _rounded(
    model: NetworkOptions, network: str, source: str, allocation: Path | None, example: Tensor | None
) -> tuple[Rounded, Allocation | None]:
    from impq_opt.compile import rounded_by, rounded_from

    packed = Path(source) / _PACKED if Path(source).is_dir() else Path(source)
    if packed.suffix == ".safetensors":
        refuse("ALLOCATION", allocation, "is in the packed file")
        return rounded_from(model.load(network), packed, example=example), None
    if allocation is None:
        raise OptionError("is missing", where="ALLOCATION", hint="compile NETWORK PROBLEM ALLOCATION")
    from impq_opt.files import load_allocation
    from impq_opt.quantize import of_other_weights

    declared = find_problem(source)
    chosen = load_allocation(allocation, declared)
    loaded = model.load(network)
    note = of_other_weights(declared, loaded.state_dict())
    if note:
        say(note)
    return rounded_by(loaded, chosen.problem, chosen, example=example), chosen


def _memory(chosen: Allocation, compiled: Compiled) -> dict[str, tuple[int | None, int]]:
    """Return the bytes of flash and RAM that an allocation promises, None where its problem cannot tell, and real ones.

    Raises
    ------
    DataError
        More than a budget of the problem allows.
    """
    from impq_opt.errors import DataError, ProblemError
    from impq_opt.insight.cost_at import cost_at

    real = {size.name: size.real for size in compiled.sizes}
    found: dict[str, tuple[int | None, int]] = {}
    for name, kinds in _MEMORY.items():
        used = sum(real[kind] for kind in kinds)
        try:
            promised = int(cost_at(chosen.problem, chosen.bits, name) / 8)
        except ProblemError:  # of a problem that does not say enough
            promised = None
        budget = chosen.problem.budgets.get(name)
        if budget is not None and 8 * used > budget:
            raise DataError(
                f"takes {cost_text(8 * used, 'bit')}, above the budget of {cost_text(budget, 'bit')}",
                where=f"the C file's {name}", hint="ask for a smaller one",
            )  # fmt: skip
        found[name] = promised, used
    return found


def _encoding_of(x: Tensor) -> Encoding:
    from impq_opt.compile import encoding_of

    return encoding_of(x.cpu().numpy())


def _encoding(rounded: Rounded, text: str | None) -> Encoding:
    from impq_opt.compile import encoding_between

    low, _, high = str(text).partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise OptionError("must be LOW:HIGH", where="--input-range", value=text, hint="such as -1:1") from None
    return encoding_between(*ends, channels=int(rounded.network.takes["shape"][0]))


def _write(folder: Path, compiled: Compiled) -> None:
    from impq_opt.documents.writing import atomic_write

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError("cannot be made a folder", where=str(folder), value=error.strerror) from None
    for name, content in compiled.files.items():
        atomic_write(folder / name, content)


def _record(
    program: Program,
    compiled: Compiled,
    memory: Mapping[str, tuple[int | None, int]],
    alike: Agreement | None,
    put_out: Ran | None,
) -> Mapping[str, object]:
    compared = None
    if alike is not None:
        compared = {
            "samples": alike.samples, "alike": alike.alike, "largest_margin": alike.margin,
            "right": alike.right, "right_in_float": alike.right_in_float,
        }  # fmt: skip
    return {
        "name": program.name,
        "files": {name: len(content) for name, content in compiled.files.items()},
        "bytes": {size.name: {"promised": size.promised, "real": size.real} for size in compiled.sizes},
        "memory": {name: {"promised": promised, "real": real} for name, (promised, real) in memory.items()},
        "layers": {layer.name: {str(part.bits): len(part) for part in layer.parts} for layer in program.layers},
        "input": {"scale": program.encoding.scale.tolist(), "zero": program.encoding.zero.tolist()},
        "output": {"bits": program.tensors[program.output].bits, "scale": program.tensors[program.output].scale},
        "agreement": compared,
        "run": None if put_out is None else asdict(put_out),
        "notes": [*program.notes, *compiled.notes],
    }


def _print(
    program: Program,
    compiled: Compiled,
    memory: Mapping[str, tuple[int | None, int]],
    alike: Agreement | None,
    put_out: Ran | None,
    folder: Path,
) -> None:
    out = console()
    table = grid("", ">promised", ">real")
    sizes = [(size.name, size.promised, size.real) for size in compiled.sizes]
    for what, promised, real in [*sizes, *((_WHOLE_OF[name], *pair) for name, pair in memory.items())]:
        table.add_row(what, "" if promised is None else cost_text(8 * promised, "bit"), cost_text(8 * real, "bit"))
    out.print(table)
    parts = sum(len(layer.parts) for layer in program.layers)
    out.print(f"{len(program.layers)} layers in {parts} parts of one precision each")
    if alike is not None:
        out.print(
            f"decides as the quantized network does on {alike.alike:,} of {alike.samples:,} samples "
            f"({alike.alike / alike.samples:.2%})"
        )
        if alike.alike < alike.samples:
            out.print(f"where it does not, the two largest logits are at most {alike.margin:.3g} apart")
        if alike.right is not None and alike.right_in_float is not None:
            right, other = (count / alike.samples for count in (alike.right, alike.right_in_float))
            out.print(f"accuracy {right:.2%}, in floating point {other:.2%}")
    if put_out is not None:
        out.print(
            f"run here, the file puts out the reference's logits bit for bit on {put_out.equal:,} of "
            f"{put_out.samples:,} samples, and decides alike on {put_out.alike:,}"
        )
    for note in (*program.notes, *compiled.notes):
        out.print(note)
    out.print(f"written to {folder}: {', '.join(compiled.files)}")
