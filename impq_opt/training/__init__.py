"""Training, for whatever purpose: one loop with an objective and a hook, its settings, and accuracy. Needs torch.

::

    train(network, data, Training(rate=0.1), epochs=10)
    accuracy(network, held_out)

An objective is a callable, network and batch to loss (:mod:`impq_opt.training.objective`); a :class:`Hook` acts around
steps and after epochs.
"""

from impq_opt.training.accuracy import accuracy
from impq_opt.training.batches import Batch
from impq_opt.training.loop import Course, Hook, Hooks, Progress, train
from impq_opt.training.objective import Objective, Scored, cross_entropy
from impq_opt.training.settings import Training

__all__ = [
    "Batch",
    "Course",
    "Hook",
    "Hooks",
    "Objective",
    "Progress",
    "Scored",
    "Training",
    "accuracy",
    "cross_entropy",
    "train",
]
