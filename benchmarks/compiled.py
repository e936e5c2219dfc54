"""What an allocation by kernels costs in time once it is compiled: ratios of one run, on one thread of the processor.

    python benchmarks/compiled.py [--rounds 30] [--batch 1] [--seed 0] [--quick] [--json]

The packaged ResNet-20 (Fashion-MNIST) gets precisions of 2, 3, 4 and 8 bits, drawn kernel by kernel, and activations of
8. Its ONNX files are run by ONNX Runtime, split by precision and with one type a weight, exact and with integer
kernels, beside the float network; the C file is compiled with -O3 for this processor. Each round runs all of them, one
after the other; printed is the median over the rounds of the ratios of processor time.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import which

from _figures import Figures
from _needs import need, skips

need("torch")

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.compile import Program, encoding_of, rounded_by
from impq_opt.compile.targets import load_target
from impq_opt.data import Dataset
from impq_opt.measure import structure_of
from impq_opt.networks import load_network

WIDTHS, SHARES = (2, 3, 4, 8), (0.3, 0.3, 0.3, 0.1)
MOST = 1.3  # times the unsplit layers
ENGINE = ("onnx", "onnxruntime", "onnxscript")


def program_of(network: nn.Module, x: Tensor, seed: int) -> Program:
    """Return the network in whole numbers, a random precision a kernel."""
    problem = structure_of(network, Dataset(x, name="noise"), groups="kernel")
    drawn = np.random.default_rng(seed).choice(WIDTHS, len(problem), p=SHARES)
    bits = np.where(problem.weights(), drawn, 8)
    return rounded_by(network, problem, bits, example=x).program(encoding_of(x.numpy()))


def session(content: bytes, x: Tensor) -> Callable[[], object]:
    """Return what runs an ONNX file once, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    made = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    given = {made.get_inputs()[0].name: x.numpy()}
    return lambda: made.run(None, given)


def in_float(network: nn.Module, x: Tensor) -> bytes:
    """Return the float network as an ONNX file."""
    made = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
    return made.model_proto.SerializeToString()


def in_c(program: Program, x: Tensor, folder: Path) -> Callable[[], object]:
    """Return what runs the C file once."""
    for name, text in load_target("c")(program).files.items():
        (folder / name).write_bytes(text)
    library = folder / "network.so"
    flags = ["-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", library, folder / f"{program.name}.c"], check=True)
    entry = ctypes.CDLL(str(library))[f"{program.name}_run"]
    codes = np.ascontiguousarray(np.moveaxis(program.encode(x.numpy()), 1, -1).astype(np.int8))
    out = np.zeros(program.tensors[program.output].elements, dtype=np.int32)
    places = [(one.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)) for one in codes]
    return lambda: [entry(*place) for place in places]


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of ``work``."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> int:
    """Compile, run in rounds, and print ratios."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("rounds", 30), ("batch", 1), ("seed", 0)):
        reader.add_argument(f"--{name}", type=int, default=usual)
    reader.add_argument("--quick", action="store_true")
    reader.add_argument("--json", action="store_true")
    options = reader.parse_args()
    torch.set_num_threads(1)
    network = load_network("resnet20-fashion-mnist")
    x = torch.randint(0, 256, (options.batch, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255
    program, works = program_of(network, x, options.seed), dict[str, Callable[[], object]]()
    with tempfile.TemporaryDirectory() as folder:
        if not skips("ONNX Runtime", *ENGINE):
            names = ("onnx", "onnx-unsplit", "onnx-qdq", "onnx-qdq-unsplit")
            works |= {name: session(next(iter(load_target(name)(program).files.values())), x) for name in names}
            works["float"] = session(in_float(network, x), x)
        if which("cc"):
            works["c"] = in_c(program, x, Path(folder))
        for work in works.values():
            work()
        rounds = [
            {name: seconds(work) for name, work in works.items()} for _ in range(8 if options.quick else options.rounds)
        ]
    figures = Figures()
    for name, one, other, most in (
        ("exact, split over unsplit", "onnx", "onnx-unsplit", MOST),
        ("integer kernels, split over unsplit", "onnx-qdq", "onnx-qdq-unsplit", MOST),
        ("exact over float", "onnx", "float", None),
        ("integer kernels over float", "onnx-qdq", "float", None),
        ("C over float", "c", "float", None),
        ("C over integer kernels", "c", "onnx-qdq", None),
    ):
        if one in works and other in works:
            figures.add(name, statistics.median(each[one] / each[other] for each in rounds), most, "times the time")
    return figures.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
