"""Tables as people have them: whatever wrote them, they are the same problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats import format_named
from known import law_of, table_of

from impq_opt import Group, Problem, solve
from impq_opt.cli import run
from impq_opt.errors import FileError
from impq_opt.files import load_problem

PLAIN = "group,size,bits,damage\nconv,100,4,0.5\nconv,100,8,0.25\nfc,2000,4,1.5\nfc,2000,8,0\n"
GERMAN = PLAIN.replace(",", ";").replace(".", ",")

SAME: dict[str, str | bytes] = {
    "a BOM": PLAIN.encode("utf-8-sig"),
    "UTF-16 as Excel writes it": PLAIN.replace(",", "\t").encode("utf-16"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "semicolons and decimal commas": GERMAN,
    "the separator is stated": "sep=;\r\n" + GERMAN.replace("\n", "\r\n"),
    "decimal commas in quotation marks": PLAIN.replace("0.5", '"0,5"')
    .replace("0.25", '"0,25"')
    .replace("1.5", '"1,5"'),
    "capitals and blanks": PLAIN.replace("group,size,bits,damage", "Group , SIZE, Bits ,Damage"),
    "name, numel": PLAIN.replace("group,size", "name,numel"),
    "module, params": PLAIN.replace("group,size", "module,params"),
    "layer, elements": PLAIN.replace("group,size", "layer,elements"),
    "the numbers of rows that pandas writes": "".join(
        f"{'' if k == 0 else k - 1},{line}\n" for k, line in enumerate(PLAIN.splitlines())
    ),
    "names as an index": PLAIN.replace("group,", ","),
    "empty rows and columns": PLAIN.replace("\n", ",,\n").replace("\nfc,2000,4", "\n,,,,,\nfc,2000,4"),
    "rows in another order": "\n".join([*PLAIN.splitlines()[:2], *PLAIN.splitlines()[3:], PLAIN.splitlines()[2]]),
    "a column a precision": "name,numel,damage_4,damage_8\nconv,100,0.5,0.25\nfc,2000,1.5,0\n",
    "a divergence for each precision": "Layer Name,# Params,KL @4,KL 8bit\nconv,100,0.5,0.25\nfc,2000,1.5,0\n",
    "HAWQ's trace and perturbation": "name,numel,trace,delta2_4,delta2_8\nconv,100,2,0.25,0.125\nfc,2000,3,0.5,0\n",
}


def read(content: str | bytes, folder: Path, **options: Any) -> Problem:
    path = folder / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problem: Problem = format_named("csv").read(path, **options)
    return problem


@pytest.mark.parametrize("name", SAME)
def test_the_same_table_is_the_same_problem(name: str, tmp_path: Path) -> None:
    assert read(SAME[name], tmp_path).digest == read(PLAIN, tmp_path).digest


def test_a_column_a_precision_may_leave_candidates_out(tmp_path: Path) -> None:
    problem = read("name,numel,damage_4,damage_8\nconv,100,0.5,0.25\nfc,2000,,0.1\nin,5,inf,0.1\n", tmp_path)
    assert [problem.candidates.of(group) for group in range(3)] == [(4, 8), (8,), (4, 8)]
    assert problem.candidates.of(2, problem.allowed) == (8,)


def test_columns_that_mean_nothing_here_are_kept_as_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "group,size,bits,damage,shape,seconds\nconv,100,4,0.5,3x3,1\nconv,100,8,0.25,3x3,2\nfc,10,4,1,,3\n"
    problem = read(text, tmp_path)
    assert problem.provenance["columns"] == {"shape": ("3x3", ""), "seconds": (("1", "2"), "3")}
    out = tmp_path / "p.toml"
    assert run(["import", str(tmp_path / "t.csv"), "-o", str(out)]) == 0
    assert "kept as notes, since they mean nothing here: shape, seconds" in capsys.readouterr().err
    assert load_problem(out).provenance["columns"]["shape"] == ("3x3", "")


def test_thousands_of_names_are_read_prepared_solved_and_written() -> None:
    count = 4_000  # the steps took minutes where looking up a name took as long as there are names
    names = [f"layers.{k // 384}.mlp.experts.{k // 3 % 128}.{('gate', 'up', 'down')[k % 3]}_proj" for k in range(count)]
    scores = np.random.default_rng(0).lognormal(-3, 2, count)
    form = format_named("gptqmodel")
    problem = form.prepare(Problem.from_sensitivities(np.full(count, 256), scores, bits=(2, 4, 8), names=names))
    found = solve(problem, budget=float(4 * problem.sizes.sum()))
    config = form.config(found)["dynamic"]
    assert len(config) == count
    assert len(problem.ties) == 2 * -(-count // 384)
    table = format_named("csv").config(found)
    assert format_named("csv").problem({**table, "damage": table["damage"]}).names.labels == tuple(names)


ODD = ["a,b", "a=b", "encoder/layer 0/ü[w]", "x*y?", "=1+1", "q;r", 'say "x"', "-", "[0]", "語"]


def test_odd_names_are_names_in_every_option_and_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem.declare([Group(name, size=100, sensitivity=1.0, bits=(4, 8)) for name in ODD], bound=1.0)
    table = format_named("csv", candidates=True).dump(solve(problem))
    (tmp_path / "t.csv").write_bytes(table)
    assert format_named("csv").read(tmp_path / "t.csv").names.labels == tuple(ODD)
    files = [str(tmp_path / name) for name in ("p.toml", "a.json")]
    assert run(["import", str(tmp_path / "t.csv"), "-o", files[0]]) == 0
    pins = [f"--pin={name}=8" for name in ODD[:-2]]
    ties = ["--tie", '"[0]",語', "--tie", '"a,b","say ""x"""']
    assert run(["solve", files[0], "--bound", "1", *pins, *ties, "-o", files[1]]) == 0
    assert run(["verify", *files]) == 0
    capsys.readouterr()
    for to in ("csv", "gptqmodel", "mlx", "torchao", "autoround", "modelopt", "compressed-tensors", "exllamav3"):
        assert run(["export", *files, "--to", to]) == 0
        assert "語" in capsys.readouterr().out


