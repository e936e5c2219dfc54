"""Quantized networks, their programs, and the C file of a program compiled and run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from impq_opt.compile import Program
from impq_opt.compile.encoding import encoding_of
from impq_opt.compile.levels import coded_of
from impq_opt.compile.lowering import lower
from impq_opt.compile.targets import load_target
from impq_opt.data import Dataset
from impq_opt.measure import structure_of
from impq_opt.quantize import quantize

CC = shutil.which("gcc") or shutil.which("cc")
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

_MAIN = """
#include <stdio.h>
#include "{name}.h"

int main(void)
{{
    static int8_t in[{inputs}];
    static {out} out[{classes}];
    while (fread(in, 1, sizeof in, stdin) == sizeof in) {{
        int32_t decided = {name}_run(in, out);
        fwrite(&decided, sizeof decided, 1, stdout);
        fwrite(out, 1, sizeof out, stdout);
    }}
    return 0;
}}
"""


def quantized(network: Any, x: Any, grid: str = "mid-rise", seed: int = 0, activations: int = 8) -> Any:
    """Return a network with random precisions of 1 to 8 bits a kernel, rounded activations, in eval mode."""
    problem = structure_of(network, Dataset(x, name="noise"), grid=grid, groups="kernel")
    random = np.random.default_rng(seed).integers(1, 9, len(problem))
    return quantize(network, problem, np.where(problem.weights(), random, activations), example=x).eval()


def program_of(network: Any, x: Any, **options: Any) -> Program:
    """Return the program of a quantized network."""
    return lower(network, coded_of(network), encoding_of(x.numpy()), **options)


def run_c(program: Program, codes: Any, folder: Path, flags: tuple[str, ...] = SANITIZERS) -> tuple[Any, Any]:
    """Compile what the target c writes, strictly, and return the decisions (n,) and logits (n, classes) of codes."""
    compiled = load_target("c")(program)
    for name, text in compiled.files.items():
        (folder / name).write_bytes(text)
    entry, output = (program.tensors[name] for name in (program.input, program.output))
    out = np.dtype(np.int8 if output.bits <= 8 else np.int16 if output.bits <= 16 else np.int32)
    main = _MAIN.format(name=program.name, inputs=entry.elements, classes=output.elements, out=f"{out.name}_t")
    (folder / "main.c").write_text(main)
    sources = [folder / "main.c", folder / f"{program.name}.c"]
    done = subprocess.run(
        [str(CC), *STRICT, *flags, "-o", folder / "main", *sources], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    last = np.moveaxis(codes, 1, -1).astype(np.int8)
    ran = subprocess.run([folder / "main"], input=last.tobytes(), capture_output=True, check=False)
    assert not ran.returncode, ran.stderr.decode()
    rows = np.frombuffer(ran.stdout, dtype=np.dtype([("decided", np.int32), ("logits", out, output.elements)]))
    return rows["decided"], rows["logits"]


def noise(*shape: int) -> torch.Tensor:
    """Return the same samples at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
