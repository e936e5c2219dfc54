"""Networks of several inputs, by position and by keyword, of tokens, and of other outputs than logits alone."""

from __future__ import annotations

import dataclasses
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import law_of, table_of
from safetensors.torch import save_file
from torch import nn

from impq_opt.cli import run
from impq_opt.data import Dataset
from impq_opt.data.calling import logits_of
from impq_opt.errors import DataError
from impq_opt.files import load_problem, save_problem
from impq_opt.measure import METRICS, Sampling, measure
from impq_opt.quantize import pack, quantize, unpack_into
from impq_opt.tracing.trace import trace
from impq_opt.validate.reality import Validation

RANDOM = torch.Generator().manual_seed(0)
IDS, MASK = torch.randint(0, 20, (48, 6), generator=RANDOM), torch.randint(0, 2, (48, 6), generator=RANDOM)
LABELS = torch.randint(0, 3, (48,), generator=RANDOM)
SCALE = torch.rand(48, 8, generator=RANDOM)


@dataclasses.dataclass
class Output:
    """What some networks give back."""

    hidden: torch.Tensor
    scores: torch.Tensor
    loss: torch.Tensor | None = None


Named = namedtuple("Named", ["hidden", "logits"])
OUTPUTS = {
    "tensor": lambda hidden, logits: logits,
    "tuple": lambda hidden, logits: (logits, hidden),
    "dict": lambda hidden, logits: {"hidden": hidden, "logits": logits},
    "only": lambda hidden, logits: {"hidden": hidden[..., None], "scores": logits},
    "dataclass": lambda hidden, logits: Output(hidden[..., None], logits),
    "named": Named,
}
PLACES = {"tuple": "[0]", "dict": "['logits']", "only": "['scores']", "dataclass": ".scores", "named": ".logits"}


class Words(nn.Module):
    """Embeds tokens, adds up those that a mask leaves, scales them, and classifies."""

    def __init__(self, output: str = "tensor") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.output = OUTPUTS[output]
        self.embed, self.inner, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input: Any, mask: Any, scale: Any = None) -> Any:  # noqa: A002 - a name that Python has too
        states = (self.embed(input) * mask[..., None]).sum(1)
        states = self.inner(states if scale is None else states * scale).relu()
        return self.output(states, self.head(states))


class Stacked(nn.Module):
    """The same of one input: tokens and mask side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.words = Words()

    def forward(self, x: Any) -> Any:
        return self.words(x[:, 0], x[:, 1])


FORMS: dict[str, Any] = {
    "position": (IDS, MASK),
    "keyword": {"input": IDS, "mask": MASK},
    "any order": {"mask": MASK, "input": IDS},
}


@pytest.mark.parametrize("metric", METRICS)
def test_several_inputs_measure_as_one_that_holds_them(metric: Any) -> None:
    options = {"metric": metric, "bits": (2, 4), "sampling": Sampling(samples=48)}
    one = measure(Stacked(), Dataset(torch.stack([IDS, MASK], 1), LABELS), **options)
    values = one.damage.sensitivity if hasattr(one.damage, "sensitivity") else table_of(one).values
    assert np.abs(values).sum() > 0
    for form in FORMS.values():
        several = measure(Words(), Dataset(form, LABELS), **options)
        got = several.damage.sensitivity if hasattr(several.damage, "sensitivity") else table_of(several).values
        np.testing.assert_allclose(got, values, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_network_of_several_inputs_goes_all_the_way(tmp_path: Path, form: Any, output: Any) -> None:
    network, data = Words(output), Dataset(FORMS[form], LABELS)
    save_problem(measure(network, data, bits=range(1, 9)), tmp_path / "p.toml")
    problem = load_problem(tmp_path / "p.toml")
    assert problem.provenance.get("logits", "") == PLACES.get(output, "")
    bits = np.where(problem.weights(), 3.0, 4.0)
    quantized = quantize(network, problem, bits).eval()
    given = quantize(network, problem, bits, example=FORMS[form]).eval()
    pack(quantized, tmp_path / "packed.safetensors")
    unpacked = unpack_into(network, tmp_path / "packed.safetensors").eval()
    held = Validation(network, problem, data, samples=8).hold(bits)
    with torch.no_grad():
        out = quantized(IDS, MASK)
        assert type(out) is type(network(IDS, MASK))
        for other in (quantized(mask=MASK, input=IDS), given(IDS, MASK), unpacked(IDS, mask=MASK)):
            assert torch.equal(logits_of(other), logits_of(out))
        changed = logits_of(out).argmax(1) != logits_of(network(IDS, MASK)).argmax(1)
    assert held.mismatch == pytest.approx(float(changed.double().mean()))
    assert 0 < held.mismatch < 1


def test_an_input_that_the_forward_can_do_without_is_traced_where_it_is_given() -> None:
    inputs = {"scale": SCALE, "input": IDS, "mask": MASK}
    traced = trace(Words(), {name: part[:2] for name, part in inputs.items()})
    assert traced.keywords == ("input", "mask", "scale")
    problem = measure(Words(), Dataset(inputs), bits=(2, 8))
    quantized = quantize(Words(), problem, np.full(len(problem), 8.0)).eval()
    with torch.no_grad():
        torch.testing.assert_close(quantized(**inputs), Words()(**inputs), rtol=0.2, atol=0.2)
    assert not np.array_equal(
        law_of(problem).sensitivity, law_of(measure(Words(), Dataset(FORMS["keyword"]))).sensitivity
    )


def test_one_sample_of_several_inputs_is_enough() -> None:
    assert len(measure(Words(), Dataset((IDS[:1], MASK[:1])), bits=(2, 4))) == 5


def test_two_outputs_of_which_none_is_called_logits_are_told() -> None:
    network = Words()
    network.output = lambda hidden, logits: {"a": hidden, "b": logits}
    with pytest.raises(
        DataError, match="returns several tensors of two dimensions by name, and none is called 'logits'"
    ):
        measure(network, Dataset((IDS, MASK)))


SOURCE = """
import torch
from torch import nn

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask=None):
        states = self.embed(input_ids)
        states = states.sum(1) if attention_mask is None else (states * attention_mask[..., None]).sum(1)
        return {"logits": self.head(self.inner(states).relu())}
