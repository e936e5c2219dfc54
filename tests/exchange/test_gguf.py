"""Models of llama.cpp: read as problems with row lengths and exact sizes, and written with the types chosen."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from known import known

from impq_opt import Group, Problem, solve, verify
from impq_opt.cli import run
from impq_opt.encodings import encoding
from impq_opt.errors import AllocationError, FileError, OptionError, ProblemError
from impq_opt.exchange import make_format
from impq_opt.exchange.gguf_model import GgufModel
from impq_opt.exchange.llama_cpp import gguf_name
from impq_opt.files import load_problem, save_problem
from impq_opt.testing import check_format
from impq_opt.testing.rules import blocks

pytestmark = pytest.mark.peer("gguf", "libgguf")

# One of each block, quick to code.
TYPES = "q2_k,q4_k,q6_k,q4_0,q8_0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def problem(model: Path) -> Problem:
    return make_format("gguf", types=TYPES).read(model)  # type: ignore[attr-defined]


def writer(model: Path) -> Any:
    return make_format("gguf", model=str(model))


def test_rows_that_no_block_divides_have_fewer_types(problem: Problem) -> None:
    down = problem["blk.0.ffn_down.weight"]
    assert (down.size, down.length, down.formats) == (256 * 320, 320, ("q4_0", "q8_0"))
    assert problem["blk.0.ffn_up.weight"].formats == ("q2_k", "q4_k", "q6_k", "q4_0", "q8_0")
    assert problem["blk.0.ffn_up.weight"].bits == (2.625, 4.5, 6.5625, 4.5, 8.5)
    assert problem.stays is not None
    assert {stay.name for stay in problem.stays} == {n for n, w in tiny_llama.tensors().items() if w.ndim == 1}
    assert problem.stored == 32


def test_damages_are_errors_of_the_very_types(problem: Problem) -> None:
    weights = tiny_llama.tensors()["blk.1.attn_v.weight"].astype(np.float64)
    errors = [np.square(encoding(name).round(weights) - weights).sum() for name in TYPES.split(",")]
    row = problem["blk.1.attn_v.weight"].damage
    np.testing.assert_allclose(known(row), np.array(errors) / np.square(weights).sum(), rtol=1e-6)


def test_some_rows_stand_for_all(model: Path, problem: Problem) -> None:
    some = make_format("gguf", types=TYPES, rows=16).read(model)  # type: ignore[attr-defined]
    np.testing.assert_allclose(some.damage.values, problem.damage.values, rtol=0.5)  # type: ignore[union-attr]
    assert not np.array_equal(some.damage.values, problem.damage.values)  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(4))
def test_a_file_is_as_large_as_the_problem_says_to_the_byte(
    seed: int, model: Path, problem: Problem, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    pins = {name: str(rng.choice(known(problem[name].formats))) for name in problem.names}
    answer = solve(problem.revise(pins=pins), bound=1e9)
    out = tmp_path / "out.gguf"
    size = writer(model).write(answer, out)
    assert 8 * size == answer.exact_cost == 8 * out.stat().st_size
    assert out.read_bytes() == writer(model).dump(answer)
    assert verify(problem.revise(pins=pins), answer).proved
    written, before = GgufModel.open(out), GgufModel.open(model)
    for name, tensor in written.by_name.items():
        if name in pins:
            kind: Any = encoding(pins[name])
            assert tensor.number == kind.number
            assert np.array_equal(tensor.data, kind.encode(tiny_llama.tensors()[name]).ravel())
        else:
            assert tensor.number == before.by_name[name].number
            assert np.array_equal(tensor.data, before.by_name[name].data)


def test_metadata_are_kept_and_the_kind_of_file_is_told_anew(model: Path, problem: Problem, tmp_path: Path) -> None:
    import gguf

    plain = tiny_llama.write(tmp_path / "plain.gguf", types=False)
    for source in (model, plain):
        out = tmp_path / "out.gguf"
        writer(source).write(solve(problem, budget="450KiB"), out)
        old, new = ({k: f.contents() for k, f in gguf.GGUFReader(path).fields.items()} for path in (source, out))
        counts = ("GGUF.kv_count", "general.file_type", "general.quantization_version")
        assert {k: v for k, v in old.items() if k not in counts} == {k: v for k, v in new.items() if k not in counts}
        assert (new["general.quantization_version"], new["general.file_type"]) == (2, gguf.LlamaFileType.MOSTLY_Q4_K_M)
        assert old["tiny.numbers"] == [3, 1, 4]


def test_what_has_its_type_already_is_copied(model: Path, problem: Problem, tmp_path: Path) -> None:
    small = tmp_path / "small.gguf"
    writer(model).write(solve(problem, budget="450KiB"), small)
    again = make_format("gguf").read(small)  # type: ignore[attr-defined]
    first = solve(problem, budget="450KiB").to_dict()["formats"]
    for name, kind in first.items():
        group = again[name]
        assert group.damage[group.formats.index(kind)] == 0
    same = solve(again.revise(pins=first), bound=1e9)
    assert same.damage == 0
    assert writer(small).dump(same) == small.read_bytes()
    assert again.stored == Fraction(
        8 * sum(GgufModel.open(small).by_name[n].data.size for n in again.names), int(again.sizes.sum())
    )


def test_a_failure_in_the_middle_leaves_the_old_file(
    model: Path, problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    kind: Any = encoding("q8_0")

    def fail(_self: Any, _rows: Any) -> Any:
        raise ProblemError("no more")

    monkeypatch.setattr(type(kind), "encode", fail)
    with pytest.raises(ProblemError, match="no more"):
        writer(model).write(solve(problem, bound=0.01), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    assert out.read_bytes() == b"old"


def test_names_of_hugging_face_with_plain_bits(model: Path, tmp_path: Path) -> None:
    """As a measured problem has them: rows that k-quants do not divide get another type of as many bits."""
    groups = [
        Group(f"model.layers.0.{layer}", size=rows * length, length=length, sensitivity=1.0, bits=(4, 8))
        for layer, rows, length in (("self_attn.q_proj", 256, 256), ("mlp.down_proj", 256, 320))
    ]
    restated = writer(model).prepare(Problem.declare(groups))
    assert restated["model.layers.0.mlp.down_proj"].formats == ("q4_0", "q4_1", "q8_0")
    assert restated["model.layers.0.self_attn.q_proj"].formats == ("q4_k", "iq4_xs", "q4_1", "q8_0")
    answer = solve(restated, bound=0.02)
    writer(model).write(answer, tmp_path / "out.gguf")
    tensor = GgufModel.open(tmp_path / "out.gguf").by_name["blk.0.attn_q.weight"]
    assert known(tensor.kind).name == answer.to_dict()["formats"]["model.layers.0.self_attn.q_proj"]


def test_types_of_other_rows_are_refused(model: Path, problem: Problem, tmp_path: Path) -> None:
    name = "blk.0.ffn_down.weight"
    wrong = Problem.declare([Group(name, size=256 * 320, sensitivity=1.0, bits=(4.5,), formats=("q4_k",))])
    with pytest.raises(AllocationError, match=f"{name}: has rows of 320 weights, and q4_k holds whole blocks of 256"):
        writer(model).dump(solve(wrong, bound=1e9))
    with pytest.raises(
        ProblemError, match=r"gguf can store.* of output kernels of 100 weights, which blocks of 256 or 32 do"
    ):
        writer(model).prepare(Problem.declare([Group("output", size=1000, length=100, sensitivity=1.0, bits=(4,))]))
    other = Problem.declare([Group(name, size=320, sensitivity=1.0, bits=(4,))])
    with pytest.raises(AllocationError, match=r"has 81,920 weights in tiny\.gguf, and 320 in the problem \(is it"):
        writer(model).dump(solve(other, bound=1e9))
    third = Problem.declare([Group("blk.7.ffn_down.weight", size=320, sensitivity=1.0, bits=(4,))])
    with pytest.raises(AllocationError, match=r"blk\.7\.ffn_down\.weight: is not in tiny\.gguf"):
        writer(model).dump(solve(third, bound=1e9))
    longer = tiny_llama.write(tmp_path / "longer.gguf", tiny_llama.tensors() | {"extra.bias": np.ones(7, np.float32)})
    with pytest.raises(AllocationError, match="the problem promises a file of"):
        writer(longer).write(solve(problem, budget="1MiB"), tmp_path / "out.gguf")


def test_what_is_no_model_is_told(model: Path, problem: Problem, tmp_path: Path) -> None:
    form: Any = make_format("gguf")
    with pytest.raises(OptionError, match="model: say which model is quantized"):
        form.dump(solve(problem, budget="1MiB"))
    with pytest.raises(FileError, match=r"nothing\.gguf: there is no such file"):
        form.read(tmp_path / "nothing.gguf")
    data = model.read_bytes()
    for cut in (0, 3, 20, 300, 5000):
        (tmp_path / "cut.gguf").write_bytes(data[:cut])
        with pytest.raises(FileError, match=r"cut\.gguf: is not GGUF, or not whole"):
            form.read(tmp_path / "cut.gguf")
    with pytest.raises(OptionError, match="types: is no type of GGUF, got 'nvfp4'"):
        replace(form, types="q4_k,nvfp4").read(model)
    with pytest.raises(OptionError, match=re.escape("types: needs an importance matrix, got 'iq2_xxs'")):
        replace(form, types="iq2_xxs").read(model)
    alone = tiny_llama.write(tmp_path / "alone.gguf", {"blk.0.ffn_down.weight": np.ones((8, 320), np.float32)})
    with pytest.raises(FileError, match=r"q4_k: no tensor can have one of these types \(rows are 320 long\)"):
        replace(form, types="q4_k").read(alone)


def test_the_conformance_suite(tmp_path: Path) -> None:
    problem = blocks()
    rng = np.random.default_rng(0)
    weights = {
        gguf_name(name): rng.standard_normal((int(size) // 256, 256)).astype(np.float32)
        for name, size in zip(problem.names, problem.sizes, strict=True)
    }
    model = tiny_llama.write(tmp_path / "blocks.gguf", weights)
    check_format(make_format("gguf", model=str(model)), model)


def test_from_a_model_to_a_smaller_one_on_the_command_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared, answer, out = (tmp_path / name for name in ("tiny.toml", "answer.json", "small.gguf"))
    assert run(["import", str(model), "--option", f"types={TYPES}", "-o", str(declared)]) == 0
    capsys.readouterr()
    assert run(["solve", str(declared), "--budget", "500KiB", "-o", str(answer)]) == 0
    assert re.search(r"ffn_up\.weight +q4_k 4\.5 ", capsys.readouterr().out)
    assert run(["report", str(answer), "--problem", str(declared), "-o", str(tmp_path / "page.html")]) == 0
    assert "<small>q4_k</small>" in (tmp_path / "page.html").read_text()
    assert run(["verify", str(declared), str(answer)]) == 0
    capsys.readouterr()
    target = ["--to", "gguf", "--option", f"model={model}", "-o", str(out), "--json"]
    assert run(["export", str(declared), str(answer), *target]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == out.stat().st_size <= 500 * 1024
    target[-2] = str(model)
    assert run(["export", str(declared), str(answer), *target]) == 2
    assert "tiny.gguf" in capsys.readouterr().err
    assert 8 * told["bytes"] == json.loads(answer.read_text())["cost"]
    save_problem(load_problem(declared), tmp_path / "again.toml")
    assert load_problem(tmp_path / "again.toml") == load_problem(declared)
