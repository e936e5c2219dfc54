"""Every number that decides how rounds go, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from impq_opt.errors import OptionError, nearest
from impq_opt.quantize import WeightRange
from impq_opt.solvers import make_solver, solver_names

__all__ = ["AUGMENTATIONS", "HEURISTICS", "Hyper", "Schedule", "parse_schedule"]

HEURISTICS = ("iterative", "authors-code")
AUGMENTATIONS = ("none", "flip", "crop-flip")
_SHAPES = ("geometric", "linear", "fixed")


@dataclass(frozen=True)
class Schedule:
    """A quantity that goes from ``first`` in round 1 to ``last`` in round ``steps``, and stays there.

    Parameters
    ----------
    shape : {"geometric", "linear", "fixed"}
        Equal factors, equal differences, or ``last`` from the start.
    first, last : float
    steps : int
        Rounds until ``last``; all rounds where 0.
    """

    shape: str = "geometric"
    first: float = 4.0
    last: float = 2.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise OptionError("unknown shape", where="schedule", value=self.shape, hint=nearest(self.shape, _SHAPES))
        if not (0 < self.first < float("inf") and 0 < self.last < float("inf")):
            raise OptionError("must go between positive numbers", where="schedule", value=(self.first, self.last))
        if self.steps < 0:
            raise OptionError("must not be negative", where="schedule.steps", value=self.steps)

    def at(self, number: int, rounds: int) -> float:
        """Return the value in round ``number`` (from 1) of ``rounds``."""
        steps = self.steps or rounds
        if self.shape == "fixed" or number >= steps:
            return self.last
        share = (number - 1) / (steps - 1)
        if self.shape == "linear":
            return self.first + share * (self.last - self.first)
        return float(self.first * (self.last / self.first) ** share)


def parse_schedule(text: str, where: str = "schedule") -> Schedule:
    """Read ``"geometric:FIRST:LAST[:STEPS]"``, ``"linear:..."`` or ``"fixed:VALUE"``."""
    shape, *numbers = text.split(":")
    try:
        values = [float(n) for n in numbers]
        if shape == "fixed" and len(values) == 1:
            return Schedule(shape, values[0], values[0])
        if len(values) not in (2, 3):
            raise ValueError
        return Schedule(shape, values[0], values[1], int(values[2]) if len(values) == 3 else 0)
    except ValueError as error:
        if isinstance(error, OptionError):
            raise error.within(where) from None
        raise OptionError(
            "is not a schedule", where=where, value=text, hint="geometric:4:2, linear:4:2:6 or fixed:0.01"
        ) from None


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of a run of rounds.

    Parameters
    ----------
    strategy : str
        ``iterative`` (the paper's heuristic as on the slides), ``authors-code`` (as in its public code), or the name of
        any strategy of :func:`impq_opt.solve`.
    options : mapping
        Options of that strategy.
    granularity : str
        Groups of weights, as :func:`impq_opt.measure.measure` names them.
    bits : tuple of int
        Candidates.
    activation_bits : int
        Precision of all activations; 0 leaves them to the strategy, from ``start_bits`` on.
    minimize : str
        The cost that is budgeted or minimised.
    weight_range : WeightRange
        What the weight quantizers span.

    start_bits : int
        Uniform precision of round 0, which every strategy starts from.
    start_epochs : int
        Epochs of quantization-aware training in round 0.
    rounds, epochs : int
        Rounds after it, and epochs of fine-tuning in each.
    budget : Schedule, optional
        What a round may cost, as the bits of a uniform network that costs so much (between whole bits, on the line that
        joins them); for storage these are the effective weight bits. The strategy looks for the least damage within it.
    bound : Schedule, optional
        Damage that a round may do: the strategy looks for the least cost within it. Give one of the two.
    monotone : bool
        Bits never go up again.
    take, take_activations : tuple of (int, float)
        For the heuristics: (from round, N) where N groups lose a bit each round; below 1 it is a share of the groups.
        Counted from round 1.
    target_bits, target_cost, floor : float, optional
        Stop when effective weight bits or the cost are at most the target, or validation accuracy falls below the
        floor.

    metric, estimator : str
        Of the sensitivities. ``measured-error`` takes E with the squared rounding errors of the latent weights.
    measure_samples : int
        Training samples that they are measured on, drawn anew each round.
    concede : float
        Share of those samples, with the smallest margins, that is left out: a near tie would decide every ranking.
    measure_at : {"quantized", "latent"}
        Weights that they are measured at.

    batch : int
        Global, over all processes.
    rate, momentum, decay : float
        Of stochastic gradient descent; the rate falls to 0 by a cosine in each round.
    warmup : float
        Share of a round's steps in which the rate rises (epochs / 10 in the authors' code).
    augment : {"none", "flip", "crop-flip"}
    bf16, channels_last, compile : bool
        Autocast, memory format, torch.compile.
    seed : int
    """

    strategy: str = "exact"
    options: Mapping[str, Any] = field(default_factory=dict)
    granularity: str = "kernel"
    bits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    activation_bits: int = 8
    minimize: str = "storage"
    weight_range: WeightRange = field(default_factory=WeightRange)

    start_bits: int = 4
    start_epochs: int = 1
    rounds: int = 6
    epochs: int = 1
    budget: Schedule | None = None
    bound: Schedule | None = None
    monotone: bool = False
    take: tuple[tuple[int, float], ...] = ((1, 0.25),)
    take_activations: tuple[tuple[int, float], ...] = ((1, 0.25),)
    target_bits: float | None = None
    target_cost: float | None = None
    floor: float | None = None

    metric: str = "impq"
    estimator: str = "importance"
    measure_samples: int = 1024
    concede: float = 0.0
    measure_at: str = "quantized"

    batch: int = 128
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4
    warmup: float = 0.1
    augment: str = "flip"
    bf16: bool = False
    channels_last: bool = True
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs", "start_epochs", "activation_bits", "seed"):
            self._check(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("batch", "measure_samples", "rate", "start_bits"):
            self._check(name, getattr(self, name) > 0, "must be positive")
        for name in ("momentum", "warmup", "concede"):
            self._check(name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        self._check("decay", self.decay >= 0, "must not be negative")
        self._check("bits", len(self.bits) > 0 and min(self.bits) >= 1, "must be whole numbers from 1")
        self._check("start_bits", self.start_bits in self.bits, f"must be one of the candidates {list(self.bits)}")
        allowed = (0, *self.bits)
        self._check("activation_bits", self.activation_bits in allowed, f"must be one of {list(allowed)}")
        self._check("measure_at", self.measure_at in ("quantized", "latent"), "must be 'quantized' or 'latent'")
        # Others round the weights that they measure at, or follow their range by no known law.
        follows = self.measure_at == "latent" or self.metric in ("impq", "sakr", "fit", "measured-error")
        self._check("metric", follows, "is not known at quantized weights; set measure_at = latent")
        self._check("augment", self.augment in AUGMENTATIONS, f"must be one of {', '.join(AUGMENTATIONS)}")
        for name in ("take", "take_activations"):
            rows = getattr(self, name)
            good = bool(rows) and rows[0][0] <= 1 and all(n > 0 for _, n in rows) and list(rows) == sorted(rows)
            self._check(name, good, "must be (from round, N) in order, from round 1, with positive N")
        if self.is_heuristic:
            return
        if (self.budget is None) == (self.bound is None):
            raise OptionError(
                "a strategy needs either a schedule of budgets or of bounds",
                where="rounds",
                value=self.strategy,
                hint="for example --bits-schedule geometric:3.5:2 or --bound-schedule geometric:0.01:10",
            )
        known = (*HEURISTICS, *solver_names())
        self._check("strategy", self.strategy in known, f"unknown strategy; {nearest(self.strategy, known)}")
        solver = make_solver(self.strategy, **self.options)
        if self.budget is not None and "damage" not in solver.supports:
            self._check("strategy", False, "does not look for the least damage under a budget")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise OptionError(rule, where=f"rounds.{name}", value=getattr(self, name))

    @property
    def is_heuristic(self) -> bool:
        """Whether bits come off by the paper's heuristic, not by a solver."""
        return self.strategy in HEURISTICS

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists, for files."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dataclasses.asdict(self)))
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "rounds") -> Hyper:
        """Build from what :meth:`as_dict` gives, or from a recipe; schedules may be texts."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = dict(values)
        for name, value in values.items():
            if name not in known:
                raise OptionError("unknown hyper-parameter", where=where, value=name, hint=nearest(name, known))
            if name in ("budget", "bound") and isinstance(value, str):
                values[name] = dataclasses.asdict(parse_schedule(value, f"{where}.{name}"))
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, OptionError):
                raise error.__cause__ from None
            raise OptionError(str(error), where=where) from None
