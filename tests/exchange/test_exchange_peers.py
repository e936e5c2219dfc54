"""Exchange formats against the tools themselves: their parsers read what is written, their engines run it.

Each test is marked with the peers that it needs.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats import format_named
from known import known

from impq_opt import Group, GroupNames, Problem, Status, solve
from impq_opt.exchange import writer_of

pytestmark = pytest.mark.filterwarnings("ignore")  # peers warn of their own affairs


@pytest.fixture(autouse=True)
def mixed_torch_installation() -> None:
    """Peers import torchvision by way of transformers; see impq_opt.data.torchvision."""
    if importlib.util.find_spec("torchvision") is not None:
        from impq_opt.data.torchvision import torchvision_module

        torchvision_module()


def mlp(seed: int = 0) -> Any:
    import torch

    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 96), torch.nn.ReLU(), torch.nn.Linear(96, 10)
    )


def mlp_problem(bits: Any = (2, 4, 8), inputs: Any = ()) -> Problem:
    rng = np.random.default_rng(0)
    weights = [("0", 8192, "a"), ("2", 12288, "b"), ("4", 960, "c")]
    groups = [
        Group(name, size=size, sensitivity=float(rng.uniform(0.1, 3)), bits=bits, reads=read if inputs else "")
        for name, size, read in weights
    ]
    for bit, (_, _, read) in zip(inputs, weights, strict=False):
        groups.append(Group(read, size=64, sensitivity=1e-3, bits=(bit,), kind="activation"))
    return Problem.declare(groups, bound=0.1)


# -- torchao -------------------------------------------------------------------------------------------------------


@pytest.mark.peer("torch", "torchao")
def test_torchao_quantizes_and_runs_a_model_as_allocated() -> None:
    import torch
    from torchao.quantization import quantize_

    target = format_named("torchao", group_size=32, packed=True)
    problem = target.prepare(mlp_problem().revise(pins={"4": 8}))
    found = solve(problem, bound=0.2)
    bits = [int(problem.candidates.labels(0)[k]) for k in known(found.choice)]
    assert len(set(bits)) > 1
    model, x = mlp(), torch.randn(256, 64)
    before = model(x)
    quantize_(model, target.native(found), filter_fn=None)
    after = model(x)
    assert torch.isfinite(after).all()
    for name, b in zip(("0", "2", "4"), bits, strict=True):
        weight = model.get_submodule(name).weight
        assert weight.target_dtype == getattr(torch, f"int{b}")
        assert weight.block_size == (1, 32)
        assert int(weight.qdata.max()) <= 2 ** (b - 1) - 1
        assert int(weight.qdata.min()) >= -(2 ** (b - 1))
    assert not torch.equal(before, after)


@pytest.mark.peer("torch", "torchao")
def test_torchao_reads_dynamic_inputs_and_layers_left_alone() -> None:
    from torchao.core.config import config_from_dict, config_to_dict

    target = format_named("torchao")
    config = target.config(
        solve(mlp_problem(bits=(4, 16), inputs=(8, 16, 16)).revise(pins={"2": 16, "4": 4}), bound=9.0)
    )
    read = config_from_dict(json.loads(json.dumps(config)))
    kinds = [type(value).__name__ for value in read.fqn_to_config.values()]
    assert kinds == ["Int8DynamicActivationIntxWeightConfig", "NoneType", "IntxWeightOnlyConfig"]
    assert config_to_dict(read)["_data"]["fqn_to_config"]["4"]["_data"]["weight_dtype"]["_data"] == "int4"


@pytest.mark.peer("torch", "torchao")
def test_torchao_quantizes_convolutions() -> None:
    import torch
    from torchao.quantization import quantize_

    model: Any = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    problem = Problem.declare(
        [Group("0", size=216, sensitivity=1.0, bits=(4,)), Group("2", size=288, sensitivity=1.0, bits=(6,))]
    )
    quantize_(model, format_named("torchao").native(solve(problem, bound=1.0)), filter_fn=None)
    assert [str(model[i].weight.target_dtype) for i in (0, 2)] == ["torch.int4", "torch.int6"]


@pytest.mark.peer("torch", "torchao")
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("inputs", [8, 16])
def test_torchao_stores_the_bytes_that_preparing_promises(kind: str, inputs: int) -> None:
    import torch
    from torchao.quantization import quantize_

    target = format_named("torchao", group_size=32)
    problem = replace(mlp_problem(bits=(1, 3, 8, 16), inputs=(inputs,) * 3), stored=16 if kind == "bfloat16" else 32)
    model = mlp().to(getattr(torch, kind))
    prepared = target.prepare(problem.revise(pins={"0": 1, "2": 3, "4": 16}))
    found = solve(prepared, bound=99.0)
    quantize_(model, target.native(found), filter_fn=None)
    assert known(found.exact_cost) == 8 * sum(held(model[place].weight) for place in (0, 2, 4))


def held(weight: Any) -> int:
    """Return the bytes of a weight as a state dict has it: its own, or those of the tensors that it is made of."""
    if not hasattr(weight, "__tensor_flatten__"):
        return int(weight.nbytes)
    return sum(getattr(weight, name).nbytes for name in weight.__tensor_flatten__()[0])


@pytest.mark.peer("torch", "torchao")
@pytest.mark.parametrize("bits", [1, 8])
def test_torchao_stores_one_scale_a_channel_beside_the_bytes_that_are_promised(bits: int) -> None:
    import torch
    from torchao.quantization import quantize_

    target = format_named("torchao")
    found = solve(target.prepare(Problem.declare([Group("0", size=8192, sensitivity=1.0, bits=(bits,))], bound=9.0)))
    model: Any = torch.nn.Sequential(torch.nn.Linear(64, 128))
    quantize_(model, target.native(found), filter_fn=None)
    assert 8 * held(model[0].weight) == known(found.exact_cost) + 128 * (32 + 8)


@pytest.mark.peer("torch", "torchao")
@pytest.mark.parametrize("name", ["rnn.weight_ih_l0", "attention.in_proj_weight", "attention.out_proj"])
def test_torchao_still_cannot_run_the_parameters_that_are_refused(name: str) -> None:
    import torch
    from torchao.quantization import FqnToConfig, IntxWeightOnlyConfig, quantize_

    int4 = getattr(torch, f"int{4}")  # not in the stubs

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 2)
            self.rnn = torch.nn.GRU(16, 16)

        def forward(self, x: Any) -> Any:
            return self.rnn(self.attention(x, x, x)[0])

    model = Network().eval()
    quantize_(model, FqnToConfig({name: IntxWeightOnlyConfig(weight_dtype=int4)}), filter_fn=None)
    with pytest.raises(NotImplementedError):
        model(torch.randn(3, 2, 16))


# -- AutoRound -----------------------------------------------------------------------------------------------------


@pytest.mark.peer("torch", "auto_round", "transformers")
def test_autoround_reads_the_same_caches_and_takes_the_layer_config(tmp_path: Path) -> None:
    from dataclasses import asdict

    from auto_round.auto_scheme.delta_loss import _load_autoscheme_scores, _save_autoscheme_scores
    from auto_round.schemes import PRESET_SCHEMES, QuantizationScheme

    sizes = {"0": 8192, "2": 12288, "4": 96 * 128}
    paths = []
    for place, name in enumerate(("W2A16", "W4A16", "W8A16", "BF16")):
        scheme = PRESET_SCHEMES[name]
        extra = 0 if scheme.bits >= 16 else 16 + scheme.bits
        scores = {
            n: [scheme.bits * s + s // 128 * extra, 4.0**-scheme.bits * (k + 1)]
            for k, (n, s) in enumerate(sizes.items())
        }
        paths.append(tmp_path / f"scheme_{place:02d}.json")
        _save_autoscheme_scores(
            str(paths[-1]), "key", place, asdict(scheme), scores, 1.0, sum(sizes.values()), {"model": "x"}
        )
        assert _load_autoscheme_scores(str(paths[-1])) is not None
    target = format_named("autoround")
    problem = target.read(*paths)
    assert problem.sizes.tolist() == list(sizes.values())
    found = solve(problem, budget=5 * sum(sizes.values()))
    assert found.status is Status.OPTIMAL
    for entry in target.config(found).values():
        scheme = QuantizationScheme.from_dict(entry)
        assert scheme.bits in (2, 4, 8, 16)


@pytest.mark.peer("torch", "auto_round", "transformers")
def test_autoround_own_search_is_never_better(tmp_path: Path) -> None:
    from auto_round.auto_scheme.delta_loss import choose_bits_per_layer_with_path

    rng = np.random.default_rng(3)
    names = [f"l{k}" for k in range(12)]
    sizes = {name: 128 * int(rng.integers(4, 80)) for name in names}
    caches: list[Any] = []
    table: dict[str, list[Any]] = {name: [] for name in names}
    for place, bits in enumerate((2, 4, 8)):
        scores = {
            n: [bits * s + s // 128 * (16 + bits), float(rng.uniform(0.5, 1.5) * 4.0**-bits)] for n, s in sizes.items()
        }
        for name, (cost, loss) in scores.items():
            table[name].append((place, cost, loss, [name]))
        scheme = {"bits": bits, "group_size": 128, "sym": True, "data_type": "int", "act_bits": 16}
        caches.append({"version": 1, "score_granularity": "per_op", "scheme": scheme, "layer_scores": scores})
    budget = int(4.4 * sum(sizes.values()))
    loss, path = choose_bits_per_layer_with_path(table, budget)
    assert path is not None
    target = format_named("autoround")
    found = solve(target.problem(caches), budget=budget)
    assert found.status is Status.OPTIMAL
    assert found.damage + found.problem.provenance.get("damage_offset", 0.0) <= loss * (1 + 1e-12)


@pytest.mark.peer("torch", "auto_round", "transformers")
@pytest.mark.parametrize("bare", [False, True])
def test_autoround_counts_scales_unless_told_not_to(bare: bool) -> None:
    import torch
    from auto_round.auto_scheme.utils import compute_layer_bits

    caches, layers = [], {"0": torch.nn.Linear(256, 128), "1": torch.nn.Linear(128, 64)}
    for bits in (2, 4, 8):
        scheme = {"bits": bits, "group_size": 128, "sym": False, "data_type": "int"}
        for layer in layers.values():
            for key, value in scheme.items():
                setattr(layer, key, value)
        scores = {name: [compute_layer_bits(layer, bare)[0], 1 / bits] for name, layer in layers.items()}
        caches.append({"version": 1, "score_granularity": "per_op", "scheme": scheme, "layer_scores": scores})
    assert format_named("autoround").problem(caches).sizes.tolist() == [256 * 128, 128 * 64]


# -- compressed-tensors --------------------------------------------------------------------------------------------


@pytest.mark.peer("torch", "compressed_tensors")
def test_compressed_tensors_reads_and_applies_the_config_groups() -> None:
    import torch
    from compressed_tensors.quantization import apply_quantization_config

    target = format_named("compressed-tensors", group_size=32)
    problem = target.prepare(mlp_problem(bits=(4, 8, 16)).revise(pins={"0": 8, "2": 4, "4": 16}))
    config = target.native(solve(problem, bound=9.0))
    model = mlp()
    apply_quantization_config(model, config)
    schemes: list[Any] = [getattr(model[i], "quantization_scheme", None) for i in (0, 2, 4)]
    assert [s and s.weights.num_bits for s in schemes] == [8, 4, None]
    assert schemes[0].weights.group_size == 32
    assert isinstance(model[4], torch.nn.Linear)


@pytest.mark.peer("torch", "compressed_tensors")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_compressed_tensors_stores_scales_as_wide_as_the_weights(bits: int, kind: str) -> None:
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import apply_quantization_config

    target = format_named("compressed-tensors", group_size=32)
    model: Any = torch.nn.Sequential(torch.nn.Linear(64, 128)).to(getattr(torch, kind))
    stored = 8 * model[0].weight.itemsize
    problem = Problem.declare([Group("0", size=8192, sensitivity=1.0, bits=(bits,))], bound=9.0, stored=stored)
    found = solve(target.prepare(problem))
    apply_quantization_config(model, target.native(found))
    ModelCompressor.from_pretrained_model(model).compress_model(model)
    tensors = dict(model[0].named_parameters()) | dict(model[0].named_buffers())
    size = sum(tensor.nbytes for name, tensor in tensors.items() if name in ("weight_packed", "weight_scale"))
    assert 8 * size == known(found.exact_cost)


@pytest.mark.peer("torch", "compressed_tensors")
def test_compressed_tensors_reads_dynamic_inputs() -> None:
    config = format_named("compressed-tensors").native(solve(mlp_problem(bits=(8,), inputs=(8, 8, 8)), bound=9.0))
    (group,) = config.config_groups.values()
    assert group.input_activations.num_bits == 8
    assert group.input_activations.dynamic


# -- ModelOpt ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run ModelOpt's own auto_quantize on a small network; return its search state and checkpoint."""
    import torch

    from impq_opt.data.torchvision import torchvision_module

    torchvision_module()
    from modelopt.torch import quantization

    torch.manual_seed(0)
    weights = {"quantizer_name": "*weight_quantizer"}
    inputs = {"quantizer_name": "*input_quantizer", "enable": False}
    formats = [
        {"quant_cfg": [weights | {"cfg": {"num_bits": b, "axis": 0}}, inputs], "algorithm": "max"} for b in (2, 4, 8)
    ]
    data = [(torch.randn(64, 64), torch.randint(0, 10, (64,))) for _ in range(4)]
    checkpoint = tmp_path_factory.mktemp("modelopt") / "state.pth"
    _, state = quantization.auto_quantize(
        mlp(),
        constraints={"effective_bits": 4.5},
        quantization_formats=formats,
        data_loader=data,
        forward_step=lambda model, batch: model(batch[0]),
        loss_func=lambda output, batch: torch.nn.functional.cross_entropy(output, batch[1]),
        num_calib_steps=2,
        num_score_steps=4,
        verbose=False,
        checkpoint=str(checkpoint),
    )
    return state, checkpoint


