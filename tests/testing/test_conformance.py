"""Every shipped plug-in keeps the rules of its kind; planted ones that break a rule are caught, by the rule's name.

Strategies: tests/solvers/test_strategies.py, and tests/proof/test_liars.py for those that lie.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from impq_opt import Allocation, Problem, solve
from impq_opt.costs import COSTS, CostTerm, TableCost
from impq_opt.costs.terms import Pairs
from impq_opt.exchange import Precision, Reader, Writer, format_names, make_format
from impq_opt.groups.damage import PowerLaw
from impq_opt.groups.layout import Layout
from impq_opt.testing import ConformanceError, check_cost, check_format
from impq_opt.testing.rules import blocks
from impq_opt.types import FloatArray, IntArray

# -- cost terms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COSTS)
def test_shipped_cost_terms(name: str) -> None:
    check_cost(COSTS[name])


def test_tables_are_cost_terms() -> None:
    problem = blocks((2, 4, 8))
    rng = np.random.default_rng(0)
    check_cost(TableCost.from_array(rng.integers(1, 99, (len(problem), 3)), name="cycles", unit="cycle"), problem)
    check_cost(TableCost.from_array(rng.integers(1, 99, (len(problem), 3)) / 8, name="energy", unit="J"), problem)


@dataclass(frozen=True)
class Energy(CostTerm):
    """Half a nanojoule a bit and sample, and one for every pair of bits."""

    name: str = "energy"
    unit: str = "nJ"
    source: str = "made up"

    def slope(self, layout: Layout) -> IntArray | None:
        return layout.sizes

    def pairs(self, layout: Layout) -> Pairs | None:
        assert layout.reads is not None and layout.macs is not None
        inside = np.flatnonzero(layout.reads >= 0)
        return Pairs(inside, layout.reads[inside], layout.macs[inside])


class Nameless(Energy):
    def __init__(self) -> None:
        super().__init__(source="")


class Fractional(Energy):
    def slope(self, layout: Layout) -> IntArray | None:
        return layout.sizes * 0.5  # type: ignore[return-value]


class Negative(Energy):
    def slope(self, layout: Layout) -> IntArray | None:
        return -layout.sizes


class Fickle(Energy):
    def slope(self, layout: Layout) -> IntArray | None:
        return layout.sizes + int(np.random.default_rng().integers(1 << 30))


class Outside(Energy):
    def pairs(self, layout: Layout) -> Pairs | None:
        everything = np.arange(len(layout))
        return Pairs(everything, everything + len(layout), layout.sizes)


def test_a_cost_term_of_ones_own() -> None:
    check_cost(Energy())


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (Nameless, "has no source"), (Fractional, "no array of int64"), (Negative, "negative"),
        (Fickle, "asked twice"), (Outside, "groups that there are not"),
    ],
)  # fmt: skip
def test_cost_terms_that_break_a_rule(wrong: Callable[[], CostTerm], rule: str) -> None:
    with pytest.raises(ConformanceError, match=rule):
        check_cost(wrong())


# -- formats -----------------------------------------------------------------------------------------------------

SCORES = {"candidate_stats": {"fc.quant_recipe": {"formats": ["FP8", "NONE"], "scores": [0.5, 0.0], "costs": [10, 20]}}}
SAMPLES: dict[str, Any] = {
    "csv": "group,size,sensitivity\na,10,0.5\nb,20,0.25\n",
    "exllamav3": {
        "base_kld": 0.02,
        "groups": [
            {"layers": ["a", "b"], "candidates": [{"dkld": -0.01, "dbits": 100}, {"dkld": -0.015, "dbits": 300}]}
        ],
    },
    "modelopt": SCORES,
    "autoround": {
        "version": 1, "score_granularity": "per_op", "scheme": {"bits": 4, "group_size": 128, "sym": True},
        "layer_scores": {"a": [100, 0.5], "b": [200, 0.25]},
    },
}  # fmt: skip


def sample(name: str, folder: Path) -> tuple[Path, ...]:
    if name not in SAMPLES:
        return ()
    text = SAMPLES[name] if isinstance(SAMPLES[name], str) else json.dumps(SAMPLES[name])
    path = folder / f"scores.{'csv' if name == 'csv' else 'json'}"
    path.write_text(text, encoding="utf-8")
    return (path,)


@pytest.mark.parametrize("name", [name for name in format_names() if name not in ("gguf", "parquet")])
def test_shipped_formats(name: str, tmp_path: Path) -> None:
    # onnxruntime names inputs by a model's graph, which its own tests have
    problem = blocks() if name == "onnxruntime" else None
    check_format(make_format(name), *sample(name, tmp_path), problem=problem)


@pytest.mark.peer("pyarrow")
def test_parquet(tmp_path: Path) -> None:
    form = make_format("parquet")
    assert isinstance(form, Writer)
    path = tmp_path / "scores.parquet"
    path.write_bytes(form.dump(solve(blocks((2, 4, 8)), bound=1.0)))
    check_format(form, path)


@dataclass(frozen=True)
class Plain(Writer):
    """Bits by layer."""

    name: ClassVar[str] = "plain"
    summary: ClassVar[str] = "bits by layer"
    source: ClassVar[str] = "made up"
    limits: ClassVar[str] = "2, 4 or 8 bits a layer"

    def precisions(self) -> tuple[Precision, ...]:
        return tuple(Precision(str(b), b, b) for b in (2, 4, 8))

    def config(self, allocation: Allocation) -> Any:
        return {layer.name: layer.weight.entry for layer in self.layers(allocation)}


class Forgetful(Plain):
    """Writes what all layers have, and not which has what."""

    def config(self, allocation: Allocation) -> Any:
        return sorted({layer.weight.bits for layer in self.layers(allocation)})


class Changing(Plain):
    def config(self, allocation: Allocation) -> Any:
        return {"id": int(np.random.default_rng().integers(1 << 60)), **super().config(allocation)}


class Brittle(Plain):
    def config(self, allocation: Allocation) -> Any:
        return {
            n: {2: "a", 4: "b", 8: "c"}[int(b)] for n, b in zip(allocation.problem.names, allocation.bits, strict=True)
        }


@dataclass(frozen=True)
class Trusting(Reader):
    """Believes that every file is as it should be."""

    name: ClassVar[str] = "trusting"
    summary: ClassVar[str] = "sizes and sensitivities"
    source: ClassVar[str] = "made up"

    def problem(self, scores: Any) -> Problem:
        return Problem.from_sensitivities(scores["sizes"], scores["scores"])


def test_a_format_of_ones_own() -> None:
    check_format(Plain())


@pytest.mark.parametrize(
    ("wrong", "rule"), [(Forgetful, "written alike"), (Changing, "in two ways"), (Brittle, "traceback")]
)
def test_writers_that_break_a_rule(wrong: Callable[[], Writer], rule: str) -> None:
    with pytest.raises(ConformanceError, match=rule):
        check_format(wrong())


def test_readers_that_break_a_rule(tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match="none were given"):
        check_format(Trusting())
    path = tmp_path / "scores.json"
    path.write_text('{"sizes": [1, 2], "scores": [0.5, 0.25]}')
    with pytest.raises(ConformanceError, match="traceback"):
        check_format(Trusting(), path)


# -- metrics -----------------------------------------------------------------------------------------------------


def metric_names() -> list[str]:
    from impq_opt.measure.metrics import METRICS

    return list(METRICS)


@pytest.mark.parametrize("name", metric_names())
def test_shipped_metrics(name: str) -> None:
    from impq_opt.measure.metrics import load_metric
    from impq_opt.testing import check_metric

    check_metric(load_metric(name))


class Weights:
    """The mean square of the logits, whatever the group."""

    unit = "logit squared"
    labels = False
    margins = False

    def columns(self, survey: Any) -> int:
        return 1

    def chunk(self, survey: Any, part: Any) -> FloatArray:
        square = survey.network.run(part.x).detach().double().square().mean(1)
        return np.full((len(survey), 1), float(square @ part.weights))

    def law(self, survey: Any, mean: FloatArray, stderr: FloatArray) -> PowerLaw:
        return PowerLaw(mean[:, 0].copy(), stderr[:, 0].copy())


class Unweighted(Weights):
    def chunk(self, survey: Any, part: Any) -> FloatArray:
        return super().chunk(survey, part) * float(part.weights.sum())


class Narrow(Weights):
    def chunk(self, survey: Any, part: Any) -> FloatArray:
        return super().chunk(survey, part)[:1]


class Moody(Weights):
    def chunk(self, survey: Any, part: Any) -> FloatArray:
        return super().chunk(survey, part) * np.random.default_rng().random()


class Meddling(Weights):
    def chunk(self, survey: Any, part: Any) -> FloatArray:
        told = super().chunk(survey, part)
        next(iter(survey.network.tensors.values())).mul_(1.0 + 1e-3)
        return told


class Sinking(Weights):
    def law(self, survey: Any, mean: FloatArray, stderr: FloatArray) -> Any:
        from impq_opt.groups.damage import DamageTable

        return DamageTable(np.repeat(mean, 3, 1) - 2 * mean.max(), np.repeat(stderr, 3, 1))


def test_a_metric_of_ones_own() -> None:
    from impq_opt.testing import check_metric

    check_metric(Weights())


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (Unweighted, "twice the weights"), (Narrow, "a chunk tells"), (Moody, "something else"),
        (Meddling, "something else|changes the network"), (Sinking, "negative"),
    ],
)  # fmt: skip
def test_metrics_that_break_a_rule(wrong: Callable[[], Any], rule: str) -> None:
    from impq_opt.errors import ImpqError
    from impq_opt.testing import check_metric

    with pytest.raises((ConformanceError, ImpqError), match=rule):
        check_metric(wrong())


def test_costs_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    theirs = EntryPoint("energy", f"{__name__}:Energy", "impq_opt.costs")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [theirs] if group == theirs.group else [])
    monkeypatch.setattr("impq_opt.registry.import_module", lambda name: __import__("sys").modules[name])
    problem = blocks((2, 4), activations=True)
    answer = solve(problem, bound=1.0)
    cheap = solve(problem.revise(minimize="energy"), bound=1.0)
    assert answer.cost_weights == {"storage": 1} and cheap.cost_weights == {"energy": 1}
    macs, reads = problem.macs, problem.reads
    assert macs is not None and reads is not None
    by_hand = sum(
        Fraction(int(n)) * int(b) + (int(macs[g]) * int(b) * int(cheap.bits[reads[g]]) if reads[g] >= 0 else 0)
        for g, (n, b) in enumerate(zip(problem.sizes, cheap.bits, strict=True))
    )
    assert cheap.exact_cost == by_hand
