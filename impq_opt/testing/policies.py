"""What every policy of rounds must keep, held against rounds of problems that no network is needed for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from impq_opt.errors import ImpqError, OptionError
from impq_opt.groups.names import GroupNames
from impq_opt.problem.problem import Problem
from impq_opt.rounds.policy import Choice, Policy, Turn
from impq_opt.testing.rules import ConformanceError, rule
from impq_opt.types import IntArray

__all__ = ["POLICY_CASES", "PolicyCase", "check_policy"]


@dataclass(frozen=True, eq=False)
class PolicyCase:
    """A problem as it is measured in each round, from a seed.

    Parameters
    ----------
    name : str
    measured : callable
        Seed to problem; only damages may differ from round to round.
    may_refuse : bool
        Whether a policy may raise OptionError.
    """

    name: str
    measured: Callable[[int], Problem]
    may_refuse: bool = False

    def __str__(self) -> str:
        return self.name


def check_policy(policy: Policy, case: PolicyCase, *, rounds: int = 6, seed: int = 0) -> None:
    """Raise ConformanceError, with the rule and the case, unless ``policy`` keeps every rule on ``case``.

    The rules: each group gets one of its candidates, pins stay, tied groups move together; precisions never rise where
    the policy ``falls``; nothing that it is told is changed; the same turns give the same choices and ask the same
    trials, also by a policy built anew for each round from its options as plain values, with its memory through a file;
    once it is done, asking again changes nothing.
    """
    try:
        played = _play(policy, case, rounds, seed, lambda: policy)
        again = _play(policy, case, rounds, seed, lambda: _rebuilt(policy, case))
    except OptionError:
        if case.may_refuse:
            return
        raise
    rule(played == again, case, "the same turns give the same choices, by a policy built anew for each round too")


def _rebuilt(policy: Policy, case: PolicyCase) -> Policy:
    """Return the policy from its options as a file has them."""
    try:
        rebuilt = msgspec.convert(_through_file(dataclasses.asdict(policy)), type(policy))
    except (TypeError, msgspec.MsgspecError) as error:
        raise ConformanceError(f"{case}: its options are plain values ({error})") from error
    rule(rebuilt == policy, case, "its options survive a file")
    return rebuilt


def _through_file(values: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(values))


def _play(policy: Policy, case: PolicyCase, rounds: int, seed: int, made: Callable[[], Policy]) -> list[Any]:
    """Return what the policy chose, remembered and tried in every round."""
    problem = case.measured(seed)
    columns = _start(problem)
    memory: dict[str, Any] = {}
    told: list[Any] = []
    for number in range(1, rounds + 1):
        problem = case.measured(seed + number)
        trials: list[Any] = []
        turn = _turn(problem, columns, number, rounds, seed, memory, trials)
        choice = _asked(made(), case, turn)
        _check(policy, case, turn, choice, columns)
        memory = _through_file(dict(choice.memory))
        columns = choice.columns.astype(np.int64)
        told.append((columns.tolist(), memory, choice.done, trials))
        if choice.done:
            last = _asked(made(), case, _turn(problem, columns, number + 1, rounds, seed, memory, []))
            rule(np.array_equal(last.columns, columns), case, f"it was done ({choice.done}), and chose others again")
            break
    return told


def _start(problem: Problem) -> IntArray:
    """Return the widest candidates, pins as they are."""
    columns = np.array([len(problem.candidates.of(group)) - 1 for group in range(len(problem))], dtype=np.int64)
    columns[list(problem.pins)] = list(problem.pins.values())
    return columns


def _turn(
    problem: Problem, columns: IntArray, number: int, rounds: int, seed: int, memory: dict[str, Any], trials: list[Any]
) -> Turn:
    present = columns.copy()

    def trial(columns: IntArray, epochs: int = 1) -> float:
        """Return an accuracy that falls with the damage, as a network's would."""
        trials.append((np.asarray(columns).tolist(), epochs))
        damage = float(problem.damage.chosen(problem.candidates, np.asarray(columns)).sum())
        return 1 / (1 + damage)

    magnitudes = np.random.default_rng(seed + number).uniform(0.01, 1, len(problem))
    return Turn(problem, present, number, rounds, seed, magnitudes, _through_file(memory), trial)


def _asked(policy: Policy, case: PolicyCase, turn: Turn) -> Choice:
    before = turn.columns.copy(), turn.magnitudes.copy(), _through_file(dict(turn.memory)), turn.problem.digest
    try:
        choice = policy.choose(turn)
    except OptionError as error:
        if case.may_refuse:
            raise
        raise ConformanceError(f"{case}: it refused: {error}") from error
    except ImpqError as error:
        raise ConformanceError(f"{case}: raised {error}") from error
    same = np.array_equal(before[0], turn.columns) and np.array_equal(before[1], turn.magnitudes)
    same = same and before[2] == dict(turn.memory) and before[3] == turn.problem.digest
    rule(same, case, "it changes nothing of what it is told")
    return choice


