"""Every exchange format: what comes in, what goes out, and what is refused. Peers' own parsers: test_exchange_peers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats import format_named
from known import known, law_of

from impq_opt import Group, Problem, solve
from impq_opt.errors import AllocationError, FileError, ImpqError, OptionError, ProblemError
from impq_opt.exchange import Reader, Writer, format_names, fused_ties, writer_of
from impq_opt.exchange.registry import format_class

LAYERS = [
    f"model.layers.{block}.{part}"
    for block in range(2)
    for part in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )
] + ["lm_head"]  # fmt: skip

WRITERS = [name for name in format_names(writes=True) if name not in ("gguf", "parquet")]  # these need a package
WEIGHTS_ONLY = ["exllamav3", "gptqmodel", "llama.cpp", "mlx"]
PARQUET = pytest.param("parquet", marks=pytest.mark.peer("pyarrow"))
GGUF = pytest.param("gguf", marks=pytest.mark.peer("gguf"))


def llama(bits: Any = (2, 3, 4, 5, 6, 8), seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    groups = [
        Group(name, size=256 * int(rng.integers(1, 40)), sensitivity=float(10 ** rng.uniform(-3, 1)), bits=bits)
        for name in LAYERS
    ]
    return Problem.declare(groups, bound=0.05)


def read_back(name: Any, data: Any) -> Any:  # noqa: PLR0911, PLR0912 - one way a format
    """Return layer -> (name of the precision or bits), read from a file by rules written here once more."""
    if name == "llama.cpp":
        lines = [line.split("=") for line in data.decode().split()]
        return dict(lines)
    config = json.loads(data)
    if name == "mlx":
        section = config["quantization"]
        return {k: (v["bits"] if v else 16) for k, v in section.items() if k not in ("bits", "group_size")}
    if name == "gptqmodel":
        found = {}
        for layer in LAYERS:
            for pattern, entry in config["dynamic"].items():
                if re.match(pattern[2:], layer):
                    found[layer] = 16 if pattern.startswith("-:") else entry["bits"]
                    break
        return found
    if name == "compressed-tensors":
        found = dict.fromkeys(config["ignore"], 16)
        for group in config["config_groups"].values():
            found |= dict.fromkeys(group["targets"], group["weights"]["num_bits"])
        return found
    if name == "exllamav3":
        folders = {source["id"]: source["model_dir"] for source in config["sources"]}
        taken = {entry["key"].removesuffix(".*"): folders[entry["source"]] for entry in config["overrides"]}
        return {layer: int(folder.removesuffix(".0bpw")) for layer, folder in taken.items()}
    if name == "autoround":
        return {layer: entry["bits"] for layer, entry in config.items()}
    if name == "torchao":
        entries = config["_data"]["fqn_to_config"]
        return {k: 16 if v is None else int(v["_data"]["weight_dtype"]["_data"][3:]) for k, v in entries.items()}
    if name == "modelopt":
        found = dict.fromkeys(LAYERS, 16)
        for entry in config["quant_cfg"][1:]:
            bits = entry["cfg"]["num_bits"]  # an integer, or exponent and mantissa
            found[entry["quantizer_name"].removesuffix(".weight_quantizer")] = (
                1 + sum(bits) if isinstance(bits, list) else bits
            )
        return found
    assert name == "onnxruntime"
    overrides = config["TensorQuantOverrides"]
    return {k.removesuffix(".weight"): int(v[0]["quant_type"].removeprefix("QInt")) for k, v in overrides.items()}


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("csv", "llama.cpp")])
@pytest.mark.parametrize("seed", range(3))
def test_a_written_file_says_what_the_allocation_says(name: Any, seed: int) -> None:
    target = format_named(name)
    # two pins, so that every answer has two precisions and a mix-up would show
    problem = llama(seed=seed, bits=(2, 3, 4, 5, 6, 8, 16)).revise(pins={LAYERS[3]: 8, LAYERS[13]: 4})
    problem = target.prepare(problem)
    found = solve(problem)
    said = read_back(name, target.dump(found))
    table = {precision.name: precision.bits for precision in target.precisions()}
    labels = [problem.candidates.labels(0)[k] for k in known(found.choice)]
    expected = {layer: table[label] for layer, label in zip(LAYERS, labels, strict=True)}
    assert said == expected
    assert (expected[LAYERS[3]], expected[LAYERS[13]]) == (8, 4)


def test_llama_cpp_patterns_match_their_own_tensor_only() -> None:
    target = format_named("llama.cpp")
    found = solve(target.prepare(llama()))
    patterns = read_back("llama.cpp", target.dump(found))
    tensors = target.config(found)
    assert len(tensors) == len(LAYERS)
    for tensor, kind in tensors.items():
        hits = [p for p in patterns if re.search(p, tensor)]
        assert [patterns[p] for p in hits] == [kind]
    assert "blk.1.ffn_down.weight" in tensors
    assert "output.weight" in tensors


def test_llama_cpp_widths_are_ggml_block_sizes() -> None:
    widths = {p.name: float(p.width(16)) for p in format_named("llama.cpp").precisions()}
    # bits per weight as llama.cpp's own documentation of the types gives them
    known = {"q2_k": 2.625, "q3_k": 3.4375, "q4_k": 4.5, "q5_k": 5.5, "q6_k": 6.5625, "q8_0": 8.5, "iq4_xs": 4.25,
             "iq2_xxs": 2.0625, "iq3_xxs": 3.0625, "q4_0": 4.5, "q5_1": 6.0}  # fmt: skip
    assert {name: widths[name] for name in known} == known


@pytest.mark.parametrize("name", [n for n in WRITERS if n != "csv"])
def test_prepared_costs_count_scales_and_zero_points(name: Any) -> None:
    target = format_named(name)
    problem = target.prepare(llama(bits=(2, 3, 4, 5, 6, 8, 16)))
    found = solve(problem, bound=1.0)
    by_name = {precision.name: precision for precision in target.precisions()}
    labels = [problem.candidates.labels(0)[k] for k in known(found.choice)]
    by_hand = sum(int(n) * by_name[label].width(problem.stored) for n, label in zip(problem.sizes, labels, strict=True))
    assert found.exact_cost == by_hand
    damage = [float(law_of(llama()).sensitivity[g]) * 4.0 ** -by_name[label].bits for g, label in enumerate(labels)]
    assert found.damage == pytest.approx(sum(damage), rel=1e-12)


@pytest.mark.parametrize("name", [n for n in WRITERS if n != "csv"])
def test_fused_projections_are_tied_where_the_target_fuses_them(name: Any) -> None:
    target = format_named(name)
    problem = target.prepare(llama(bits=(4, 8)))
    tied = {tuple(problem.names[g] for g in tie) for tie in problem.ties}
    expected = {tuple(LAYERS[7 * b : 7 * b + 3]) for b in range(2)} | {
        tuple(LAYERS[7 * b + 4 : 7 * b + 6]) for b in range(2)
    }
    assert tied == (expected if target.fused else set())


def test_experts_and_linear_attention_are_fused() -> None:
    names = [f"model.layers.0.mlp.experts.{e}.{p}" for e in range(3) for p in ("gate_proj", "up_proj", "down_proj")]
    names += ["model.layers.1.linear_attn.in_proj_qkv", "model.layers.1.linear_attn.in_proj_z", "other.q_proj"]
    ties = fused_ties(Problem.from_sensitivities([1] * 12, [1.0] * 12, names=names).names)
    assert sorted(map(len, ties)) == [2, 3, 6]


@pytest.mark.parametrize("name", [n for n in WRITERS if n not in ("csv",)])
def test_kernels_of_different_bits_are_refused_in_one_sentence(name: Any) -> None:
    from impq_opt import GroupNames

    names = GroupNames(("blk.0.attn_q", "blk.0.attn_k"), ((3,), ()), ("blk.0.attn_q", "blk.0.attn_k"))
    problem = Problem.from_sensitivities([256] * 4, [100.0, 1.0, 1e-3, 1.0], names=names, bits=(4, 8), bound=0.1)
    target = format_named(name)
    with pytest.raises(AllocationError, match=r"blk\.0\.attn_q: has groups at"):
        target.dump(solve(problem))
    assert len(set(solve(target.prepare(problem), bound=0.5).bits[:3].tolist())) == 1


@pytest.mark.parametrize("name", [n for n in WRITERS if n not in ("csv",)])
def test_precisions_that_the_target_lacks_are_refused(name: Any) -> None:
    problem = Problem.declare([Group("blk.0.attn_q", size=256, sensitivity=1.0, bits=(0.5, 12))], bound=1.0)
    with pytest.raises(AllocationError, match=r"blk\.0\.attn_q: has .* stores"):
        format_named(name).dump(solve(problem))
    with pytest.raises(ProblemError, match="can store"):
        format_named(name).prepare(problem)


def with_activations(input_bits: Any) -> Problem:
    groups = [
        Group("conv", size=432, sensitivity=1.0, bits=(4, 8), reads="image"),
        Group("image", size=3072, sensitivity=0.5, bits=input_bits, kind="activation"),
    ]
    return Problem.declare(groups, bound=0.01)


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_activations_are_not_dropped_silently(name: Any) -> None:
    with pytest.raises(AllocationError, match="stores weights only"):
        format_named(name).dump(solve(with_activations((8,))))


@pytest.mark.parametrize("name", [n for n in WRITERS if n not in ("csv", "onnxruntime", *WEIGHTS_ONLY)])
def test_input_precisions_are_checked(name: Any) -> None:
    target = format_named(name)
    eight = target.dump(solve(with_activations((8,))))
    none = target.dump(solve(with_activations((16,))))
    assert eight != none
    with pytest.raises(AllocationError, match="inputs of"):
        target.dump(solve(with_activations((7,))))


def test_pins_survive_preparing() -> None:
    problem = llama(bits=(2, 4, 8)).revise(pins={"lm_head": 8})
    prepared = format_named("llama.cpp").prepare(problem)
    assert prepared.candidates.labels(0)[prepared.pins[len(LAYERS) - 1]] == "q8_0"
    with pytest.raises(ProblemError, match="pinned to a precision that compressed-tensors does not store"):
        format_named("compressed-tensors").prepare(problem.revise(pins={LAYERS[3]: 2}))


MODULES = [name for name in WRITERS if name not in ("csv", "onnxruntime", "exllamav3")]
BARE = ("rnn.weight_ih_l0_reverse", "cell.weight_hh", "attn.in_proj_weight", "cross.k_proj_weight", "attn.out_proj")


def with_bare(name: str, bits: Any, types: Any = None) -> Problem:
    size = {"size": 256, "sensitivity": 1.0, "bits": bits}
    return replace(Problem.declare([Group("fc", **size), Group(name, **size)], bound=9.0), types=types or {})


@pytest.mark.parametrize("name", [*MODULES, "exllamav3"])
@pytest.mark.parametrize("bare", BARE)
def test_parameters_that_no_module_has_as_its_own_are_not_quantized(name: Any, bare: str) -> None:
    target = format_named(name)
    types = {bare: "NonDynamicallyQuantizableLinear"} if bare == "attn.out_proj" else {}
    with pytest.raises(AllocationError, match=f"{bare}: is .*, and {name} leaves it as it is .*--pin"):
        target.dump(solve(with_bare(bare, (4,), types)))
    with pytest.raises(ProblemError, match=rf"{bare}\.bits: is .*, which {name} leaves as it is, and may not have 16"):
        target.prepare(with_bare(bare, (4, 8), types))


@pytest.mark.parametrize("name", [name for name in MODULES if name != "llama.cpp"])
def test_parameters_that_no_module_has_as_its_own_are_left_where_they_may_be(name: Any) -> None:
    target = format_named(name)
    prepared = target.prepare(with_bare("rnn.weight_hh_l1", (4, 16), {"rnn.weight_hh_l1": "GRU"}))
    assert prepared.provenance["left_as_it_is"] == "rnn.weight_hh_l1"
    found = solve(prepared)
    assert [prepared.candidates.label(group, column) for group, column in enumerate(known(found.choice))] == ["4", "16"]
    assert target.dump(found)


def test_torchao_refuses_modules_that_it_cannot_run() -> None:
    target = format_named("torchao")
    with pytest.raises(AllocationError, match="conv: is the weight of Conv1d, and torchao leaves it as it is"):
        target.dump(solve(with_bare("conv", (4,), {"conv": "Conv1d"})))
    assert target.dump(solve(with_bare("conv", (4,), {"conv": "Conv2d"})))
    with pytest.raises(AllocationError, match="conv: is Conv2d, and torchao offers inputs of 8 bits to Linear alone"):
        target.dump(solve(replace(with_activations((8,)), types={"conv": "Conv2d"})))


@pytest.mark.parametrize("name", ["torchao", "compressed-tensors", "mlx"])
def test_scales_are_as_wide_as_the_networks_weights(name: Any) -> None:
    target = format_named(name, group_size=32)
    widths = {}
    for stored in (16, 32):
        prepared = target.prepare(replace(llama(bits=(4, 16)), stored=stored))
        widths[stored] = dict(zip(prepared.candidates.labels(0), prepared.candidates.sets[0], strict=True))
    more = 2 if name == "mlx" else 1  # scale and bias
    assert widths[32]["4"] - widths[16]["4"] == more * 16 / 32
    assert (widths[16]["16"], widths[32]["16"]) == (16, 32)


def test_weights_only_keeps_everything_about_the_weights() -> None:
    groups = [
        Group("a", size=10, sensitivity=1.0, bits=(2, 4, 8), reads="x"),
        Group("x", size=50, sensitivity=5.0, bits=(8,), kind="activation"),
        Group("b", size=20, sensitivity=2.0, bits=(2, 4), reads="x"),
        Group("y", size=60, sensitivity=6.0, bits=(8,), kind="activation"),
        Group("c", size=30, sensitivity=3.0, bits=(2, 4, 8), reads="y"),
    ]
    problem = Problem.declare(groups, bound=0.5, pins={"c": 4}, ties=[["a", "b"]])
    weights = problem.revise(weights_only=True)
    alone = [replace(group, reads="") for group in groups if group.kind == "weight"]
    expected = Problem.declare(alone, bound=0.5, pins={"c": 4}, ties=[["a", "b"]])
    assert solve(weights).bits.tolist() == solve(expected).bits.tolist()
    assert law_of(weights).sensitivity.tolist() == [1, 2, 3]
    assert list(weights.names) == ["a", "b", "c"]
    assert (dict(weights.pins), weights.ties) == (dict(expected.pins), expected.ties)
    assert weights.revise(weights_only=True) is weights
    with pytest.raises(ProblemError, match="has no weights"):
        Problem.declare([groups[1]]).revise(weights_only=True)


# -- readers -------------------------------------------------------------------------------------------------------


def changes(*pairs: Any) -> list[Any]:
    return [{"dkld": kld, "dbits": bits} for kld, bits in pairs]


def test_exllamav3_measurements(tmp_path: Path) -> None:
    document = {
        "base": {"dir": "b", "bpw": 2.0},
        "alts": [{"dir": "c", "bpw": 3.0}, {"dir": "d", "bpw": 4.0}],
        "base_kld": 0.5,
        "groups": [
            {"idx": 0, "layers": ["l.0.q", "l.0.k"], "candidates": changes((-0.1, 100), (-0.2, 200))},
            {"idx": 1, "layers": ["l.1"], "candidates": changes((0.01, 10), (-0.05, 30))},
        ],
    }
    path = tmp_path / "measurement.json"
    path.write_text(json.dumps(document))
    problem = format_named("exllamav3").read(path)
    found = solve(problem, budget=130)
    assert known(found.choice).tolist() == [1, 2]  # 130 bits: -0.1 - 0.05 beats everything else
    assert found.damage + problem.provenance["damage_offset"] == pytest.approx(-0.15)
    assert list(problem.names) == ["l.0.q + l.0.k", "l.1"]


def autoround_caches(folder: Any, seed: int = 0) -> Any:
    """Write caches as AutoScheme writes them, one a scheme."""
    rng = np.random.default_rng(seed)
    sizes = {name: 128 * int(rng.integers(8, 64)) for name in LAYERS}
    worst = {name: float(rng.uniform(0.01, 1)) for name in LAYERS}
    paths = []
    for place, (bits, group) in enumerate([(2, 128), (4, 128), (8, 128), (16, -1)]):
        extra = 0 if bits == 16 else (16 + bits) // 1
        scores = {
            n: [bits * s + (s // group * extra if bits < 16 else 0), worst[n] * 4.0**-bits] for n, s in sizes.items()
        }
        cache = {
            "version": 1, "score_granularity": "per_op", "cache_key": "0", "cache_config": {}, "scheme_index": place,
            "scheme": {"bits": bits, "group_size": group, "sym": True, "data_type": "int", "super": None},
            "layer_scores": scores, "total_loss_for_scheme": 1.0, "total_params": sum(sizes.values()),
        }  # fmt: skip
        paths.append(folder / f"scheme_{place:02d}_0.json")
        paths[-1].write_text(json.dumps(cache))
    return paths, sizes


def test_autoround_caches_in_and_layer_config_out(tmp_path: Path) -> None:
    paths, sizes = autoround_caches(tmp_path)
    target = format_named("autoround")
    problem = target.read(*paths)
    assert list(problem.names) == LAYERS
    assert problem.sizes.tolist() == list(sizes.values())
    found = solve(problem, budget=4.5 * sum(sizes.values()))
    config = target.config(found)
    for layer, column, label in zip(
        LAYERS,
        known(found.choice),
        [problem.candidates.labels(0)[k] for k in known(found.choice)],
        strict=True,
    ):
        assert config[layer]["bits"] == [2, 4, 8, 16][column]
        assert label.startswith(f"W{config[layer]['bits']}A16")
    q, k, v = (config[f"model.layers.0.self_attn.{p}_proj"]["bits"] for p in "qkv")
    assert q == k == v
    # the cost is AutoRound's own count, scales and zero points included
    written = [json.loads(path.read_text())["layer_scores"] for path in paths]
    assert found.cost == sum(
        written[column][layer][0] for layer, column in zip(LAYERS, known(found.choice), strict=True)
    )
    folder = format_named("autoround").read(tmp_path)
    assert folder.digest == problem.digest


@pytest.mark.parametrize(
    ("schemes", "bare"),
    # One width alone tells nothing, and AutoRound counts scales unless it is told not to.
    [
        *((widths, bare) for widths in ((2, 4, 8), (2, 4, 16), (4, 16)) for bare in (False, True)),
        ((4,), False),
    ],
)
def test_autoround_caches_that_leave_scales_out_cost_what_the_others_do(schemes: Any, bare: Any) -> None:
    sizes = {"a": 128 * 9, "b": 128 * 40}
    full = {b: [b * s + s // 128 * (0 if b == 16 else 16 + b) for s in sizes.values()] for b in schemes}
    caches = [
        {
            "version": 1,
            "score_granularity": "per_op",
            "scheme": {"bits": b, "group_size": 128},
            "layer_scores": {
                n: [b * s if bare else bits, 1 / b] for (n, s), bits in zip(sizes.items(), full[b], strict=True)
            },
        }
        for b in schemes
    ]
    problem = format_named("autoround").problem(caches)
    assert problem.sizes.tolist() == list(sizes.values())
    assert problem.costs[0].values.tolist() == [list(row) for row in zip(*full.values(), strict=True)]
    assert ("scales_added" in problem.provenance) == bare


def test_autoround_scales_a_channel_cannot_be_added_and_that_is_told() -> None:
    caches = [
        {
            "version": 1,
            "score_granularity": "per_op",
            "scheme": {"bits": b, "group_size": group},
            "layer_scores": {"a": [b * 4096, 1 / b]},
        }
        for b, group in ((2, 32), (8, -1))
    ]
    problem = format_named("autoround").problem(caches)
    assert problem.costs[0].values.tolist() == [[2 * 4096 + 128 * 18, 8 * 4096]]
    assert "W8A16-g-1" in problem.provenance["scales_added"]


def test_modelopt_scores_as_json(tmp_path: Path) -> None:
    stats = {
        f"{name}.quant_recipe": {
            "formats": ["NVFP4(effective-bits: 4.5)", "FP8(effective-bits: 8.0)", "NONE(effective-bits: 16.0)"],
            "scores": [score, score / 10, 0],
            "costs": [1000 * 4.5 / 16, 500.0, 1000.0],
            "module_names": [name],
            "uncompressed_cost": 1000.0,
        }
        for name, score in (("a", 1.0), ("b", 2.0), ("c", 1e-9))
    }
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"method": "gradient", "candidate_stats": stats}))
    problem = format_named("modelopt").read(path)
    found = solve(problem, budget=6.0 * 3000)
    assert found.status.value == "optimal"
    assert [problem.candidates.labels(0)[k] for k in known(found.choice)] == [
        "NVFP4",
        "FP8",
        "NVFP4",
    ]
    assert found.damage == pytest.approx(1.2)
    config = format_named("modelopt").config(found)["quant_cfg"]
    assert config[0] == {"quantizer_name": "*", "enable": False}
    assert config[2]["cfg"]["num_bits"] == [4, 3]


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["csv", PARQUET])
def test_tables_round_trip(name: Any, tmp_path: Path) -> None:
    problem = llama(bits=(2, 4, 8))
    found = solve(problem)
    target = format_named(name, candidates=True)
    path = tmp_path / f"table.{name}"
    path.write_bytes(target.dump(found))
    again = target.read(path)
    assert list(again.names) == list(problem.names)
    assert again.sizes.tolist() == problem.sizes.tolist()
    np.testing.assert_array_equal(again.damage.values, problem.damage.at(slice(None), (2, 4, 8)))
    np.testing.assert_array_equal(solve(again, bound=0.05).choice, found.choice)
    assert solve(again, bound=0.05).cost == found.cost
    chosen = target.load([path])["chosen"]
    assert [k % 3 for k, one in enumerate(chosen) if int(one)] == known(found.choice).tolist()


def test_ragged_and_coupled_tables_round_trip(tmp_path: Path) -> None:
    groups = [
        Group("conv[0]", size=9, damage=[0.1, 0.05], bits=(2, 8), layer="conv"),
        Group("conv[1]", size=9, damage=[0.3, 0.02, 0.01], bits=(1, 4, 8), layer="conv"),
        Group("relu", size=100, damage=[0.2], bits=(8,), kind="activation"),
    ]
    problem = Problem.declare(groups, bound=1.0, minimize={"storage": 1, "activation-memory": 0.5})
    target = format_named("csv", candidates=True)
    path = tmp_path / "t.csv"
    path.write_bytes(target.dump(solve(problem)))
    again = target.read(path)
    for bound in (1.0, 0.4, 0.27, 0.2601):
        one, other = solve(problem, bound=bound), solve(again, bound=bound)
        assert (one.cost, one.status) == (other.cost, other.status)
    assert again.names.layers == ("conv", "conv", "relu")


def test_a_plain_table_has_one_row_a_group(tmp_path: Path) -> None:
    found = solve(llama())
    rows = format_named("csv").dump(found).decode().splitlines()
    assert len(rows) == 1 + len(LAYERS)
    bits = [float(row.split(",")[4]) for row in rows[1:]]
    assert bits == found.bits.tolist()


def test_sensitivities_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("group,size,sensitivity\na,10,0.5\nb,1000,0.001\n")
    problem = format_named("csv").read(path)
    assert solve(problem, bound=0.01).status.value == "optimal"
    assert problem.damage.sensitivity.tolist() == [0.5, 0.001]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows"),
        ("group,damage\n", "has no rows"),
        ("group,bits,damage\na,2\n", r"row 2 \(a\): must have 3 values, got 2"),
        ("grp,bits,damage\na,2,3\n", r"unknown column, got 'grp' \(did you mean 'group'"),
        ("group,bits,size\na,2,3\n", "column damage or a column sensitivity"),
        ("group,bits,damage\na,2,3\n", "needs a column cost"),
        ("group,bits,size,damage\na,2,3,x\n", r"row 2 \(a\): damage: must be a finite number, got 'x'"),
        ("group,bits,size,damage\na,2,3,nan\n", "must be a finite number"),
        ("group,bits,size,damage\na,2,3.5,1\n", "must be a whole number"),
        ("group,bits,size,damage\na,2,3,1\na,4,5,1\n", r"row 3 \(a\): size: differs between the rows of 'a'"),
        ("group,bits,size,damage,kind\na,2,3,1,wait\n", r"row 2 \(a\): kind: must be weight or activation"),
        ("group,bits,size,damage\na,2,3,1\na,2,3,1\n", "candidates must be distinct"),
        ("group,bits,size,damage\na,2,3,-inf\n", r"row 2 \(a\): damage: must be a finite number"),
        ("group,size,sensitivity\na,2,3\na,2,3\n", "one row a group"),
        ('group,bits,size,damage\n"a,2,3,1\n', "is not CSV"),
        ("group,bits,size,damage\na,2,3,\x00\n", "row|CSV"),
    ],
)
def test_bad_tables_say_what_and_where(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ImpqError, match=says):
        format_named("csv").read(path)


@pytest.mark.parametrize("name", [n for n in format_names(reads=True) if n not in ("csv", "gguf", "parquet")])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"groups": 3}', '{"candidate_stats": {"a": 1}}', '{"version": 1}',
             '{"version": 1, "score_granularity": "per_op", "layer_scores": 4}', '{"groups": [{"layers": []}]}',
             '{"candidate_stats": {"a": {"costs": [1], "scores": [], "formats": []}}}']
)  # fmt: skip
def test_foreign_json_is_told_in_one_sentence(name: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(ImpqError) as caught:
        format_named(name).read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [{"parquet": PARQUET, "gguf": GGUF}.get(name, name) for name in format_names(reads=True)]
)
def test_missing_files_are_told(name: Any, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no such file|cannot be read|No such file"):
        format_named(name).read(tmp_path / "nothing.json")


# -- the registry --------------------------------------------------------------------------------------------------


def test_every_format_describes_itself() -> None:
    for name in format_names():
        kind = format_class(name)
        assert kind.name == name
        assert kind.summary
        assert kind.source
        assert kind.__doc__
        if issubclass(kind, Writer):
            assert kind.limits
    assert set(format_names(reads=True)) | set(format_names(writes=True)) == set(format_names())
    assert all(issubclass(format_class(name), Reader) for name in format_names(reads=True))


def test_what_a_target_stores_can_be_measured() -> None:
    assert writer_of("torchao").measured() == ("integer", (1, 2, 3, 4, 5, 6, 7, 8, 16))
    assert writer_of("compressed-tensors:group_size=32").measured() == ("integer:over=32", (4, 8, 16))
    assert writer_of("gptqmodel").measured(bits=[3, 4]) == ("integer:over=128", (3, 4))
    with pytest.raises(OptionError, match=r"bits: compressed-tensors stores 4, 8, 16, got '3'"):
        writer_of("compressed-tensors").measured(bits=[3, 4])
    with pytest.raises(OptionError, match="groups: torchao stores one precision a layer, got 'kernel'"):
        writer_of("torchao").measured("kernel")
    assert writer_of("modelopt:group_size=32").measured() == ("symmetric:over=32/4", (4, 8, 16))
    assert writer_of("onnxruntime").measured() == ("symmetric:over=tensor", (8, 16))
    assert writer_of("onnxruntime:model=network.onnx").measured() == ("symmetric", (4, 8, 16))
    assert writer_of("mlx").measured(bits=[2, 5]) == ("affine:over=64", (2, 5))
    for name in ("llama.cpp", "exllamav3"):
        with pytest.raises(OptionError, match="none of `impq-opt methods`"):
            writer_of(name).measured()


def _of_lengths(lengths: Any, bits: Any = (4, 8, 16), **options: Any) -> Problem:
    groups = [
        Group(f"l{k}", size=10 * length, sensitivity=1.0, bits=bits, length=length) for k, length in enumerate(lengths)
    ]
    return replace(Problem.declare(groups, bound=1e9), **options)


@pytest.mark.parametrize(
    ("target", "short"),
    [("gptqmodel:group_size=32", [Fraction(4) + Fraction(2 * 20, 40), 8 + Fraction(2 * 24, 40), 16]),
     ("compressed-tensors:group_size=32", [16]), ("modelopt:group_size=32", [8, 16]), ("torchao:group_size=32", [16]),
     ("mlx:group_size=32", [32])],
)  # fmt: skip
def test_kernels_that_blocks_do_not_divide_keep_what_can_be_stored(target: str, short: Any) -> None:
    """Of 40 weights: two blocks of 32, of which the second is short, or none."""
    writer = writer_of(target)
    problem = _of_lengths((64, 40))
    prepared = writer.prepare(problem)
    whole, cut = (prepared.candidates.sets[prepared.candidates.number_of(g)] for g in (0, 1))
    assert list(cut)[-1] == prepared.stored
    expected = [prepared.stored if width == 16 else float(width) for width in short]
    assert sorted(set(cut)) == sorted(set(expected)), (whole, cut)
    assert len(whole) >= len(cut) and min(whole) < 10
    writer.config(solve(prepared))  # what was prepared can be written


def test_widths_that_are_no_decimals_are_rounded_up() -> None:
    """Nine weights of 4 bits in a block with 20 bits besides take 6 2/9 bits each."""
    prepared = writer_of("gptqmodel:group_size=32").prepare(_of_lengths((9, 64)))
    width = Fraction(prepared.candidates.sets[prepared.candidates.number_of(0)][0])
    assert 0 < width - (4 + Fraction(20, 9)) < Fraction(1, 1024)
    assert solve(prepared).choice is not None  # sums stay within 64 bits


def test_an_allocation_that_wants_short_blocks_is_refused_by_layer_and_length() -> None:
    found = solve(_of_lengths((64, 40), bits=(4,)))
    for target in ("compressed-tensors", "mlx", "torchao", "modelopt"):
        with pytest.raises(AllocationError, match=r"l1: has kernels of 40 weights, and .* wants output kernels of"):
            writer_of(f"{target}:group_size=32").config(found)
    assert writer_of("gptqmodel:group_size=32").config(found)
    with pytest.raises(ProblemError, match=r"l1.bits: .* kernels of 40 weights, which blocks of 32 do not divide"):
        writer_of("compressed-tensors:group_size=32").prepare(_of_lengths((64, 40), bits=(4, 8)))


def test_convolutions_have_no_blocks_where_a_tool_cuts_rows() -> None:
    problem = _of_lengths((64, 64), types={"l1": "Conv2d"})
    for target, left in (("modelopt", [8, 32]), ("torchao", [32]), ("mlx", [4.25, 8.25, 32])):
        prepared = writer_of(f"{target}:group_size=64").prepare(problem)
        assert {float(w) for w in prepared.candidates.sets[prepared.candidates.number_of(1)]} >= {32.0}
        if target != "mlx":
            assert list(prepared.candidates.sets[prepared.candidates.number_of(1)]) == left
        else:
            assert prepared.pins  # left as it is
    found = solve(_of_lengths((64, 64), bits=(4,), types={"l1": "Conv2d"}))
    with pytest.raises(AllocationError, match=r"l1: has 4, and modelopt has no blocks of 64 in weights of Conv2d"):
        writer_of("modelopt:group_size=64").config(found)


def test_damages_of_a_targets_grid_are_not_those_of_its_floating_point_formats() -> None:
    problem = _of_lengths((128,))
    measured = replace(problem, grids={"l0": writer_of("modelopt").grid()})
    names = [writer_of("modelopt").prepare(each).candidates.formats[0] for each in (problem, measured)]
    assert "NVFP4" in names[0] and names[1] == ("4", "8", "16")


def test_unknown_formats_and_options_have_near_matches() -> None:
    with pytest.raises(OptionError, match="did you mean 'torchao'"):
        format_named("torch-ao")
    with pytest.raises(OptionError, match="did you mean 'group_size'"):
        format_named("mlx", groupsize=32)
    with pytest.raises(OptionError, match=r"mlx\.group_size: must be 32, 64 or 128"):
        format_named("mlx", group_size=33)


def test_formats_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = EntryPoint("mlx-too", "impq_opt.exchange.mlx:Mlx", "impq_opt.exchange")
    taken = EntryPoint("mlx", "nowhere:Nothing", "impq_opt.exchange")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [theirs, taken])
    assert "mlx-too" in format_names(writes=True)
    assert format_named("mlx-too", group_size=32).group_size == 32
    assert format_named("mlx").name == "mlx"  # shipped names cannot be taken


def test_listing_formats_imports_no_peer() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from impq_opt.exchange import format_names, make_format;"
        "[make_format(n) for n in format_names()];"
        "bad = {'torch', 'torchao', 'modelopt', 'auto_round', 'onnx', 'onnxruntime', 'pyarrow'} & set(sys.modules);"
        "raise SystemExit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
