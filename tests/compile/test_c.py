"""The C file: compiled strictly, run under sanitizers, and held against the reference bit for bit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compile_world import CC, STRICT, program_of, run_c, subject
from hypothesis import given
from hypothesis import strategies as st
from known import known

from impq_opt.cli._choices import TARGET_NAMES
from impq_opt.compile import run
from impq_opt.compile.targets import TARGETS, load_target
from impq_opt.compile.targets.c import packed_planes
from impq_opt.errors import OptionError

compiler = pytest.mark.skipif(CC is None, reason="no C compiler")


@compiler
@pytest.mark.parametrize(("name", "bits"), [("every", 24), ("every", 8), ("unrounded", 24)])
def test_every_call_is_the_reference_bit_for_bit(name: str, bits: int, tmp_path: Path) -> None:
    own = subject(name)
    program = program_of(own.quantized("asymmetric" if bits == 8 else "mid-rise"), own.x, output_bits=bits)
    codes = program.encode(own.x.numpy())
    expected = run(program, codes)
    decided, logits = run_c(program, codes, tmp_path)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(decided, expected.argmax(1))


@compiler
def test_bytes_are_those_that_are_told(tmp_path: Path) -> None:
    own = subject("small-cnn")
    program = program_of(own.quantized(), own.x, name="told")
    compiled = load_target("c")(program)
    for name, text in compiled.files.items():
        (tmp_path / name).write_bytes(text)
    subprocess.run([str(CC), *STRICT, "-O1", "-c", "told.c"], cwd=tmp_path, check=True)
    listed = subprocess.run(["size", "-A", "told.o"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no size of binutils")
    sections = {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", listed.stdout, re.MULTILINE)}
    sizes = {size.name: size for size in compiled.sizes}
    ram = sizes["activations"].real + sizes["scratch"].real
    assert f"TOLD_RAM_BYTES {ram}\n" in (tmp_path / "told.h").read_text()
    assert ram <= sections[".bss"] < ram + 64
    constants = sum(sizes[name].real for name in ("weights", "scales and biases", "tables"))
    held = sum(size for name, size in sections.items() if name.startswith((".rodata", ".data.rel")))
    assert constants <= held < constants + 4096
    promised = known(sizes["weights"].promised)
    assert promised <= sizes["weights"].real < 1.01 * promised
    assert known(sizes["activations"].promised) <= sizes["activations"].real


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_planes_hold_the_codes(bits: int, kernels: int, length: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (kernels, length)).astype(np.uint8)
    packed, start, found, shift = packed_planes(codes, bits), 0, np.zeros((kernels, length), dtype=int), 0
    for width in (width for width in (8, 4, 2, 1) if bits & width):
        size = -(-length * width // 8)
        plane = packed[:, start : start + size].astype(int)
        for place in range(length):
            found[:, place] |= ((plane[:, place % size] >> (width * (place // size))) & (2**width - 1)) << shift
        start, shift = start + size, shift + width
    assert packed.shape == (kernels, start)
    np.testing.assert_array_equal(found, codes)


def test_names() -> None:
    assert tuple(TARGETS) == TARGET_NAMES
    with pytest.raises(OptionError, match="unknown target"):
        load_target("cc")
    own = subject("every")
    with pytest.raises(OptionError, match="letters, digits"):
        load_target("c")(program_of(own.quantized(), own.x, name="2nd"))
