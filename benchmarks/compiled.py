"""What an allocation by kernels costs in time once it is compiled: ratios of one run, on one thread of the processor.

    python benchmarks/compiled.py [--network resnet20|mobilenet] [--rounds 30] [--batch 1] [--seed 0]
                                  [--quick] [--json]

The packaged ResNet-20 (Fashion-MNIST), or MobileNetV1 with ImageNet weights (docs/howto/mobilenet.md), gets precisions
of 2, 3, 4 and 8 bits, drawn kernel by kernel, and activations of 8. Its ONNX files are run by ONNX Runtime, split by
precision and with one type a weight, exact and with integer kernels, beside the float network; the C file is compiled
with -O3 for this processor, with -O3 and with -O2 for any, beside the layers in plain float loops, and with weights of
1, 2, 4 and 8 bits throughout. Each round runs all of them, one after the other; printed is the median over the rounds
of the ratios of processor time, and its quartiles. Bytes of the object for Cortex-M are printed where its compiler is.
"""

from __future__ import annotations

import argparse
import ctypes
import re
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
SLOWEST = 3.0  # times the float network in ONNX Runtime
ENGINE = ("onnx", "onnxruntime", "onnxscript")


def network_of(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network and the shape of its input."""
    if name == "resnet20":
        return load_network("resnet20-fashion-mnist"), (1, 28, 28)
    from impq_opt.problems.recipes.mobilenet_v1 import mobilenet_v1

    return mobilenet_v1(), (3, 224, 224)


def program_of(network: nn.Module, x: Tensor, seed: int | None = None, width: int = 8) -> Program:
    """Return the network in whole numbers: a random precision a kernel, or without a seed one width."""
    problem = structure_of(network, Dataset(x, name="noise"), groups="kernel")
    drawn = width if seed is None else np.random.default_rng(seed).choice(WIDTHS, len(problem), p=SHARES)
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


def built(source: Path, *flags: str) -> Path:
    """Return a C file as a library."""
    library = source.with_name(f"{source.stem}{''.join(flags)}.so".replace("=", ""))
    subprocess.run(["cc", "-std=c99", *flags, "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    return library


def written(program: Program, folder: Path) -> Path:
    """Return the C file of a program in a folder of its own."""
    folder.mkdir()
    for name, text in load_target("c")(program).files.items():
        (folder / name).write_bytes(text)
    return folder / f"{program.name}.c"


def in_c(program: Program, x: Tensor, source: Path, *flags: str) -> Callable[[], object]:
    """Return what runs the C file once."""
    entry = ctypes.CDLL(str(built(source, *flags)))[f"{program.name}_run"]
    codes = np.ascontiguousarray(np.moveaxis(program.encode(x.numpy()), 1, -1).astype(np.int8))
    out = np.zeros(program.tensors[program.output].elements, dtype=np.int32)
    places = [(one.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)) for one in codes]
    return lambda: [entry(*place) for place in places]


PLAIN = """
void layer(const float *x, const float *w, const float *b, float *y, const int *s)
{
    const int in = s[0], rows = s[1], columns = s[2], inputs = s[3], out = s[4], down = s[5], wide = s[6];
    for (int row = 0; row < down; row++)
        for (int column = 0; column < wide; column++)
            for (int k = 0; k < out; k++) {
                float sum = b[k];
                for (int i = 0; i < s[7]; i++)
                    for (int j = 0; j < s[8]; j++) {
                        const int r = row * s[9] - s[10] + i, z = column * s[9] - s[11] + j;
                        if (r < 0 || r >= rows || z < 0 || z >= columns)
                            continue;
                        const float *from = x + (r * columns + z) * in + (inputs < in ? k * inputs * in / out : 0);
                        const float *own = w + ((k * s[7] + i) * s[8] + j) * inputs;
                        for (int c = 0; c < inputs; c++)
                            sum += from[c] * own[c];
                    }
                *y++ = sum > 0 ? sum : 0;
            }
}
"""


def in_plain_c(program: Program, batch: int, folder: Path) -> Callable[[], object]:
    """Return what runs the layers once in float, in the loops that one writes first; what is between is left out."""
    source = folder / "plain.c"
    source.write_text(PLAIN)
    entry = ctypes.CDLL(str(built(source, "-O3", "-march=native", "-ffast-math")))["layer"]
    random, works = np.random.default_rng(0), []
    for layer in program.layers:
        shape, out = ((*program.tensors[name].shape, 1, 1)[:3] for name in (layer.source, layer.target))
        inputs, (height, width) = layer.parts[0].codes.shape[1], layer.kernel
        (above, _), (left, _) = layer.padding
        sizes = (*shape, inputs, *out, height, width, layer.stride[0], above, left)
        arrays = [
            random.normal(size=size).astype(np.float32)
            for size in (np.prod(shape), out[0] * height * width * inputs, out[0], np.prod(out))
        ]
        works.append((*arrays, np.array(sizes, dtype=np.int32)))
    calls = [[array.ctypes.data_as(ctypes.c_void_p) for array in arrays] for arrays in works]
    return lambda: (works, [entry(*call) for _ in range(batch) for call in calls])


def on_cortex_m(source: Path) -> None:
    """Print the bytes of the object for Cortex-M, where there is a compiler."""
    compiler = "arm-none-eabi-gcc"
    if not (which(compiler) and which("arm-none-eabi-size")):
        print("  Cortex-M: skipped, arm-none-eabi-gcc is not installed", file=sys.stderr)
        return
    for core in ("cortex-m4", "cortex-m7"):
        for level in ("-Os", "-O2"):
            made = source.with_suffix(".o")
            subprocess.run(
                [compiler, "-std=c99", "-mthumb", f"-mcpu={core}", level, "-c", "-o", made, source], check=True
            )
            said = subprocess.run(["arm-none-eabi-size", made], capture_output=True, text=True, check=True).stdout
            text, data, bss = re.findall(r"\d+", said)[:3]
            print(
                f"  {core} {level}: {text} bytes of code and constants, {int(data) + int(bss)} of memory",
                file=sys.stderr,
            )


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
    reader.add_argument("--network", choices=("resnet20", "mobilenet"), default="resnet20")
    reader.add_argument("--quick", action="store_true")
    reader.add_argument("--json", action="store_true")
    options = reader.parse_args()
    torch.set_num_threads(1)
    network, shape = network_of(options.network)
    x = torch.randint(0, 256, (options.batch, *shape), generator=torch.Generator().manual_seed(0)) / 255
    program, works = program_of(network, x, options.seed), dict[str, Callable[[], object]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not skips("ONNX Runtime", *ENGINE):
            names = ("onnx", "onnx-unsplit", "onnx-qdq", "onnx-qdq-unsplit")
            works |= {name: session(next(iter(load_target(name)(program).files.values())), x) for name in names}
            works["float"] = session(in_float(network, x), x)
        if which("cc"):
            source = written(program, folder / "drawn")
            for level in ("-O3 -march=native", "-O3", "-O2"):
                works[f"c {level}"] = in_c(program, x, source, *level.split())
            works["plain"] = in_plain_c(program, options.batch, folder)
            for width in (1, 2, 4, 8) if options.network == "resnet20" else ():
                alike = program_of(network, x, width=width)
                works[f"c {width}"] = in_c(alike, x, written(alike, folder / str(width)), "-O3", "-march=native")
            on_cortex_m(source)
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
        ("C over float", "c -O3 -march=native", "float", SLOWEST),
        ("C over integer kernels", "c -O3 -march=native", "onnx-qdq", None),
        ("C over layers in plain float C", "c -O3 -march=native", "plain", 1.0),
        ("C for any processor over C for this one", "c -O3", "c -O3 -march=native", None),
        ("C with -O2 over C with -O3", "c -O2", "c -O3", None),
        *((f"C at {width} bits over C at 8 bits", f"c {width}", "c 8", None) for width in (1, 2, 4)),
    ):
        if one in works and other in works:
            low, middle, high = statistics.quantiles((each[one] / each[other] for each in rounds), n=4)
            figures.add(name, middle, most, f"times the time ({low:.2f} to {high:.2f})")
    return figures.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
