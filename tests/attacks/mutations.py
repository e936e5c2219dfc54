"""Attack: files are damaged; reading, solving, verifying and saving again must end in an answer or one sentence.

Whole files of several kinds lie in memory. An attack takes one, damages it (bytes, text, a value somewhere in the
document, an array) and reads it. Only ImpqError may come out, within seconds and within memory; what is written after
it must be whole, and nothing else may lie beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from attacks import wreck
from attacks.core import Attack, Fault, Step

KIND = "files"
EACH = 10
# Bytes that reading a file of a few kilobytes may take on top of what the process has.
MEMORY = 3 << 30

Files = dict[str, bytes]


def _graph() -> Any:
    import numpy as np

    from impq_opt import Group, Problem
    from impq_opt.costs import TableCost

    table = TableCost.from_array(np.arange(12).reshape(4, 3) / 10, name="time", unit="s")
    groups = [
        Group("x", size=5, sensitivity=0.5, kind="activation", bits=(2, 4), steps=(0, 1)),
        Group("y", size=3, sensitivity=0.1, kind="activation", bits=(2, 4, 8), steps=(1, 2)),
        Group("a", size=4, sensitivity=1.0, macs=8, reads="x", length=2, bits=(2, 4), stderr=0.1),
        Group("b", size=9, sensitivity=0.7, macs=18, reads="y", length=3, bits=(2, 4, 8), also_reads=[("x", 6)]),
    ]
    return Problem.declare(
        groups,
        bound=0.3,
        budgets={"storage": "7B", "peak-activation-memory": 40, "time": 5},
        pins={"x": 4},
        ties=[("a", "b")],
        minimize="bit-operations",
        costs=(table,),
        provenance={"network": "none", "seeds": [1, 2]},
    )


def _formats() -> Any:
    from impq_opt import Group, Problem

    each = ((0.5, 0.4, 0.1), (0.3, 0.2, 0.1), (0.9, 0.2, 0.0))
    groups = [
        Group(f"block.{i}", size=7 + i, damage=d, bits=(4, 4, 8.5), formats=("int4", "nf4", "fp8"), layer="block")
        for i, d in enumerate(each)
    ]
    return Problem.declare(groups, bound=0.9, minimize={"storage": 1, "representational": 0.5})


def _arrays() -> Any:
    import numpy as np

    from impq_opt import Problem

    kinds = ["weight"] * 4 + ["activation"] * 2
    sizes, sensitivities = [10, 20, 5, 7, 3, 4], [0.1, 1.0, 0.3, 0.2, 0.5, 0.01]
    return Problem.from_sensitivities(
        sizes,
        sensitivities,
        kinds=kinds,
        macs=np.array([10, 40, 5, 7, 0, 0]),
        reads=np.array([4, 4, 5, -1, -1, -1]),
        bound=0.05,
    ).revise(ties=[("group[0]", "group[1]")], pins={"group[5]": 8}, budgets={"storage": 260})


def _tables() -> Any:
    from impq_opt import Problem

    cost: list[list[float]] = [[-3, 5, 9], [0, 7, 8], [1.5, 2.25, 4]]
    return Problem.from_tables(cost, [[4.0, 2.0, 0.0], [1.0, 0.5, 0.1], [0.9, 0.3, 0.2]], bound=2.0)


def _measured() -> Files:
    """A problem written by hand whose cost is looked up in a table beside it."""
    text = """format = "impq-opt problem"
