"""How a network is trained, whatever it is trained for."""

from __future__ import annotations

from dataclasses import dataclass

from impq_opt.errors import OptionError, nearest
from impq_opt.training.augment import AUGMENTATIONS
from impq_opt.training.optimizers import OPTIMIZERS
from impq_opt.training.schedules import SCHEDULES

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """Settings of one training, in any precision.

    Parameters
    ----------
    batch : int
        Global, over all processes.
    rate : float
        Of learning, at the peak of its schedule.
    momentum, decay : float
        Of stochastic gradient descent; the decay is an L2 penalty on every parameter. ``adam`` has no momentum.
    warmup : float
        Share of the steps in which the rate rises.
    schedule : {"cosine", "cosine-from-start", "one-cycle"}
        How the rate goes; :mod:`impq_opt.training.schedules`.
    optimizer : {"sgd", "nesterov", "adam"}
    augment : {"none", "flip", "crop-flip"}
        Of images (n, c, h, w); other inputs stay as they are.
    bf16, channels_last, compile : bool
        Autocast, memory format, torch.compile.
    seed : int
        Of all that is drawn: order of the data, augmentation, dropout.

    Raises
    ------
    OptionError
        A value that is not one of those allowed.
    """

    batch: int = 128
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4
    warmup: float = 0.1
    schedule: str = "cosine"
    optimizer: str = "sgd"
    augment: str = "flip"
    bf16: bool = False
    channels_last: bool = True
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "rate"):
            self._check(name, getattr(self, name) > 0, "must be positive")
        for name in ("momentum", "warmup"):
            self._check(name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        for name in ("decay", "seed"):
            self._check(name, getattr(self, name) >= 0, "must not be negative")
        tables: dict[str, tuple[str, ...]] = {
            "schedule": tuple(SCHEDULES),
            "optimizer": tuple(OPTIMIZERS),
            "augment": AUGMENTATIONS,
        }
        for name, known in tables.items():
            value = getattr(self, name)
            self._check(name, value in known, f"must be one of {', '.join(known)}", nearest(str(value), known))

    def _check(self, name: str, holds: bool, rule: str, hint: str = "") -> None:
        if not holds:
            raise OptionError(rule, where=f"training.{name}", value=getattr(self, name), hint=hint)
