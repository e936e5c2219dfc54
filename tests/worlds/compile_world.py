"""Quantized networks, their programs, and the C file of a program compiled and run."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from every_call import every
from measure_world import digits_network
from torch import nn
from torch.nn import functional

from impq_opt import Problem
from impq_opt.compile import Program
from impq_opt.compile.encoding import encoding_of
from impq_opt.compile.levels import coded_of
from impq_opt.compile.lowering import lower
from impq_opt.compile.targets import load_target
from impq_opt.data import Dataset, load_data
from impq_opt.measure import structure_of
from impq_opt.networks import load_network
from impq_opt.quantize import quantize_traced
from impq_opt.tracing.graph import Network
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.trace import trace

CC = shutil.which("gcc") or shutil.which("cc")
ARM, BOARD = "arm-none-eabi-gcc", "qemu-system-arm"
ARM_FLAGS = ("-mthumb", "-mcpu=cortex-m4", "-O2")
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


# Where a Cortex-M finds its stack and its first instruction, and where a board of ARM's (MPS2, AN386) has memory.
_VECTORS = """
extern void _start(void);
__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {(void (*)(void))0x20400000, _start};
"""
_LAID = ("--specs=rdimon.specs", "-Wl,--section-start=.vectors=0,--section-start=.init=0x400,-Tdata=0x20000000")
_HALTED = ("-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none")
_HOSTED = ("-semihosting-config", "enable=on,target=native", "-kernel")


@dataclass(frozen=True, eq=False)
class Subject:
    """A network that was traced once, samples that are codes of 8 bits, and its problem by kernels."""

    network: Any
    x: torch.Tensor
    residual: str = "tie"

    @functools.cached_property
    def problem(self) -> Problem:
        return structure_of(self.network, Dataset(self.x, name="noise"), groups="kernel", residual=self.residual)

    @functools.cached_property
    def traced(self) -> Network:
        return trace(self.network, self.x, residual=self.residual)

    def quantized(self, grid: str = "mid-rise") -> TracedModule:
        """Return it with random precisions of 1 to 8 bits a kernel and activations of 8 bits."""
        random = np.random.default_rng(0).integers(1, 9, len(self.problem))
        bits = np.where(self.problem.weights(), random, 8)
        return quantize_traced(self.traced, self.problem, bits, scheme=grid).eval()


@functools.cache
def subject(name: str) -> Subject:
    """Return a subject: every (call), unrounded (sums, pools), resnet8, small-cnn, or digits, which is trained."""
    torch.manual_seed(1)
    if name == "every":
        return Subject(every(), (24 * noise(6, 3, 17, 16)).round() / 24)
    if name == "unrounded":
        return Subject(Unrounded().eval(), (24 * noise(6, 3, 12, 12)).round() / 24, "accumulate")
    if name == "digits":
        data = load_data("digits", "test")
        return Subject(digits_network(), data.rows(torch.arange(len(data)))[0])
    shape = (2, 3, 8, 8) if name == "resnet8" else (2, 1, 8, 8)
    return Subject(load_network(name, untrained=True), (24 * noise(*shape)).round() / 24)


class Unrounded(nn.Module):
    """Pools in front of the rounding, one of them behind a rectifier, and a residual sum that nothing rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.third, self.fourth = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.out = nn.Linear(6, 5)
        nn.init.uniform_(self.norm.weight, -1, 1)  # so that some channels fall

    def forward(self, x: Any) -> Any:
        y = self.norm(functional.max_pool2d(self.first(x), 2)).relu()
        y = (self.second(y) + 0.5 * y).relu()
        y = functional.max_pool2d(self.third(y).relu(), 3, 2, padding=1)
        return self.out(functional.avg_pool2d(self.fourth(y), 3).relu().flatten(1))


def program_of(network: TracedModule, x: torch.Tensor, **options: Any) -> Program:
    """Return the program of a quantized network."""
    return lower(network, coded_of(network), encoding_of(x.numpy()), **options)


def run_c(
    program: Program, codes: Any, folder: Path, flags: tuple[str, ...] = SANITIZERS, compiler: str = str(CC)
) -> tuple[Any, Any]:
    """Compile what the target c writes, strictly, and return the decisions (n,) and logits (n, classes) of codes."""
    return _ran(program, codes, folder, (compiler, *STRICT, *flags), ())


def run_arm(program: Program, codes: Any, folder: Path) -> tuple[Any, Any]:
    """Do the same on a Cortex-M4 that is emulated."""
    (folder / "vectors.c").write_text(_VECTORS)
    command = (ARM, *STRICT, *ARM_FLAGS, *_LAID, str(folder / "vectors.c"))
    return _ran(program, codes, folder, command, (BOARD, *_HALTED, *_HOSTED))


def _ran(
    program: Program, codes: Any, folder: Path, command: tuple[str, ...], machine: tuple[str, ...]
) -> tuple[Any, Any]:
    compiled = load_target("c")(program)
    for name, text in compiled.files.items():
        (folder / name).write_bytes(text)
    entry, output = (program.tensors[name] for name in (program.input, program.output))
    out = np.dtype(np.int8 if output.bits <= 8 else np.int16 if output.bits <= 16 else np.int32)
    main = _MAIN.format(name=program.name, inputs=entry.elements, classes=output.elements, out=f"{out.name}_t")
    (folder / "main.c").write_text(main)
    sources = [folder / "main.c", folder / f"{program.name}.c"]
    done = subprocess.run([*command, "-o", folder / "main", *sources], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    last = np.moveaxis(codes, 1, -1).astype(np.int8)
    ran = subprocess.run([*machine, folder / "main"], input=last.tobytes(), capture_output=True, check=False)
    assert not ran.returncode, ran.stderr.decode()
    rows = np.frombuffer(ran.stdout, dtype=np.dtype([("decided", np.int32), ("logits", out, output.elements)]))
    return rows["decided"], rows["logits"]


def noise(*shape: int) -> torch.Tensor:
    """Return the same samples at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