"""


class WholeWords(Words):
    """Reads every token."""

    def forward(self, ids: Any) -> Any:  # type: ignore[override]
        return super().forward(ids, torch.ones_like(ids))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_command_line_takes_tokens_and_several_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], several: bool, suffix: str
) -> None:
    (tmp_path / "word_networks.py").write_text(SOURCE)
    torch.manual_seed(0)
    state = {name.replace("inner", "inner._orig_mod"): tensor for name, tensor in Words().state_dict().items()}
    torch.save({"model_state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 2}, tmp_path / "w.pt")
    arrays = {"input_ids": IDS.int(), **({"attention_mask": MASK.to(torch.uint8)} if several else {}), "labels": LABELS}
    if suffix == ".npz":
        plain_arrays: dict[str, Any] = {name: part.numpy() for name, part in arrays.items()}
        np.savez(tmp_path / "d.npz", **plain_arrays)
    else:
        save_file(arrays, tmp_path / "d.safetensors")
    network, data = f"{tmp_path / 'word_networks.py'}:Words", str(tmp_path / f"d{suffix}")
    problem, common = str(tmp_path / "p.toml"), ["--weights", str(tmp_path / "w.pt"), "--data", data, "--split", "all"]
    assert run(["measure", network, *common, "-o", problem]) == 0
    told = capsys.readouterr().err
    assert "the float network gets" in told  # it was never trained
    wanted = {"input_ids": IDS, "attention_mask": MASK} if several else IDS
    network_here = Words() if several else WholeWords()
    plain = measure(network_here, Dataset({"input": IDS, "mask": MASK} if several else wanted, LABELS))
    np.testing.assert_allclose(law_of(load_problem(problem)).sensitivity, law_of(plain).sensitivity, rtol=1e-5)
    assert run(["solve", problem, "--bound", "100", "-o", str(tmp_path / "a.json")]) == 0
    assert run(["validate", problem, str(tmp_path / "a.json"), "--network", network, *common]) == 0
    assert f"48 samples of d{suffix}[48]/all, the very ones that the problem was measured on" in capsys.readouterr().out
    packed = str(tmp_path / "packed.safetensors")
    assert (
        run(["pack", network, problem, str(tmp_path / "a.json"), "--weights", str(tmp_path / "w.pt"), "-o", packed])
        == 0
    )


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"input_ids": IDS + 60}, "inputs must be tokens from 0 to 19"),
        ({"input_ids": IDS.float()}, "'embed' embeds tokens, which are whole numbers"),
        ({"tokens": IDS, "labels": LABELS[:5]}, r"must have one label per input, got \(48, 5\)"),
        ({"ids": IDS, "attention_mask": MASK}, "missing a required argument: 'input_ids'"),
        ({"input_ids": IDS, "attention_mask": MASK[:7]}, "as many samples in each input"),
    ],
)
@pytest.mark.parametrize("command", ["measure", "validate"])
def test_wrong_inputs_end_in_one_sentence_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arrays: Any, said: str, command: str
) -> None:
    (tmp_path / "word_networks.py").write_text(SOURCE)
    np.savez(tmp_path / "d.npz", **{name: part.numpy() for name, part in arrays.items()})
    network, data = f"{tmp_path / 'word_networks.py'}:Words", ["--data", str(tmp_path / "d.npz")]
    if command == "validate":
        save_problem(measure(Words(), Dataset((IDS, MASK)), bits=(2, 4)), tmp_path / "p.toml")
        status = run(["validate", str(tmp_path / "p.toml"), "--uniform", "4", "--network", network, *data])
    else:
        status = run(["measure", network, *data, "-o", str(tmp_path / "o.toml")])
    told = capsys.readouterr().err
    assert status == 2
    assert re.search(said, told.replace("\n", " "))
    assert "Traceback" not in told
    assert not (tmp_path / "o.toml").exists()
