"""``impq-opt pack`` and ``unpack``: a network's weights in their allocated bits, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import METHODS, NETWORKS
from impq_opt.cli._common import JsonFlag, check_ending, say, spare, write_output
from impq_opt.cli._network import NETWORK_HELP, NetworkOptions, need_torch
from impq_opt.cli._screen import console as make_console
from impq_opt.cli._screen import cost_text, grid, print_json

__all__ = ["pack", "unpack"]


def pack(
    network: Annotated[str, NETWORKS, Parameter(help=NETWORK_HELP)],
    problem: Annotated[Path, Parameter(help="The problem that was measured on it.")],
    allocation: Annotated[Path, Parameter(help="An allocation of that problem.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The safetensors file to write.")],
    model: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
    method: Annotated[
        str | None,
        METHODS,
        Parameter(help="How weights and activations are rounded (`impq-opt methods`), unless as the problem says."),
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Round a network's weights as allocated and write their codes, each in its bits, into one file.

    They are rounded by the methods that the problem names of each. With --method all are, and activations too:
    mid-rise:over=tensor, options behind a colon.
    """
    check_ending(output, ".safetensors")
    spare(output, model.weights, problem, allocation)
    need_torch("impq-opt pack")
    from impq_opt.files import load_allocation, load_problem
    from impq_opt.quantize import PackedSize, load_method, of_other_weights, quantize, state_of, weight_size
    from impq_opt.quantize import pack as pack_network

    declared = load_problem(problem)
    chosen = load_allocation(allocation, declared)
    scheme = None if method is None else load_method(method)  # what is wrong with it is told before anything is loaded
    quantized = quantize(model.load(network), chosen.problem, chosen, scheme=scheme)  # of the weights alone, perhaps
    note = of_other_weights(declared, state_of(quantized, latent=True))
    if note:
        say(note)
    sizes: list[PackedSize] = []
    write_output(output, lambda path: sizes.append(pack_network(quantized, path)))
    size = sizes[0]
    own = weight_size(quantized)
    parts = {name: getattr(size, name) for name in ("codes", "scales", "widths", "padding", "others", "header")}
    if json:
        each = {"packed": own.packed, "levels": own.effective}
        bits = parts | {"total": size.total}
        print_json({"bits": bits, "effective_bits": chosen.effective_bits[0], "bits_of_a_weight": each})
        return 0
    table = grid("", ">size", ">bits")
    for name, bits in (parts | {"file": size.total}).items():
        table.add_row(name, cost_text(bits, "bit"), str(bits))
    out = make_console()
    out.print(table)
    out.print()
    by_levels = (
        "" if own.effective == own.packed else f"; {own.effective:.4g} where codes say no more than their levels"
    )
    out.print(f"bits of a weight: {own.packed:.4g} with scales and what stays in float{by_levels}")
    return 0


def unpack(
    packed: Annotated[Path, Parameter(help="A file that `impq-opt pack` or `rounds` wrote.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The safetensors state dict to write.")],
    json: JsonFlag = False,
) -> int:
    """Restore the float state dict with the quantized values, bit for bit what the quantized network computes with."""
    check_ending(output, ".safetensors")
    spare(output, packed)
    need_torch("impq-opt unpack")
    from safetensors.torch import save

    from impq_opt.documents.writing import atomic_write
    from impq_opt.quantize import unpack as unpack_file

    unpacked = unpack_file(packed)
    write_output(output, lambda path: atomic_write(path, save(dict(unpacked.state))))
    activations = {
        a.label: {"bits": a.bits, "span": a.span, "signed": a.signed, "method": a.method} for a in unpacked.activations
    }
    if json:
        print_json(
            {"weights": {name: bits.tolist() for name, bits in unpacked.bits.items()}, "activations": activations}
        )
        return 0
    table = grid("weight", ">groups", ">bits")
    for name, bits in unpacked.bits.items():
        table.add_row(name, str(len(bits)), f"{bits.min()}..{bits.max()}")
    for name, stored in activations.items():
        table.add_row(name, "1", str(stored["bits"]))
    make_console().print(table)
    return 0
