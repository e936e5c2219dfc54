"""The C file: compiled strictly, run under sanitizers, and held against the reference bit for bit."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from compile_world import ARM, BOARD, CC, SANITIZERS, STRICT, program_of, run_arm, run_c, subject
from hypothesis import given
from hypothesis import strategies as st
from known import known

from impq_opt.cli._choices import TARGET_NAMES
from impq_opt.compile import Add, Encoding, IntTensor, Layer, Part, Program, Rescale, run, trace_program
from impq_opt.compile.targets import TARGETS, load_target
from impq_opt.compile.targets.c import packed_codes
from impq_opt.compile.targets.c.codes import OVERRUN
from impq_opt.errors import OptionError

compiler = pytest.mark.skipif(CC is None, reason="no C compiler")


@pytest.mark.parametrize(
    ("name", "network", "bits"),
    [("gcc", "every", 24), ("gcc", "every", 8), ("gcc", "unrounded", 24), ("clang", "every", 24)],
)
def test_every_call_is_the_reference_bit_for_bit(name: str, network: str, bits: int, tmp_path: Path) -> None:
    if not which(name):
        pytest.skip(f"{name} is not installed")
    own = subject(network)
    program = program_of(own.quantized("asymmetric" if bits == 8 else "mid-rise"), own.x, output_bits=bits)
    codes = program.encode(own.x.numpy())
    expected = run(program, codes)
    decided, logits = run_c(program, codes, tmp_path, compiler=name)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(decided, expected.argmax(1))


def test_a_microcontroller_computes_the_same_bits(tmp_path: Path) -> None:
    missing = [name for name in (ARM, BOARD) if not which(name)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    own = subject("digits")
    program = program_of(own.quantized(), own.x, name="digits")
    codes = program.encode(own.x[:16].numpy())
    decided, logits = run_arm(program, codes, tmp_path)
    np.testing.assert_array_equal(logits, run(program, codes))
    np.testing.assert_array_equal(decided, logits.argmax(1))


def _part(bits: int, kernels: Any, reads: Any, shape: tuple[int, ...], size: float, factor: int = 1) -> Part:
    """Return a part of random codes that writes ``kernels``; sums of about ``size`` become 8 bits."""
    random = np.random.default_rng(bits)
    codes = random.integers(0, 2**bits, (len(kernels), *shape)).astype(np.uint8)
    offsets = random.integers(-1, 2, len(kernels)) - (2**bits - 1) * factor // 2
    rescale = Rescale(random.integers(2**19, 2**20, len(kernels)), np.full(len(kernels), 2**34), 27, 0, 255)
    rescale = replace(rescale, multipliers=(rescale.multipliers * 2**14 / size).astype(np.int64))
    return Part(bits, codes, factor, offsets, np.array(kernels), np.array(reads), rescale)


def _adding(part: Part, tensors: int) -> Part:
    """Return a part that adds tensors: each moves the outcome by half of what it is."""
    random = np.random.default_rng(part.bits)
    signs = random.choice([-1, 1], (1, len(part)))
    return replace(part, added=random.integers(2**25, 2**26, (tensors, len(part))) * signs)


def _shapes() -> Program:
    """Return layers of all loops: of wide values, a kernel a channel, kernels in groups, of 1 x 1, of two chunks.

    And layers that add a tensor, or two.
    """
    random = np.random.default_rng(5)
    channels = random.permutation(40)
    tensors = {
        tensor.name: tensor
        for tensor in (
            IntTensor("input", (3, 11, 10), 8, True, 1.0, -3),
            IntTensor("wide", (3, 11, 10), 20, True, 1.0, 77),
            IntTensor("many", (40, 11, 10), 8, False, 1.0, 120),
            IntTensor("each", (40, 6, 5), 8, False, 1.0, 125),
            IntTensor("grouped", (8, 6, 5), 8, False, 1.0, 131),
            IntTensor("once", (8, 6, 5), 8, False, 1.0, 126),
            IntTensor("twice", (8, 6, 5), 8, False, 1.0, 122),
            IntTensor("thrice", (8, 6, 5), 8, False, 1.0, 127),
            IntTensor("mixed", (33, 6, 5), 8, False, 1.0, 128),
            IntTensor("logits", (5, 4, 3), 16, True, 1.0),
        )
    }
    reads = np.zeros(40, dtype=np.int64)
    two = ((1, 1), (1, 1))
    wide = Rescale(np.full((1, 3), 4000), np.full(3, 8 + 77 * 16), 4, -(2**19), 2**19 - 1)
    first = (_part(3, range(25), reads[:25], (3, 3, 3), 5e5), _part(8, range(25, 40), reads[25:], (3, 3, 3), 2e7))
    each = (
        _part(7, np.sort(channels[:21]), channels[:21], (1, 3, 5), 1e4),
        _part(1, np.sort(channels[21:]), channels[21:], (1, 3, 5), 4e2, 2),
    )
    groups = (
        _part(5, (0, 2, 5), (0, 20, 0), (20, 3, 3), 2e4),
        _part(6, (1, 3, 4, 6, 7), (20, 0, 20, 0, 20), (20, 3, 3), 4e4),
    )
    square = (
        _part(5, (0, 3, 5), (4, 0, 4), (4, 3, 3), 5e3),
        _part(2, (1, 2, 4, 6, 7), (0, 4, 0, 4, 0), (4, 3, 3), 3e2),
    )
    eight = np.arange(8)
    depth = (_part(3, eight[::2], eight[::2], (1, 3, 3), 3e2), _part(6, eight[1::2], eight[1::2], (1, 3, 3), 3e3))
    one, both = (tuple(_adding(part, tensors) for part in square) for tensors in (1, 2))
    each_one = tuple(_adding(part, 1) for part in depth)
    points = (_part(2, range(30), reads[:30], (8, 1, 1), 7e2), _part(4, range(30, 33), reads[:3], (8, 1, 1), 2.4e3))
    last = (_part(3, (0, 3), (0, 0), (33, 3, 3), 1.5e4, 2), _part(6, (1, 2, 4), (0, 0, 0), (33, 3, 3), 1.4e5, 2))
    return Program(
        "shapes",
        tensors,
        (
            Add("wide", ("input",), "wide", wide),
            Layer("first", "wide", "many", first, padding=two),
            Layer("each", "many", "each", each, (2, 2), (1, 1), ((1, 1), (2, 1))),
            Layer("groups", "each", "grouped", groups, (1, 1), (2, 1), ((2, 2), (1, 1))),
            Layer("adds", "grouped", "once", one, padding=two, added=("grouped",)),
            Layer("each adds", "once", "twice", each_one, padding=two, added=("once",)),
            Layer("adds two", "twice", "thrice", both, padding=two, added=("once", "twice")),
            Layer("points", "thrice", "mixed", points),
            Layer("last", "mixed", "logits", last),
        ),
        "input",
        "logits",
        Encoding(np.ones(3), np.zeros(3)),
    )


@compiler
@pytest.mark.parametrize("windows", [None, 608])
def test_loops_of_all_shapes(windows: int | None, tmp_path: Path) -> None:
    program = _shapes()
    codes = np.random.default_rng(1).integers(-128, 128, (4, 3, 11, 10))
    made = dict(trace_program(program, codes))
    for layer in program.layers:
        own = made[layer.target]
        assert ((own > 0) & (own < 255)).mean() > 0.5, layer.name
        assert len(np.unique(own)) > 30, layer.name
    flags = (*SANITIZERS, *(() if windows is None else (f"-DSHAPES_WINDOW_BYTES={windows}",)))
    _, logits = run_c(program, codes, tmp_path, flags)
    np.testing.assert_array_equal(logits, np.moveaxis(made["logits"], 1, -1).reshape(4, -1))


@compiler
def test_bytes_are_those_that_are_told(tmp_path: Path) -> None:
    if not which("size"):
        pytest.skip("size of binutils is not installed")
    own = subject("small-cnn")
    program = program_of(own.quantized(), own.x, name="told")
    compiled = load_target("c")(program)
    for name, text in compiled.files.items():
        (tmp_path / name).write_bytes(text)
    sizes = {size.name: size for size in compiled.sizes}
    (note,) = compiled.notes
    told, flag = known(re.match(r"scratch may be down to ([\d,]+) bytes: (-D\S+)$", note)).groups()
    constants = sum(sizes[name].real for name in ("weights", "scales and biases", "tables"))
    for flags, scratch in (((), sizes["scratch"].real), ((flag,), int(told.replace(",", "")))):
        held = _sections(tmp_path, flags)
        assert held[".bss"] == sizes["activations"].real + scratch
        assert constants <= sum(size for name, size in held.items() if name.startswith((".rodata", ".data.rel")))
        assert held[".rodata"] < constants + 2048
        (tmp_path / "ram.c").write_text(f'#include "told.h"\nint ram[TOLD_RAM_BYTES == {held[".bss"]} ? 1 : -1];\n')
        subprocess.run([str(CC), *STRICT, *flags, "-c", "ram.c"], cwd=tmp_path, check=True)
    wrong = subprocess.run([str(CC), f"{flag[:-1]}1", "-c", "told.c"], cwd=tmp_path, capture_output=True, check=False)
    assert b"must be a multiple of 4" in wrong.stderr
    kernels = sum(len(part) for layer in program.layers for part in layer.parts)
    assert 0 <= sizes["weights"].real - OVERRUN - known(sizes["weights"].promised) < kernels
    assert sizes["activations"].real == sizes["activations"].promised


def _sections(folder: Path, flags: tuple[str, ...]) -> dict[str, int]:
    """Return the bytes of the sections of the compiled file."""
    subprocess.run([str(CC), *STRICT, *flags, "-O1", "-c", "told.c"], cwd=folder, check=True)
    listed = subprocess.run(["size", "-A", "told.o"], cwd=folder, capture_output=True, text=True, check=True)
    return {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", listed.stdout, re.MULTILINE)}


@given(st.integers(1, 8), st.integers(1, 3), st.integers(0, 600), st.integers(0, 2**32 - 1))
def test_packed_codes_are_those_codes(bits: int, kernels: int, length: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (kernels, length)).astype(np.uint8)
    packed = packed_codes(codes, bits)
    assert packed.shape == (kernels, -(-length * bits // 8))
    for row, own in zip(packed.tolist(), codes.tolist(), strict=True):
        assert _unpacked(row, bits, length) == own


def _unpacked(given: list[int], bits: int, length: int) -> list[int]:
    """Return the codes in bytes, one by one, as the C file's comment says it."""
    found: list[int] = []
    while length - len(found) >= 8:
        run, shift = min((length - len(found)) // 8, 32), 0
        chunk = [0] * 8 * run
        for width in (width for width in (8, 4, 2, 1) if bits & width):
            for place in range(8 * run):
                byte, of = given[place % (width * run)], place // (width * run)
                chunk[place] |= (byte >> (width * of) & (2**width - 1)) << shift
            given, shift = given[width * run :], shift + width
        found += chunk
    number = sum(byte << (8 * place) for place, byte in enumerate(given))
    return found + [number >> (bits * place) & (2**bits - 1) for place in range(length - len(found))]


def test_names() -> None:
    assert tuple(TARGETS) == TARGET_NAMES
    with pytest.raises(OptionError, match="unknown target"):
        load_target("cc")
    own = subject("every")
    with pytest.raises(OptionError, match="letters, digits"):
        load_target("c")(program_of(own.quantized(), own.x, name="2nd"))
