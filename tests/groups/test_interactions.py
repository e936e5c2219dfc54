"""Damages that interact, as they are declared: exact sums, what is refused, what revising makes of them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from impq_opt import Factors, Pairs, Problem, Status, solve
from impq_opt.errors import ProblemError, UnsupportedError
from impq_opt.exchange import Precision
from impq_opt.exchange.restate import restate
from impq_opt.files import load_allocation, load_problem, save_allocation, save_problem
from impq_opt.problem.uncertainty import upper_limit

RNG = np.random.default_rng(0)
COUNT, WIDTH, RANK = 5, 3, 4
FACTORS = RNG.normal(size=(COUNT, WIDTH, RANK))
ENDS = np.array([(3, 1), (0, 2), (4, 3)])
TABLES = RNG.normal(size=(3, WIDTH, WIDTH))


def problem(interactions: Any = None, **fields: Any) -> Problem:
    cost = np.arange(COUNT * WIDTH).reshape(COUNT, WIDTH)
    names = [f"g{g}" for g in range(COUNT)]
    return Problem.from_tables(
        cost, np.square(FACTORS).sum(axis=2), bits=(2, 4, 8), names=names, interactions=interactions, **fields
    )


def cross(interactions: Factors | Pairs, choice: list[int]) -> Fraction:
    """The cross terms of a choice, one pair after the other."""
    total = Fraction(0)
    if isinstance(interactions, Pairs):
        for (i, j), table in zip(interactions.groups.tolist(), interactions.values.tolist(), strict=True):
            total += Fraction(table[choice[i]][choice[j]])
        return total
    for i in range(COUNT):
        for j in range(i):
            left, right = interactions.values[i, choice[i]].tolist(), interactions.values[j, choice[j]].tolist()
            total += 2 * sum((Fraction(a) * Fraction(b) for a, b in zip(left, right, strict=True)), Fraction(0))
    return total


BOTH: list[Factors | Pairs] = [
    Factors(FACTORS),
    Factors(FACTORS * 1e-200),
    Factors(FACTORS * np.exp2(RNG.integers(-30, 30, RANK))),
]
BOTH += [Pairs(ENDS, TABLES)]


@pytest.mark.parametrize("interactions", BOTH)
def test_cross_terms_are_exact(interactions: Any) -> None:
    declared = problem(interactions)
    for _ in range(5):
        choice = RNG.integers(0, WIDTH, COUNT)
        assert interactions.total(choice) == cross(interactions, choice.tolist())
        alone = sum((Fraction(x) for x in declared.damage.chosen(declared.candidates, choice).tolist()), Fraction(0))
        assert declared.total_damage(choice) == alone + cross(interactions, choice.tolist())
        assert float(interactions.totals(choice[None])[0]) == pytest.approx(float(interactions.total(choice)))
        beside = interactions.beside(choice)
        moved = choice.copy()
        moved[2] = (choice[2] + 1) % WIDTH
        change = float(interactions.total(moved) - interactions.total(choice))
        assert beside[2, moved[2]] - beside[2, choice[2]] == pytest.approx(change, rel=1e-9, abs=1e-12)
        assert abs(float(interactions.total(choice))) <= interactions.reach


def test_pairs_have_one_form() -> None:
    turned = Pairs(ENDS[::-1, ::-1], TABLES[::-1].transpose(0, 2, 1))
    assert turned == Pairs(ENDS, TABLES)
    assert problem(turned).digest == problem(Pairs(ENDS, TABLES)).digest
    assert (turned.groups[:, 0] < turned.groups[:, 1]).all()


def test_the_digest_tells_them_and_is_otherwise_what_it_was() -> None:
    digests = {problem(one).digest for one in (None, *BOTH)}
    assert len(digests) == 1 + len(BOTH)
    errors = Factors(FACTORS, np.abs(FACTORS))
    assert problem(errors).digest == problem(Factors(FACTORS)).digest
    assert problem(errors) != problem(Factors(FACTORS))


REFUSED: list[tuple[Any, str]] = [
    (Factors(FACTORS[:, :2]), "a column per candidate"),
    (Factors(FACTORS[:4]), "a row per group"),
    (Factors(np.where(FACTORS > 1, np.nan, FACTORS)), "must be finite"),
    (Factors(FACTORS, -np.abs(FACTORS)), "must not be negative"),
    (Pairs(np.array([[0, 5]]), TABLES[:1]), "no such group"),
    (Pairs(np.array([[2, 2]]), TABLES[:1]), "must be two groups"),
    (Pairs(np.array([[0, 1], [1, 0]]), TABLES[:2]), "is listed twice"),
    (Pairs(np.array([[0, 1]]), TABLES[:1, :2, :2]), "a row and a column per candidate"),
    (FACTORS, "must be Factors or Pairs"),
]


@pytest.mark.parametrize(("interactions", "sentence"), REFUSED)
def test_what_cannot_be_is_refused(interactions: Any, sentence: str) -> None:
    with pytest.raises(ProblemError, match=sentence):
        problem(interactions)


def test_tables_of_pairs_need_their_groups() -> None:
    with pytest.raises(ProblemError, match="two groups for each table"):
        Pairs(ENDS[:2], TABLES)
    with pytest.raises(ProblemError, match="as many rows as columns"):
        Pairs(ENDS, TABLES[:, :2])


@pytest.mark.parametrize("interactions", [Factors(FACTORS, np.abs(FACTORS)), Pairs(ENDS, TABLES, np.abs(TABLES))])
def test_fewer_candidates_keep_their_cross_terms(interactions: Any) -> None:
    whole, fewer = problem(interactions), problem(interactions).revise(bits=[2, 8])
    for _ in range(4):
        choice = RNG.integers(0, 2, COUNT)
        assert fewer.total_damage(choice) == whole.total_damage(choice * 2)
        assert fewer.interactions is not None
        assert fewer.interactions.error(choice) == interactions.error(choice * 2)


def test_weights_only_leaves_activations_and_their_cross_terms_out() -> None:
    kinds = ["weight", "activation", "weight", "weight", "weight"]
    kept = [0, 2, 3, 4]
    choice = np.array([0, 1, 2, 1])
    for interactions in (Factors(FACTORS), Pairs(ENDS, TABLES)):
        weights = problem(interactions, kinds=kinds).revise(weights_only=True)
        alone = Fraction(0)
        for place, group in enumerate(kept):
            alone += Fraction(float(np.square(FACTORS).sum(axis=2)[group, choice[place]]))
        if isinstance(interactions, Factors):
            whole = Factors(np.where(np.isin(np.arange(COUNT), kept)[:, None, None], FACTORS, 0.0))
            full = np.zeros(COUNT, dtype=np.int64)
            full[kept] = choice
            together = whole.total(full)
        else:
            together = Fraction(TABLES[1, 0, 1]) + Fraction(TABLES[2, 1, 2])
        assert weights.total_damage(choice) == alone + together
    only = problem(Pairs(np.array([[0, 1]]), TABLES[:1]), kinds=kinds).revise(weights_only=True)
    assert only.interactions is None


@pytest.mark.parametrize("interactions", [Factors(FACTORS, np.abs(FACTORS)), Pairs(ENDS, TABLES, np.abs(TABLES))])
def test_files_keep_them(interactions: Any, tmp_path: Any) -> None:
    declared = problem(interactions).revise(pins={"g1": 4}, ties=[("g2", "g3")])
    save_problem(declared, tmp_path / "problem.toml")
    loaded = load_problem(tmp_path / "problem.toml")
    assert loaded == declared
    assert loaded.digest == declared.digest
    answer = solve(declared, budget=45)
    save_allocation(answer, tmp_path / "answer.json")
    read = load_allocation(tmp_path / "answer.json", loaded)
    assert read == answer
    assert read.certificate is not None and answer.certificate is not None
    assert read.certificate == answer.certificate
    assert read.stated["together damage"] == pytest.approx(float(interactions.total(answer.choice)))


def test_an_answer_tells_what_groups_do_together_and_when_that_is_noise() -> None:
    quiet = solve(problem(Factors(FACTORS, np.full(FACTORS.shape, 1e-6))), budget=45)
    loud = solve(problem(Factors(FACTORS, np.full(FACTORS.shape, 1e3))), budget=45)
    assert quiet.together is not None and loud.together is not None
    assert not quiet.together.below_noise
    assert "is what groups do together" in quiet.notes()[0]
    assert loud.together.below_noise
    assert "below the noise" in loud.notes()[0]
    shares = loud.to_frame()["together"].sum()
    assert shares == pytest.approx(float(loud.together.damage))
    assert loud.to_dict()["together"]["below_noise"]
    assert solve(problem(), budget=45).together is None
    assert "factors in 4 directions" in problem(Factors(FACTORS))._repr_html_()


def test_upper_limits_are_refused_in_one_sentence() -> None:
    declared = problem(Factors(FACTORS))
    with pytest.raises(ProblemError, match="no confidence limits"):
        upper_limit(declared, 0.9)


def test_strategies_that_know_no_interactions_refuse_them() -> None:
    declared = problem(Factors(FACTORS))
    for name in ("greedy", "lagrangian", "milp", "ilp", "iterative", "noise-equalization"):
        with pytest.raises(UnsupportedError, match="damages that interact"):
            solve(declared, bound=100, solver=name)
    # Where damage neither counts nor is limited, nothing interacts.
    assert replace(declared, interactions=None).total_damage(np.zeros(COUNT, dtype=np.int64)) > 0


def test_uniform_is_judged_by_the_true_damage() -> None:
    declared = problem(Factors(FACTORS))
    damage = declared.total_damage(np.ones(COUNT, dtype=np.int64))
    answer = solve(declared, bound=damage, solver="uniform")
    assert answer.exact_damage is not None and answer.exact_damage <= damage
    assert answer.status in (Status.FEASIBLE, Status.OPTIMAL)


def test_targets_that_store_other_precisions_keep_the_cross_terms() -> None:
    declared = problem(Factors(FACTORS))
    stored = [Precision("w8", 8), Precision("w2", 2)]
    restated = restate(declared, stored, stored, "a target")
    columns = {2.0: 0, 8.0: 2}
    for _ in range(3):
        choice = RNG.integers(0, 2, COUNT)
        before = np.array([columns[b] for b in restated.candidates.bits(choice).tolist()])
        assert restated.total_damage(choice) == declared.total_damage(before)
