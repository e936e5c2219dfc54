"""What methods want done while a quantized network is trained, as a hook of the training loop."""

from __future__ import annotations

from impq_opt.quantize.network import before_step
from impq_opt.training import Course, Hook

__all__ = ["BeforeSteps"]


class BeforeSteps(Hook):
    """Does before each step what the methods of the network's quantizers want done (``Quantizer.before_step``)."""

    def before_step(self, course: Course) -> None:
        before_step(course.network)