# -- negative scores: one rule in all formats ---------------------------------------------------------------------


def modelopt(rows: Any) -> Any:
    entry = {"formats": ["A", "B", "C"], "costs": [25.0, 50.0, 100.0]}
    return {"candidate_stats": {f"{name}.quant_recipe": entry | {"scores": row} for name, row in rows.items()}}


def autoround(rows: Any) -> Any:
    return [
        {
            "version": 1,
            "score_granularity": "per_op",
            "scheme": {"bits": bits, "group_size": -1},
            "layer_scores": {name: [bits * 100, row[k]] for name, row in rows.items()},
        }
        for k, bits in enumerate((2, 4, 8))
    ]


def exllamav3(rows: Any) -> Any:
    groups = [
        {"layers": [name], "candidates": [{"dkld": score, "dbits": 100 * (k + 1)} for k, score in enumerate(row[1:])]}
        for name, row in rows.items()
    ]
    return {"groups": groups}


def csv(rows: Any) -> Any:
    columns: dict[str, list[Any]] = {"group": [], "size": [], "bits": [], "damage": []}
    for name, row in rows.items():
        for bits, score in zip((2, 4, 8), row, strict=True):
            for column, value in zip(columns.values(), (name, 100, bits, score), strict=True):
                column.append(value)
    return columns


@pytest.mark.parametrize("write", [modelopt, autoround, exllamav3, csv])
def test_negative_scores_count_from_the_smallest_of_their_group(write: Any) -> None:
    rows = {"a": [0.0, -0.5, -0.25], "b": [0.0, 2.0, 1.0], "c": [0.0, -1.0, float("inf")]}
    problem = format_named(write.__name__).problem(write(rows))
    inf = float("inf")
    assert table_of(problem).values.tolist() == [[0.5, 0.0, 0.25], [0.0, 2.0, 1.0], [1.0, 0.0, inf]]
    assert problem.provenance["damage_offset"] == -1.5
    assert problem.provenance["negative_scores"] == {"groups": 2, "such_as": "a, c"}
    # a constant for each group: the order of allocations is that of the scores
    assert [table_of(problem).values[k].argmin() for k in range(3)] == [1, 0, 1]


def test_negative_sensitivities_follow_the_same_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = read("group,size,sensitivity\na,10,-1\nb,10,2\n", tmp_path)
    values = table_of(problem).values
    np.testing.assert_allclose(values[0], -(4.0 ** -np.arange(1, 9)) + 0.25)
    np.testing.assert_allclose(values[1], 2 * 4.0 ** -np.arange(1, 9))
    assert law_of(read("group,size,sensitivity\na,10,1\nb,10,2\n", tmp_path)).sensitivity.tolist() == [1, 2]
    (tmp_path / "t.csv").write_text("group,size,bits,damage\na,10,4,-0.5\na,10,8,1\n")
    assert run(["import", str(tmp_path / "t.csv"), "-o", str(tmp_path / "t.toml")]) == 0
    said = capsys.readouterr()
    assert "scores below 0 in 1 group: a\n" in said.err
    told = "damages and bounds count from each group's smallest score: -0.5 was taken off in all"
    assert told in " ".join(said.out.split())
    assert run(["solve", str(tmp_path / "t.toml"), "--bound", "1"]) == 0
    assert told in " ".join(capsys.readouterr().out.split())