def _check(policy: Policy, case: PolicyCase, turn: Turn, choice: Choice, before: IntArray) -> None:
    problem, columns = turn.problem, choice.columns
    whole = isinstance(columns, np.ndarray) and columns.shape == (len(problem),) and columns.dtype.kind == "i"
    rule(whole, case, "it gives one whole number for each group")
    widths = np.array([len(problem.candidates.of(group)) for group in range(len(problem))])
    rule(bool(((columns >= 0) & (columns < widths)).all()), case, "every group gets one of its candidates")
    for group, column in problem.pins.items():
        rule(columns[group] == column, case, f"the pin of {problem.names[group]} is broken")
    bits = problem.candidates.bits(columns)
    for tie in problem.ties:
        rule(len(set(bits[list(tie)].tolist())) == 1, case, f"the tie {tie} is broken")
    falls = not policy.falls or bool((bits <= problem.candidates.bits(before)).all())
    rule(falls, case, "it says that precisions only fall, and one rose")
    rule(isinstance(choice.done, str), case, "why it is done is a text")
    try:
        plain = _through_file(dict(choice.memory)) == dict(choice.memory)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ConformanceError(f"{case}: what it remembers is plain values ({error})") from error
    rule(plain, case, "what it remembers is plain values, which survive a file")


# -- cases -------------------------------------------------------------------------------------------------------


def _network(
    seed: int,
    weights: int = 12,
    activations: int = 4,
    bits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8),
    decades: float = 3,
    scale: float = 1.0,
) -> Problem:
    """Return kernels and activations of fixed sizes, with damages drawn from the seed."""
    sizes = np.random.default_rng(weights).integers(1, 200, weights + activations)
    draw = np.random.default_rng(seed)
    labels = (("w", (weights,)), ("a", (activations,)))
    shown = [(label, shape) for label, shape in labels if shape[0]]
    return Problem.from_sensitivities(
        sizes,
        scale * 10 ** draw.uniform(-decades, 0, weights + activations),
        names=GroupNames(tuple(label for label, _ in shown), tuple(shape for _, shape in shown)),
        kinds=[0] * weights + [1] * activations,
        ranges=draw.uniform(0.5, 3, weights + activations),
        bits=bits,
    )


def _restricted(seed: int) -> Problem:
    return dataclasses.replace(_network(seed), ties=((0, 1, 2), (12, 13)), pins={5: 3, 15: 7})


def _unmeasured(seed: int) -> Problem:
    return dataclasses.replace(_network(seed), unmeasured=np.isin(np.arange(16), (0, 3, 15)))


def _table(seed: int) -> Problem:
    draw = np.random.default_rng(seed)
    damage = -np.sort(-draw.uniform(0, 1, (7, 8)), axis=1)
    return Problem.from_tables(np.outer(np.arange(1, 8), np.arange(1, 9)), damage, bits=range(1, 9))


def _ragged(seed: int) -> Problem:
    draw = np.random.default_rng(seed)
    rows = [[2, 4, 8], [4, 8], [8], [1, 2, 3]]
    damage = np.array([[*sorted(draw.uniform(0, 1, len(row)), reverse=True), *[0.0] * (3 - len(row))] for row in rows])
    return Problem.from_tables(np.array([[2, 4, 8], [4, 8, 8], [8, 8, 8], [1, 2, 3]]), damage, bits=rows)


def _equal(seed: int) -> Problem:
    return Problem.from_sensitivities([5] * 6, [0.5] * 6)


POLICY_CASES: tuple[PolicyCase, ...] = (
    PolicyCase("kernels-and-activations", _network),
    PolicyCase("weights-alone", lambda seed: _network(seed, 9, 0)),
    PolicyCase("one-group", lambda seed: _network(seed, 1, 0)),
    PolicyCase("gaps-between-candidates", lambda seed: _network(seed, bits=(2, 3, 4, 8))),
    PolicyCase("one-candidate", lambda seed: _network(seed, bits=(4,)), may_refuse=True),
    PolicyCase("far-apart", lambda seed: _network(seed, decades=24)),
    PolicyCase("tiny", lambda seed: _network(seed, scale=1e-290)),
    PolicyCase("no-damage", lambda seed: _network(seed, scale=0.0)),
    PolicyCase("all-equal", _equal),
    PolicyCase("tied-and-pinned", _restricted),
    PolicyCase("not-all-measured", _unmeasured),
    PolicyCase("a-table", _table, may_refuse=True),
    PolicyCase("candidates-of-their-own", _ragged, may_refuse=True),
)
