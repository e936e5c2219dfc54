"""What other tools chose: read back from every format, and refused where it does not fit."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from formats import format_named
from known import known

from impq_opt import Candidates, Group, GroupNames, PowerLaw, Problem, solve
from impq_opt.errors import FileError
from impq_opt.exchange import Chooser, Writer, format_names, make_format
from impq_opt.exchange.choice import first_rules
from impq_opt.exchange.registry import format_class

LAYERS = [f"model.layers.{k}.{part}" for k in range(2) for part in ("self_attn.o_proj", "mlp.down_proj")] + ["lm_head"]
CHOOSERS = [name for name in format_names(chooses=True) if name != "parquet"]


def llama(seed: int, bits: Any = (2, 3, 4, 5, 6, 8, 16)) -> Problem:
    rng = np.random.default_rng(seed)
    groups = [
        Group(name, size=256 * int(rng.integers(1, 40)), sensitivity=float(10 ** rng.uniform(-3, 1)), bits=bits)
        for name in LAYERS
    ]
    return Problem.declare(groups, bound=0.05, pins={LAYERS[0]: 8, LAYERS[3]: 4})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [name for name in CHOOSERS if name != "modelopt"])
def test_what_is_written_reads_back_as_the_choice(name: str, seed: int, tmp_path: Path) -> None:
    target = format_named(name)
    assert isinstance(target, Writer)
    assert isinstance(target, Chooser)
    found = solve(target.prepare(llama(seed)))
    path = tmp_path / f"choice{target.ending}"
    path.write_bytes(target.dump(found))
    assert target.read_choice(path, found.problem).tolist() == known(found.choice).tolist()
    assert len(set(known(found.choice).tolist())) > 1


def test_a_table_of_candidates_says_which_are_chosen(tmp_path: Path) -> None:
    found = solve(llama(0))
    path = tmp_path / "choice.csv"
    path.write_bytes(make_format("csv", candidates=True).dump(found))  # type: ignore[attr-defined]
    csv = make_format("csv")
    assert isinstance(csv, Chooser)
    assert csv.read_choice(path, found.problem).tolist() == known(found.choice).tolist()
    path.write_text("group,bits\n" + "".join(f"{layer},4\n" for layer in LAYERS))
    four = csv.read_choice(path, found.problem)
    assert {found.problem.candidates.label(0, int(column)) for column in four} == {"4"}


def state() -> dict[str, Any]:
    formats = ["INT4(effective-bits: 4.5)", "NONE(effective-bits: 16.0)"]
    rows = {
        f"{layer}.quant_recipe": {
            "formats": formats, "scores": [1.0 + k, 0.0], "costs": [36.0, 128.0], "module_names": [layer]
        }
        for k, layer in enumerate(LAYERS)
    }  # fmt: skip
    recipe = {name: formats[k % 2] for k, name in enumerate(rows)}
    return {"method": "gradient", "candidate_stats": rows, "best": {"recipe": recipe}}


def test_a_search_state_tells_both(tmp_path: Path) -> None:
    modelopt = format_named("modelopt")
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state()))
    problem = modelopt.read(path)
    assert modelopt.read_choice(path, problem).tolist() == [0, 1, 0, 1, 0]
    answer = solve(problem, budget=300 * 16)
    path.write_bytes(msgspec.json.encode(modelopt.solved(state(), answer)))
    assert modelopt.read_choice(path, problem).tolist() == known(answer.choice).tolist()
    path.write_text(json.dumps(state() | {"best": {}}))
    with pytest.raises(FileError, match=r"state\.json: best: has no best recipe"):
        modelopt.read_choice(path, problem)


def measurement() -> dict[str, Any]:
    return {
        "base": {"bpw": 2.0, "dir": "m/2"},
        "alts": [{"bpw": 3.0, "dir": "m/3"}, {"bpw": 4.0, "dir": "m/4"}],
        "groups": [
            {"layers": layers, "candidates": [{"dkld": -1.0, "dbits": 100}, {"dkld": -1.5, "dbits": 200}]}
            for layers in (LAYERS[:2], LAYERS[2:3], LAYERS[3:])
        ],
    }


def test_groups_of_layers_take_one_model(tmp_path: Path) -> None:
    exl = format_named("exllamav3")
    path = tmp_path / "measurement.json"
    path.write_text(json.dumps(measurement()))
    problem = exl.read(path)
    answer = solve(problem, budget=300)
    path.write_bytes(exl.dump(answer))
    assert exl.read_choice(path, problem).tolist() == known(answer.choice).tolist()
    assert 0 < known(answer.choice).sum() < 6
    for said, overrides in (
        ("from different models", [{"key": f"{LAYERS[0]}.*", "source": 0}]),
        ("is no source", [{"key": f"{LAYERS[2]}.*", "source": 7}]),
    ):
        path.write_text(json.dumps({"sources": [{"id": 0, "model_dir": "m/3"}], "overrides": overrides}))
        with pytest.raises(FileError, match=said):
            exl.read_choice(path, problem)
    path.write_text(json.dumps({"sources": [{"id": 0, "model_dir": "m/9"}], "overrides": []}))
    with pytest.raises(FileError, match="known model"):
        exl.read_choice(path, problem)
    wild = [{"key": "model.layers.*.mlp.*", "source": 0}, {"key": f"{LAYERS[0]}.*", "source": 0}]
    path.write_text(json.dumps({"sources": [{"id": 0, "model_dir": "m/3"}], "overrides": wild[:1]}))
    with pytest.raises(FileError, match="different models"):
        exl.read_choice(path, problem)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("llama.cpp", "blk.0=q4_k", "says nothing of 3 of 5 groups"),
        ("llama.cpp", ".*=q9_k", "not among its candidates"),
        ("llama.cpp", "q4_k", "TENSOR=TYPE"),
        ("llama.cpp", "blk[=q4_k", "is no regular expression"),
        ("gptqmodel", '{"dynamic": {}}', "says nothing of 5"),
        ("gptqmodel", '{"dynamic": {"+:[": {"bits": 4}}}', "is no regular expression"),
        ("mlx", "{}", "is missing"),
        ("mlx", '{"quantization": {"bits": 7}}', "not among its candidates"),
        ("autoround", '{"lm_head": {"bits": 99}}', "lm_head"),
        ("compressed-tensors", '{"config_groups": {"g": {}}}', "is missing"),
        ("csv", "group,bits\nlm_head,4\nlm_head,8\n", "chosen twice"),
        ("csv", "group,size\nlm_head,4\n", "a column bits or a column format"),
        ("modelopt", "[]", "state"),
        ("exllamav3", '{"base": {}, "groups": []}', "'sources' is missing"),
    ],
)
def test_what_fits_nothing_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    target = format_named(name)
    path = tmp_path / f"state{target.ending}"
    path.write_text(text)
    with pytest.raises(FileError, match=said) as caught:
        target.read_choice(path, target.prepare(llama(0)))
    assert path.name in str(caught.value)


def test_defaults_and_patterns_of_configurations_count(tmp_path: Path) -> None:
    path = tmp_path / "config.json"

    def bits(name: str, document: Any) -> dict[str, float]:
        target = format_named(name)
        problem = target.prepare(llama(0))
        path.write_text(json.dumps(document))
        columns = target.read_choice(path, problem)
        labels = (problem.candidates.label(k, int(column)) for k, column in enumerate(columns))
        return dict(zip(LAYERS, map(float, labels), strict=True))

    all_of = dict.fromkeys(LAYERS, 4.0)
    head = all_of | {"lm_head": 16.0}
    rest = {"bits": 4, "dynamic": {"-:lm_head": {}, r"+:.*\.0\.": {"bits": 8}}}
    zero = {layer: 8.0 for layer in LAYERS if ".0." in layer}
    assert bits("gptqmodel", rest) == head | zero
    assert bits("mlx", {"quantization": {"bits": 4, "group_size": 64, "lm_head": False}}) == head
    groups = {"a": {"targets": [r"re:.*layers\.0"], "weights": {"num_bits": 8}}}
    groups["b"] = {"targets": ["re:.*"], "weights": {"num_bits": 4}}
    assert bits("compressed-tensors", {"config_groups": groups, "ignore": ["lm_head"]}) == head | zero
    assert bits("compressed-tensors", {"quantization_config": {"config_groups": groups}}) == all_of | zero


@pytest.mark.parametrize("anchored", [False, True])
def test_the_first_rule_is_the_one_that_a_loop_finds(anchored: bool) -> None:
    rng = random.Random(0)
    names = [f"a.{i}.{part}" for i in range(4) for part in ("x", "y.z")]
    for _ in range(200):
        rules = [
            (rng.choice([f"^{re.escape(rng.choice(names))}$", r"\.1\.", "a", r"^a\.2\.x$", r"a\.\d\.x", "z$"]), k)
            for k in range(rng.randrange(5))
        ]
        looked = re.match if anchored else re.search
        expected = {}
        for name in names:
            hits = [value for expression, value in rules if looked(expression, name)]
            if hits:
                expected[name] = hits[0]
        assert first_rules(rules, names, anchored=anchored, where="rules") == expected


def test_a_format_that_chooses_says_so() -> None:
    assert "onnxruntime" not in format_names(chooses=True)
    assert all(issubclass(format_class(name), Chooser) for name in format_names(chooses=True))


def test_kernels_take_what_their_layer_has(tmp_path: Path) -> None:
    problem = Problem(
        names=GroupNames(("conv", "fc"), ((3,), ())),
        candidates=Candidates(((2.0, 4.0), (1.0, 2.0, 3.0)), np.array([0, 0, 0, 1])),
        damage=PowerLaw(np.ones(4)),
        sizes=np.full(4, 4),
        objective={"storage": 1},
    )
    path = tmp_path / "choice.csv"
    csv = make_format("csv")
    assert isinstance(csv, Chooser)
    path.write_text("group,bits\nconv,4\nfc,3\n")
    assert csv.read_choice(path, problem).tolist() == [1, 1, 1, 2]
    path.write_text("group,bits\nconv[0],4\nconv[1],2\nconv[2],4\nfc,3\n")
    assert csv.read_choice(path, problem).tolist() == [1, 0, 1, 2]