def test_a_score_beyond_float64_of_the_smallest_is_refused_not_forbidden(tmp_path: Path) -> None:
    """Infinity would mean that a candidate is not allowed: what is optimal would be so of another problem."""
    rows = "group,size,bits,damage\na,10,2,0\na,10,4,{}\na,10,8,{}\n"
    with pytest.raises(FileError, match=r"a: is further from the group's smallest score than float64 tells.*1e\+308"):
        read(rows.format(1e308, -1e308), tmp_path)
    assert table_of(read(rows.format("inf", -1e308), tmp_path)).values.tolist() == [[1e308, float("inf"), 0.0]]


def test_groups_that_differ_by_blanks_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"row 3.*differs from 'a', in row 2, by blanks alone, got 'a '"):
        read("group,size,bits,damage\na,10,4,0.5\na ,10,8,0.1\n", tmp_path)
    assert list(read("group,size,bits,damage\n a,10,4,0.5\n a,10,8,0.1\n", tmp_path).names) == [" a"]


# -- exllamav3 ----------------------------------------------------------------------------------------------------


def measurement(rates: Any, *groups: Any) -> Any:
    """Return a measurement of models with these bits a weight; a group is (layers, changes of bits)."""
    models = [{"dir": f"/models/{k}", "bpw": rate} for k, rate in enumerate(rates)]
    return {
        "base": models[0] if models else {},
        "alts": models[1:],
        "groups": [
            {"layers": layers, "candidates": [{"dkld": -0.1 * (k + 1), "dbits": more} for k, more in enumerate(bits)]}
            for layers, bits in groups
        ],
    }


def test_sizes_follow_from_bits_so_that_effective_bits_are_right() -> None:
    document = measurement((2.02, 3.02, 4.01), (["q", "k"], [1024, 2048]), (["down"], [4096, 8192]), (["head"], [0, 0]))
    form = format_named("exllamav3")
    problem = form.problem(document)
    assert problem.sizes.tolist() == [1024, 4096, 1]
    assert problem.provenance["size_unknown"] == "head"
    found = solve(problem, budget=2048)
    assert found.choice is not None and found.choice.tolist() == [2, 0, 2]
    assert found.effective_bits[0] == pytest.approx((1024 * 4.01 + 4096 * 2.02 + 4.01) / 5121)
    assert form.config(found) == {
        "sources": [{"id": 0, "model_dir": "/models/2"}],
        "overrides": [{"key": f"{layer}.*", "source": 0} for layer in ("q", "k", "head")],
    }
    assert form.prepare(problem) is problem


def test_sizes_are_the_nearest_where_models_mix_bits() -> None:
    problem = format_named("exllamav3").problem(measurement((2.0, 2.5, 3.0), (["a"], [520, 1000]), (["b"], [-5, 90])))
    np.testing.assert_allclose(problem.sizes, [1008, 70])
    nothing = format_named("exllamav3").problem(
        {"groups": [{"layers": ["a"], "candidates": [{"dkld": 1, "dbits": 5}]}]}
    )
    assert nothing.candidates.numbered and nothing.sizes.tolist() == [1]
    assert solve(nothing, bound=2.0).effective_bits == (None, None)


# -- names that belong together -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "together",
    [
        ["model.layers.0.self_attn.q_a_proj", "model.layers.0.self_attn.kv_a_proj_with_mqa"],
        [f"bert.encoder.layer.0.attention.self.{part}" for part in ("query", "key", "value")],
        [f"transformer_blocks.0.attn1.to_{part}.weight" for part in "qkv"],
        [f"blocks.0.attn.add_{part}_proj" for part in "qkv"],
        ["transformer_blocks.0.attn2.to_k", "transformer_blocks.0.attn2.to_v"],
    ],
)
def test_layers_that_engines_fuse_are_tied(together: list[str]) -> None:
    alone = [
        "model.layers.0.self_attn.q_b_proj", "model.layers.0.self_attn.kv_b_proj", "bert.encoder.layer.1.x.query",
        "transformer_blocks.0.attn2.to_q", "transformer_blocks.0.attn1.to_out.0", "query",
    ]  # fmt: skip
    names = [*together, *alone]
    problem = Problem.from_sensitivities([128] * len(names), [1.0] * len(names), bits=(4, 8), names=names)
    prepared = format_named("compressed-tensors").prepare(problem)
    assert [[problem.names[group] for group in tie] for tie in prepared.ties] == [together]
