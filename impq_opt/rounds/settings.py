"""Every number that decides how rounds go, by what it is about; in files and on the command line all in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from impq_opt.errors import OptionError, nearest
from impq_opt.measure.metrics import load_metric
from impq_opt.quantize import load_method
from impq_opt.quantize.methods import FLOAT_BITS, MOST_BITS, widths_text
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.rounds.latent import RESTATED
from impq_opt.rounds.policies import built, make_policy, policy_class, policy_fields, policy_names, strategy_class
from impq_opt.rounds.policy import Policy
from impq_opt.training import Training

__all__ = ["Hyper", "Measuring", "Plan", "Quantizing", "Settings"]


def _check(part: object, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise OptionError(rule, where=f"rounds.{name}", value=getattr(part, name))


@dataclass(frozen=True)
class Quantizing:
    """What groups may take, and how they are rounded.

    Parameters
    ----------
    bits : tuple of int
        Candidates.
    activation_bits : int
        Precision of all activations; 0 leaves them to the policy, from ``start_bits`` on, and 32 in float;
        others may be beside ``bits``.
    start_bits : int
        Uniform precision of round 0, which every strategy starts from.
    start_activation_bits : int
        That of activations, where the policy has them; as ``start_bits`` where 0.
    clip_every : int
        Steps of fine-tuning after which the clip values of activations are read from the batch-norms again, as at each
        epoch's end; 0 leaves them as they were measured for the round. Learned and fixed ones are none of these.
    method : str
        How weights and activations are rounded, as :func:`impq_opt.quantize.load_method` reads it
        (``"zero:over=tensor"``); as the problem says of each where it is empty.
    leave_float : tuple of str
        Weights that stay in float, and count 32 bits each: ``"first"``, ``"last"``, or patterns of their names.
    """

    bits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    activation_bits: int = 8
    start_bits: int = 4
    start_activation_bits: int = 0
    clip_every: int = 0
    method: str = ""
    leave_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        method = load_method(self.method or MidRise.name)
        _check(self, "bits", len(self.bits) > 0 and min(self.bits) >= 1, "must be whole numbers from 1")
        theirs = f"must be among the precisions of {method.name}, {widths_text(method.widths)}"
        _check(self, "bits", set(self.bits) <= set(method.widths), theirs)
        _check(self, "start_bits", self.start_bits in self.bits, f"must be one of the candidates {list(self.bits)}")
        fixed, start = self.activation_bits, (0, *self.bits)
        whole = f"must be 0, from 1 to {MOST_BITS}, or {FLOAT_BITS} for float"
        _check(self, "activation_bits", 0 <= fixed <= MOST_BITS or fixed == FLOAT_BITS, whole)
        known = self.start_activation_bits in start
        _check(self, "start_activation_bits", known, f"must be one of {list(start)}")
        _check(self, "clip_every", self.clip_every >= 0, "must not be negative")


@dataclass(frozen=True)
class Measuring:
    """How sensitivities are measured in each round.

    Parameters
    ----------
    granularity : str
        Groups of weights, as :func:`impq_opt.measure.measure` names them.
    metric, estimator : str
        Of the sensitivities. ``measured-error`` takes E with the squared rounding errors of the latent weights.
    measure_samples : int
        Training samples that they are measured on, drawn anew each round.
    concede : float
        Share of those samples, with the smallest margins, that is left out: a near tie would decide every ranking.
    measure_at : {"quantized", "latent"}
        Weights that they are measured at. Quantized ones need a metric with ``squared_range``, or one that rounds
        restate for the latent weights.
    """

    granularity: str = "kernel"
    metric: str = "impq"
    estimator: str = "importance"
    measure_samples: int = 1024
    concede: float = 0.0
    measure_at: str = "quantized"

    def __post_init__(self) -> None:
        _check(self, "measure_samples", self.measure_samples > 0, "must be positive")
        _check(self, "concede", 0 <= self.concede < 1, "must be at least 0 and below 1")
        _check(self, "measure_at", self.measure_at in ("quantized", "latent"), "must be 'quantized' or 'latent'")
        # Others round the weights that they measure at, or follow their range by no known law.
        follows = self.metric in RESTATED or getattr(load_metric(self.metric), "squared_range", False)
        known = self.measure_at == "latent" or follows
        _check(self, "metric", known, "is not known at quantized weights; set measure_at = latent")


@dataclass(frozen=True)
class Plan:
    """How long rounds go on.

    Parameters
    ----------
    start_epochs : int
        Epochs of quantization-aware training in round 0.
    rounds, epochs : int
        Rounds after it, and epochs of fine-tuning in each.
    target_bits, target_cost, floor : float, optional
        Stop when effective weight bits or the cost are at most the target, or validation accuracy falls below the
        floor.
    """

    start_epochs: int = 1
    rounds: int = 6
    epochs: int = 1
    target_bits: float | None = None
    target_cost: float | None = None
    floor: float | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs", "start_epochs"):
            _check(self, name, getattr(self, name) >= 0, "must not be negative")

    def epochs_of(self, number: int) -> int:
        """Return the epochs of round ``number``."""
        return self.epochs if number else self.start_epochs

    def epochs_before(self, number: int) -> int:
        """Return the epochs of all rounds before ``number``."""
        return self.start_epochs + (number - 1) * self.epochs if number else 0


_PARTS: dict[str, type[Any]] = {
    "quantizing": Quantizing,
    "measuring": Measuring,
    "training": Training,
    "plan": Plan,
}
_PART_OF = {f.name: part for part, kind in _PARTS.items() for f in dataclasses.fields(kind)}


@dataclass(frozen=True)
class Settings:
    """All settings of a run of rounds: who chooses, and one part for everything else.

    Files, recipes and ``--set`` have them in one table, ``strategy`` and the policy's own options among them;
    :meth:`from_dict` reads it, :meth:`as_dict` writes it.

    Parameters
    ----------
    policy : Policy
        Who chooses precisions, with its options.
    strategy : str
        What records call it: a policy's name, or that of a strategy of :func:`impq_opt.solve`.
    quantizing : Quantizing
    measuring : Measuring
    training : Training
        Its seed is that of the whole run.
    plan : Plan
    """

    policy: Policy
    strategy: str = ""
    quantizing: Quantizing = field(default_factory=Quantizing)
    measuring: Measuring = field(default_factory=Measuring)
    training: Training = field(default_factory=Training)
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        if not self.strategy:
            object.__setattr__(self, "strategy", self.policy.name)
        for name in policy_fields(type(self.policy)):
            if name in _PART_OF or name == "strategy":
                raise OptionError("is an option of the policy, and a setting of rounds", where=f"rounds.{name}")
        method, how = self.quantizing.method, self.measuring
        if method and load_method(method).needs_training:
            # Its levels are not near the latent weights, so nothing that is measured at those is of what it computes.
            near = f"cannot be with {method}, whose levels are not near the latent weights"
            _check(how, "measure_at", how.measure_at == "quantized", near)
            _check(how, "metric", how.metric not in RESTATED, near)

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        return self.training.seed

    def seeded(self, seed: int) -> Settings:
        """Return these settings with another seed."""
        return dataclasses.replace(self, training=dataclasses.replace(self.training, seed=seed))

    def start(self) -> Settings:
        """Return what the training of round 0 alone depends on, so that all strategies share it."""
        bits = self.quantizing.start_bits
        return Settings(
            policy=make_policy("uniform", {"budget": f"fixed:{bits}"}),
            strategy="uniform",
            quantizing=self.quantizing,
            training=self.training,
            plan=Plan(start_epochs=self.plan.start_epochs, rounds=0, epochs=0),
        )

    def identity(self) -> dict[str, Any]:
        """Return what makes two runs the same: all but the name that the strategy goes by."""
        return self.as_dict() | {"strategy": self.policy.name}

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists in one table, for files."""
        values: dict[str, Any] = {"strategy": self.strategy, **dataclasses.asdict(self.policy)}
        for part in _PARTS:
            values |= dataclasses.asdict(getattr(self, part))
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "rounds") -> Settings:
        """Build from what :meth:`as_dict` gives, or from a recipe; schedules may be texts.

        One table may serve several strategies, so options that another policy has are left aside.

        Raises
        ------
        OptionError
            An unknown name, or a value that is not allowed.
        """
        values = _renamed(values, where)
        parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        options: dict[str, Any] = {}
        strategy = values.get("strategy", "exact")
        own = policy_fields(strategy_class(strategy)[0])
        for name, value in values.items():
            if name in _PART_OF:
                parts[_PART_OF[name]][name] = value
            elif name in own:
                options[name] = value
            elif name != "strategy":
                _check_known(name, where)
        settings = {part: built(kind, parts[part], where) for part, kind in _PARTS.items()}
        return cls(policy=make_policy(strategy, options, where), strategy=strategy, **settings)


def _renamed(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the table with today's names: ``weight_range`` was the options of the only method that there was."""
    if "weight_range" not in values:
        return dict(values)
    rest = {name: value for name, value in values.items() if name != "weight_range"}
    spec = built(MidRise, values["weight_range"], f"{where}.weight_range").spec
    return {"method": "" if spec == MidRise.name else spec} | rest


def _check_known(name: str, where: str) -> None:
    """Raise OptionError unless some policy has an option ``name``."""
    others = {field for policy in policy_names() for field in policy_fields(policy_class(policy))}
    if name not in others:
        known = {*_PART_OF, *others, "strategy"}
        raise OptionError("unknown hyper-parameter", where=where, value=name, hint=nearest(name, known))


def Hyper(**values: Any) -> Settings:  # noqa: N802 - a class, before settings were split by what they are about
    """Return settings from one table, as a recipe has it: ``Hyper(strategy="exact", budget="fixed:2", rate=0.02)``."""
    return Settings.from_dict({name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