@pytest.mark.peer("torch", "modelopt")
@pytest.mark.parametrize("effective_bits", [2.5, 3.0, 4.5, 6.0, 8.0])
def test_modelopt_search_step_is_replaced_and_never_worse(searched: Any, effective_bits: float) -> None:
    from modelopt.torch.quantization.algorithms import _resolve_best_recipe

    state, _ = searched
    target = format_named("modelopt")
    problem = target.problem(state)
    found = solve(problem, budget=effective_bits * int(problem.sizes.sum()))
    assert found.status is Status.OPTIMAL
    stats = state["candidate_stats"]
    theirs = _resolve_best_recipe(state, {"effective_bits": effective_bits})
    columns = [one["formats"].index(theirs[name]) for name, one in stats.items()]
    bits = sum(one["costs"][k] for one, k in zip(stats.values(), columns, strict=True)) * 16
    score = sum(one["scores"][k] for one, k in zip(stats.values(), columns, strict=True))
    assert found.cost <= effective_bits * int(problem.sizes.sum())
    if bits <= effective_bits * int(problem.sizes.sum()):
        assert found.damage <= score * (1 + 1e-12)


@pytest.mark.peer("torch", "modelopt")
def test_modelopt_applies_the_answer(searched: Any) -> None:
    import torch
    from modelopt.torch import quantization

    state, _ = searched
    target = format_named("modelopt")
    problem = target.problem(state)
    found = solve(problem, budget=5 * int(problem.sizes.sum()))
    config = quantization.get_auto_quantize_config(target.solved(state, found))
    model = quantization.quantize(mlp(), config, lambda m: m(torch.randn(64, 64)))
    wanted = [
        stat["formats"][k].num_bits
        for stat, k in zip(state["candidate_stats"].values(), known(found.choice), strict=True)
    ]
    quantizers = [model[i].weight_quantizer for i in (0, 2, 4)]
    assert [q.num_bits if q.is_enabled else 16 for q in quantizers] == wanted
    assert len(set(wanted)) > 1
    assert torch.isfinite(model(torch.randn(8, 64))).all()


