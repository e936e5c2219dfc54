"""``impq-opt graph``: who reads which activation, as a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._common import JsonFlag, Output, ProblemName, check_ending, find_problem, write_output
from impq_opt.cli._screen import print_json
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import OptionError
from impq_opt.files import load_allocation
from impq_opt.insight.picture import graph_svg, network_graph

__all__ = ["graph"]


def graph(
    problem: ProblemName,
    allocation: Annotated[Path | None, Parameter(help="Write this allocation's bits into the boxes.")] = None,
    /,
    *,
    output: Output = None,
    json: JsonFlag = False,
) -> int:
    """Draw who reads which activation, ties and pins, as SVG (to stdout where no file is named)."""
    check_ending(output, ".svg")
    declared = find_problem(problem)
    bits: Any = None
    if allocation is not None:
        answer = load_allocation(allocation, declared)
        if answer.choice is None:
            raise OptionError("holds no answer", where=str(allocation), value=answer.status.value)
        declared, bits = answer.problem, answer.bits
    if json:
        print_json(_record(network_graph(declared)))
    elif output is None:
        sys.stdout.write(graph_svg(declared, bits))
    if output is not None:
        write_output(output, lambda path: atomic_write(path, graph_svg(declared, bits).encode()))
    return 0


def _record(graph: Any) -> dict[str, Any]:
    return {
        "nodes": [{"name": name, **data} for name, data in graph.nodes(data=True)],
        "edges": [{"between": [first, second], **data} for first, second, data in graph.edges(data=True)],
    }