format_version = 1
bound = 0.4
minimize = "latency"
bits = [2, 4]
[[costs]]
name = "latency"
unit = "s"
csv = "table.csv"
[budgets]
storage = "9B"
[[groups]]
name = "act"
size = 6
sensitivity = 0.4
kind = "activation"
[[groups]]
name = "conv"
size = 12
sensitivity = 1.0
reads = "act"
macs = 24
length = 2
[[groups]]
name = "first"
size = 6
sensitivity = 2.0
"""
    rows = [f"conv,{w},{a},{w * a / 1000}" for w in (2, 4) for a in (2, 4)] + ["first,2,8,0.003", "first,4,8,7e-3"]
    table = "layer,weight_bits,activation_bits,value\n" + "\n".join(rows) + "\n"
    return {"problem.toml": text.encode(), "table.csv": table.encode()}


KINDS: dict[str, Callable[[], Any]] = {
    "by group": _graph,
    "formats": _formats,
    "by array": _arrays,
    "tables": _tables,
    "a table beside": _measured,
}


@cache
def intact(kind: str) -> Files:
    """Return the files of a kind, with a saved answer."""
    from impq_opt import solve
    from impq_opt.files import load_problem, save_allocation, save_problem

    made = KINDS[kind]()
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        folder = Path(name)
        if isinstance(made, dict):
            for file, data in made.items():
                (folder / file).write_bytes(data)
            made = load_problem(folder / "problem.toml")
        else:
            save_problem(made, folder / "problem.toml")
        save_allocation(solve(made), folder / "allocation.json")
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def attack(seed: int) -> Attack:
    """Damage files of one kind in several ways."""
    found, rng = Attack(seed, done=0), Random(seed)
    kind = rng.choice(sorted(KINDS))
    for _ in range(EACH):
        files = dict(intact(kind))
        name, how = damage(files, rng)
        found.done += 1
        found.counts[f"{kind}: {Path(name).suffix}, {how}"] += 0
        what = used(files, found.counts, quick=name == "allocation.json")
        if what:
            found.faults.append(Fault(KIND, seed, f"{what} [{kind}: {name}, {how}]", _program(files, name)))
    found.counts = Counter({key: count for key, count in found.counts.items() if count})
    return found


def whole(kind: str) -> str:
    """Return what is wrong with files that nobody damaged."""
    counts: Counter[str] = Counter()
    return used(dict(intact(kind)), counts) or ("" if counts["proved"] else str(dict(counts)))


def damage(files: Files, rng: Random) -> tuple[str, str]:
    """Damage one of the files; return its name and how."""
    name = rng.choice(sorted(files))
    if name.endswith(".safetensors"):
        files[name], how = wreck.arrays(files[name], rng)
        if rng.random() < 0.8:  # or else the digest tells
            text = json.loads(json.dumps(files["problem.toml"].decode()))
            start = text.index('sha256 = "') + 10
            digest = hashlib.sha256(files[name]).hexdigest()
            files["problem.toml"] = (text[:start] + digest + text[start + 64 :]).encode()
        return name, how
    which = {".toml": wreck.toml, ".json": wreck.json_document, ".csv": wreck.table}[Path(name).suffix]
    files[name], how = rng.choice([which, which, wreck.tokens, wreck.raw])(files[name], rng)
    return name, how


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Let the process have only so much more memory."""
    if sys.platform != "linux":
        yield
        return
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def used(files: Files, counts: Counter[str], *, quick: bool = False) -> str:
    """Return what is wrong when the files are read, the problem is solved and both are saved again."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name, little_memory():
        folder = Path(name)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        fault = _read(folder, counts, quick)
        left = sorted(path.name for path in folder.iterdir() if path.name not in files)
    strange = [one for one in left if not one.startswith(("again", "answer"))]
    return fault or (f"left behind: {', '.join(strange)}" if strange else "")


def _read(folder: Path, counts: Counter[str], quick: bool) -> str:
    from impq_opt import ImpqError, solve, verify
    from impq_opt.files import load_allocation, load_problem

    with Step("load_problem", ImpqError) as step:
        problem = load_problem(folder / "problem.toml")
    if step.fault or step.refusal:
        counts["problem refused"] += bool(step.refusal)
        return step.fault or _sentence(step.refusal)
    with Step("load_allocation and verify", ImpqError) as step:
        allocation = load_allocation(folder / "allocation.json", problem)
        verification = verify(allocation.problem, allocation)
        counts["proved" if verification.proved else "not proved"] += bool(str(verification))
        repr(allocation)
    if step.fault:
        return step.fault
    counts["allocation refused"] += bool(step.refusal)
    if step.refusal or quick:
        return _sentence(step.refusal) if step.refusal else ""
    with Step("solve and verify", ImpqError) as step:
        found = solve(problem)
        verification = verify(problem, found)
        if not verification.ok or (found.status.value in ("optimal", "infeasible") and not verification.proved):
            return f"verify does not prove what solve says: {verification}"
        repr(found)
    if step.fault or step.refusal:
        return step.fault or _sentence(step.refusal)
    counts[f"solved, {found.status.value}"] += 1
    return _saved_again(folder, problem, found)


def _saved_again(folder: Path, problem: Any, found: Any) -> str:
    from impq_opt import ImpqError
    from impq_opt.files import load_allocation, load_problem, save_allocation, save_problem

    with Step("save and load again", ImpqError) as step:
        save_problem(problem, folder / "again.toml")
        again = load_problem(folder / "again.toml")
        save_allocation(found, folder / "answer.json")
        load_allocation(folder / "answer.json", again)
        if again.digest != problem.digest:
            return "a problem that is saved and loaded is another one"
    if step.refusal:
        return f"what was loaded and solved cannot be saved and loaded: {step.refusal}"
    return step.fault


def _sentence(error: Exception | None) -> str:
    """Return what is wrong with an error for people: control characters, several lines, no end."""
    text = str(error)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text) or len(text) > 2000:
        return f"an error that cannot be shown: {text[:300]!r}"
    return ""


def _program(files: Files, name: str) -> str:
    lines = ["import pathlib", "from impq_opt import solve, verify", "from impq_opt.files import *"]
    for file, data in files.items():
        if file == name or file in ("problem.toml", "table.csv") or file.endswith(".safetensors"):
            text = repr(data)
            lines.append(f"pathlib.Path({file!r}).write_bytes({text if len(text) < 6000 else text[:6000] + '...'})")
    lines.append("problem = load_problem('problem.toml')")
    asked = "load_allocation('allocation.json', problem)" if name == "allocation.json" else "solve(problem)"
    return "\n".join(f"    {line}" for line in [*lines, f"print(verify(problem, {asked}))"])