@pytest.mark.peer("torch", "modelopt")
def test_modelopt_checkpoints_are_read(searched: Any) -> None:
    state, checkpoint = searched
    target = format_named("modelopt")
    assert target.read(checkpoint).digest == target.problem(state).digest


@pytest.mark.peer("torch", "modelopt")
def test_modelopt_runs_a_configuration_written_from_nothing() -> None:
    import torch
    from modelopt.torch import quantization

    problem = mlp_problem(bits=(4, 8, 16), inputs=(8, 16, 16)).revise(pins={"0": 4, "2": 16, "4": 8})
    config = format_named("modelopt", group_size=32).native(solve(problem, bound=9.0))
    model = quantization.quantize(mlp(), config, lambda m: m(torch.randn(64, 64)))
    assert (model[0].weight_quantizer.num_bits, model[0].weight_quantizer.block_sizes) == (4, {-1: 32})
    assert model[0].input_quantizer.is_enabled
    assert not model[2].weight_quantizer.is_enabled
    assert model[4].weight_quantizer.num_bits == 8
    weight = model[0].weight_quantizer(model[0].weight)
    assert max(len(torch.unique(block)) for block in weight.reshape(-1, 32)) <= 2**4


@pytest.mark.peer("torch", "modelopt")
def test_modelopt_reads_its_floating_formats() -> None:
    import torch
    from modelopt.torch import quantization

    groups = [
        Group("0", size=8192, sensitivity=1.0, bits=(4.5,), formats=("NVFP4",)),
        Group("2", size=12288, sensitivity=1.0, bits=(8.0,), formats=("FP8",)),
    ]
    config = format_named("modelopt").native(solve(Problem.declare(groups), bound=9.0))
    model = quantization.quantize(mlp(), config, lambda m: m(torch.randn(64, 64)))
    assert model[0].weight_quantizer.num_bits == (2, 1)
    assert model[0].weight_quantizer.block_sizes[-1] == 16
    assert model[2].weight_quantizer.num_bits == (4, 3)


@pytest.mark.peer("torch", "modelopt", "transformers", "requests", "huggingface_hub")
@pytest.mark.parametrize(
    ("precision", "width", "stored"),
    [("4", 4, "uint8"), ("8", 8, "int8"), ("FP8", 8, "float8_e4m3fn"), ("NVFP4", 4.5, "uint8")],
)
def test_modelopt_exports_every_format_that_is_written(precision: Any, width: Any, stored: Any, tmp_path: Path) -> None:
    import torch
    from modelopt.torch import quantization
    from modelopt.torch.export import export_hf_checkpoint
    from safetensors import safe_open
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "architectures": ["LlamaForCausalLM"]}
    model = LlamaForCausalLM(LlamaConfig(**shape, **heads)).to(torch.bfloat16)
    formats = () if precision.isdigit() else (precision,)
    groups = [
        Group(name, size=module.weight.numel(), sensitivity=1.0, bits=(width,), formats=formats)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    target = format_named("modelopt", group_size=32)
    found = solve(target.prepare(Problem.declare(groups, bound=99.0, stored=16)))
    if precision == "4":  # NVFP4 is one of 4 bits too
        found = solve(found.problem.revise(pins={"*": "4"}))
    quantized = quantization.quantize(model, target.native(found), lambda m: m(torch.randint(0, 64, (2, 16))))
    export_hf_checkpoint(quantized, export_dir=tmp_path)
    down = "model.layers.0.mlp.down_proj"
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        weight, scale = file.get_tensor(f"{down}.weight"), file.get_tensor(f"{down}.weight_scale")
    assert weight.dtype == getattr(torch, stored)
    blocks = precision in ("4", "NVFP4")
    cost = known(found.problem.sizes)[found.problem.names.layers.index(down)] * found.bits[0]
    assert 8 * (weight.nbytes + (scale.nbytes if blocks else 0)) == cost


@pytest.mark.peer("torch", "modelopt")
def test_modelopt_refuses_other_widths_by_layer() -> None:
    from impq_opt.errors import AllocationError

    with pytest.raises(AllocationError, match="2: has 3, and modelopt stores 4, 8, FP8, NVFP4, 16"):
        format_named("modelopt").native(solve(mlp_problem(bits=(3, 8)).revise(pins={"0": 8, "2": 3}), bound=9.0))


# -- GGUF ----------------------------------------------------------------------------------------------------------


@pytest.mark.peer("gguf")
def test_llama_cpp_precisions_have_the_block_sizes_of_gguf() -> None:
    from gguf.constants import GGML_QUANT_SIZES

    theirs = {kind.name.casefold(): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
    for precision in format_named("llama.cpp").precisions():
        elements, size = theirs[precision.name]
        assert precision.width(16) * elements == 8 * size


# -- a trained ResNet-20 -------------------------------------------------------------------------------------------


def trained() -> Any:
    """Return the network that ships, images and labels of the test set, and its share of right answers."""
    import torch

    from impq_opt import problems
    from impq_opt.data.fashion_mnist import DEBIAN, load_fashion_mnist
    from impq_opt.networks import load_network

    if "resnet20-fashion-mnist" not in problems.names():
        pytest.skip("the gallery has no trained ResNet-20")
    if not DEBIAN.exists():
        pytest.skip("Fashion-MNIST is not installed (Debian: dataset-fashion-mnist)")
    network = load_network("resnet20-fashion-mnist").eval()
    images, labels = load_fashion_mnist("test", download=False)
    with torch.no_grad():
        right = (network(images[:500]).argmax(1) == labels[:500]).float().mean()
    return problems.load("resnet20-fashion-mnist"), network, images[:500], labels[:500], float(right)


@pytest.mark.peer("torch", "torchao")
def test_torchao_keeps_a_trained_networks_accuracy() -> None:
    import torch
    from torchao.quantization import quantize_

    problem, network, images, labels, before = trained()
    target = format_named("torchao", packed=True)
    found = solve(target.prepare(problem.revise(weights_only=True)), bound=0.1)
    assert len(set(found.bits.tolist())) > 2
    assert known(found.effective_bits[0]) < 5
    config = target.native(found)
    config.fqn_to_config["conv1"] = None  # torchao 0.18 fails on convolutions of one input channel
    quantize_(network, config, filter_fn=None)
    with torch.no_grad():
        after = float((network(images).argmax(1) == labels).float().mean())
    assert before > 0.9
    assert after > before - 0.03


@pytest.mark.peer("torch", "onnx", "onnxruntime", "onnxscript")
def test_onnxruntime_keeps_a_trained_networks_accuracy(tmp_path: Path) -> None:
    import torch

    problem, network, images, labels, before = trained()
    path = tmp_path / "network.onnx"
    torch.onnx.export(network, (images,), path, dynamo=True, external_data=False, verbose=False)
    target = format_named("onnxruntime", model=str(path))
    found = solve(target.prepare(problem), minimize="representational", bound=0.1)
    weights = problem.weights()
    assert set(found.bits[weights]) == {4, 8}
    logits, graph = quantize_onnx(path, found, images, tmp_path)
    assert {kind for kind, _ in stored(graph).values()} == {"INT4", "INT8"}
    assert float((logits.argmax(1) == labels.numpy()).mean()) > before - 0.03


@pytest.mark.peer("torch", "modelopt")
def test_modelopt_keeps_a_trained_networks_accuracy() -> None:
    import torch
    from modelopt.torch import quantization

    problem, network, images, labels, before = trained()
    target = format_named("modelopt", group_size=64)  # blocks that divide the rows
    found = solve(target.prepare(problem), minimize="representational", bound=0.1)
    model = quantization.quantize(network, target.native(found), lambda m: m(images))
    bits = {g: int(b) for g, b in zip(problem.names, found.bits, strict=True)}
    for name, module in model.named_modules():
        if name in bits and hasattr(module, "weight_quantizer"):
            assert module.weight_quantizer.num_bits == bits[name]
    with torch.no_grad():
        after = float((model(images).argmax(1) == labels).float().mean())
    assert after > before - 0.03


# -- ONNX Runtime --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export ResNet-20 to ONNX; return the network, the file and a batch."""
    import torch

    from impq_opt.networks.resnet import resnet20

    torch.manual_seed(0)
    network, batch = resnet20().eval(), torch.randn(16, 3, 32, 32)
    path = tmp_path_factory.mktemp("onnx") / "resnet20.onnx"
    torch.onnx.export(network, (batch,), path, dynamo=True, external_data=False, verbose=False)
    return network, path, batch


def quantize_onnx(path: Any, allocation: Any, batch: Any, folder: Any) -> Any:
    """Quantize with ONNX Runtime as allocated; return the quantized model's logits and its graph."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([{name: batch.numpy()}])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    name = onnx.load(path).graph.input[0].name
    out = folder / "quantized.onnx"
    options = format_named("onnxruntime", model=str(path)).native(allocation)
    quantize_static(
        path,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options=options | {"WeightSymmetric": True, "UseQDQContribOps": True},
    )
    session = onnxruntime.InferenceSession(out)
    return session.run(None, {name: batch.numpy()})[0], onnx.load(out).graph


def stored(graph: Any) -> Any:
    """Return weight tensor -> (ONNX element type, integers as they are stored)."""
    from onnx import TensorProto, numpy_helper

    found = {}
    for one in graph.initializer:
        if one.name.endswith(".weight_quantized"):
            found[one.name.removesuffix("_quantized")] = (
                TensorProto.DataType.Name(one.data_type),
                numpy_helper.to_array(one).astype(np.int32),
            )
    return found


def resnet_layers(path: Any) -> dict[Any, Any]:
    import onnx

    initializers = onnx.load(path).graph.initializer
    return {i.name.removesuffix(".weight"): tuple(i.dims) for i in initializers if i.name.endswith(".weight")}


@pytest.mark.peer("torch", "onnx", "onnxruntime", "onnxscript")
def test_onnxruntime_quantizes_and_runs_resnet20_as_allocated(resnet: Any, tmp_path: Path) -> None:
    network, path, batch = resnet
    layers = resnet_layers(path)
    assert len(layers) == 20
    rng = np.random.default_rng(0)
    groups = [
        Group(n, size=int(np.prod(s)), sensitivity=float(rng.uniform(0.1, 9)), bits=(4, 8)) for n, s in layers.items()
    ]
    found = solve(Problem.declare(groups, bound=0.1))
    logits, graph = quantize_onnx(path, found, batch, tmp_path)
    kinds = stored(graph)
    assert {name: kinds[f"{name}.weight"][0] for name in layers} == {
        name: f"INT{bits}" for name, bits in zip(layers, found.bits, strict=True)
    }
    assert set(found.bits) == {4, 8}
    reference = network(batch).detach().numpy()
    assert np.corrcoef(logits.ravel(), reference.ravel())[0, 1] > 0.9


@pytest.mark.peer("torch", "onnx", "onnxruntime", "onnxscript")
def test_onnxruntime_gives_every_kernel_its_own_bits(resnet: Any, tmp_path: Path) -> None:
    _, path, batch = resnet
    layers = resnet_layers(path)
    convolutions = {name: shape for name, shape in layers.items() if len(shape) == 4}
    rng = np.random.default_rng(1)
    names = GroupNames(tuple(convolutions), tuple((shape[0],) for shape in convolutions.values()))
    sizes = np.concatenate([np.full(s[0], int(np.prod(s[1:]))) for s in convolutions.values()])
    problem = Problem.from_sensitivities(
        sizes, rng.uniform(0.01, 30, len(sizes)), names=names, bits=range(2, 9), bound=1.0
    )
    found = solve(problem)
    _, graph = quantize_onnx(path, found, batch, tmp_path)
    tensors = stored(graph)
    for place, (name, shape) in enumerate(convolutions.items()):
        bits = found.bits[names.offsets[place] : names.offsets[place + 1]]
        kind, values = tensors[f"{name}.weight"]
        assert kind == ("INT4" if max(bits) <= 4 else "INT8")
        peaks = np.abs(values.reshape(shape[0], -1)).max(axis=1)
        np.testing.assert_array_equal(peaks, 2 ** (bits - 1) - 1)  # the largest weight sits on the last level


@pytest.mark.peer("torch", "onnx", "onnxruntime", "onnxscript")
def test_onnxruntime_gives_activations_their_bits(resnet: Any, tmp_path: Path) -> None:
    _, path, batch = resnet
    layers = resnet_layers(path)
    first, second = list(layers)[1:3]
    groups = [
        Group(first, size=2304, sensitivity=1.0, bits=(8,), reads="a"),
        Group(second, size=2304, sensitivity=1.0, bits=(8,), reads="b"),
        Group("a", size=16384, sensitivity=1.0, bits=(8,), kind="activation"),
        Group("b", size=16384, sensitivity=1.0, bits=(16,), kind="activation"),
    ]
    found = solve(Problem.declare(groups, bound=9.0))
    options = format_named("onnxruntime", model=str(path)).config(found)["TensorQuantOverrides"]
    assert sorted(rows[0]["quant_type"] for rows in options.values()) == ["QInt8", "QInt8", "QUInt16", "QUInt8"]
    _, graph = quantize_onnx(path, found, batch, tmp_path)
    points = {i.name: i.data_type for i in graph.initializer if i.name.endswith("_zero_point")}
    assert 4 in points.values()  # onnx.TensorProto.UINT16


@pytest.mark.peer
@pytest.mark.parametrize("group", [0, 32])
def test_weights_are_measured_on_the_grids_of_torchao_and_compressed_tensors(group: int) -> None:
    """But for the weights of largest size, which lie half a step from two levels."""
    torch = pytest.importorskip("torch")
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    arguments = pytest.importorskip("compressed_tensors.quantization").QuantizationArgs
    from impq_opt.quantize.methods.uniform import WeightQuantizer

    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    size = group or 64
    for bits in range(2, 9):
        spec = f"integer:over={group}" if group else "integer"
        ours = WeightQuantizer(weight.shape, [bits], [weight.numel()], spec).rounded(weight)
        least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scales, zeros = primitives.choose_qparams_affine(
            weight, primitives.MappingType.SYMMETRIC, (1, size), torch.int8, least, most
        )
        parts = weight.reshape(-1, size)
        theirs, none = helpers.calculate_qparams(
            parts.amin(1), parts.amax(1), arguments(num_bits=bits, type="int", symmetric=True)
        )
        torch.testing.assert_close(scales.flatten(), theirs.flatten())
        assert not zeros.any() and not none.any()
        steps = theirs.reshape(-1, 1)
        rounded = (parts / steps).round().clamp(least, most) * steps
        inner = parts.abs() < parts.abs().amax(1, keepdim=True)
        torch.testing.assert_close(ours.reshape(-1, size)[inner], rounded[inner])


@pytest.mark.peer
def test_compressed_tensors_unpacks_the_words_of_a_checkpoint() -> None:
    torch = pytest.importorskip("torch")
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = np.random.default_rng(0).integers(0, 256, size=(3, 40))
    for bits in (4, 8):
        parts = writer_of("compressed-tensors").checkpoint("a.weight", bits, codes % 2**bits, np.ones((3, 1)))
        words = torch.from_numpy(np.array(parts["a.weight_packed"]))
        found = helpers.unpack_from_int32(words, bits, torch.Size(parts["a.weight_shape"]))
        assert np.array_equal(found.numpy(), codes % 2**bits - 2 ** (bits - 1))


@pytest.mark.peer
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_measured_on_the_grid_of_modelopt(bits: int) -> None:
    torch = pytest.importorskip("torch")
    quantization = pytest.importorskip("modelopt.torch.quantization")
    from impq_opt.quantize import load_method

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 6, bias=False))
    weight = network[0].weight.detach().clone()
    writer = writer_of("modelopt:group_size=32")
    groups = [Group("0.weight", size=weight.numel(), sensitivity=1.0, bits=(bits,), length=64)]
    found = solve(Problem.declare(groups, bound=1e9))
    quantized = quantization.quantize(network, writer.native(found), lambda model: model(torch.ones(1, 64)))
    theirs = quantized[0].weight_quantizer(quantized[0].weight).detach()
    ours = load_method(writer.grid()).quantizer(weight.shape, [bits], [weight.numel()])(weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert len(theirs[0].unique()) > 8


@pytest.mark.peer
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_weights_are_measured_on_the_grid_of_onnxruntime(bits: int) -> None:
    torch = pytest.importorskip("torch")
    helpers = pytest.importorskip("onnxruntime.quantization.quant_utils")
    proto = pytest.importorskip("onnx").TensorProto
    from impq_opt.quantize import load_method

    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    kind = {4: proto.INT4, 8: proto.INT8, 16: proto.INT16}[bits]
    values = weight.numpy()
    zero, scale = helpers.compute_data_quant_params(values.flatten(), kind, True)
    if bits == 4:  # measured with our scales alone, of a model
        assert 4 not in writer_of("onnxruntime").measured()[1]
        zero, scale = np.int8(0), np.float32(np.abs(values).max() / 7)
    codes = helpers.quantize_nparray(kind, values, scale, zero)
    theirs = (np.asarray(codes, dtype=np.float32).reshape(values.shape) - np.float32(zero)) * np.float32(scale)
    ours = load_method("symmetric:over=tensor").quantizer(weight.shape, [bits], [weight.numel()])(weight)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
