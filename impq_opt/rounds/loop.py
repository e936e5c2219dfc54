"""The loop: measure, choose, fine-tune, test, again."""

from __future__ import annotations

import copy
import dataclasses
import platform
import time
from functools import cached_property
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

import impq_opt
from impq_opt.data import Dataset
from impq_opt.data.batch import together
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import DataError, FileError
from impq_opt.files import save_problem
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.networks.matching import versioned
from impq_opt.problem.problem import Problem
from impq_opt.quantize import (
    learned_of,
    pack,
    quantize,
    quantize_traced,
    quantized_weights,
    state_of,
    training_of,
    unpack_into,
)
from impq_opt.quantize.network import needs_tracing, traced_for
from impq_opt.quantize.packing import unpack_traced
from impq_opt.rounds.checkpoint import (
    Identity,
    State,
    check_identity,
    data_digest,
    load_state,
    network_digest,
    own_state,
    save_state,
)
from impq_opt.rounds.clips import Clips, restore_spans, spans_of
from impq_opt.rounds.folder import Folder
from impq_opt.rounds.latent import RESTATED, group_means, with_latent_ranges
from impq_opt.rounds.learned import carry, restore
from impq_opt.rounds.policy import Trial, Turn
from impq_opt.rounds.precisions import answered, columns_of, decision_of, fix_activations, in_float, unmeasured_stay
from impq_opt.rounds.record import Accuracy, Decision, Record, Seconds
from impq_opt.rounds.settings import Settings
from impq_opt.rounds.watch import PausedError, Report, Watch
from impq_opt.tracing.example import describe_input
from impq_opt.tracing.graph import Network
from impq_opt.training import Hooks, Progress, accuracy, train
from impq_opt.training.samples import Samples
from impq_opt.training.seeds import processes
from impq_opt.types import IntArray

__all__ = ["Measure", "Splits", "rounds"]


class Measure(Protocol):
    """How sensitivities are measured; :func:`impq_opt.rounds.measuring.measurer` makes one from settings."""

    def __call__(self, network: nn.Module, data: Samples, seed: int) -> Problem:
        """Return the problem of ``network``; :func:`impq_opt.quantize.quantize` says how its groups are named."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """Training, validation and test data. Choices use the first two; the third is read once, after the last round."""

    train: Samples
    validation: Samples
    test: Samples | None = None

    def fitted(self, network: nn.Module) -> Splits:
        """Return the data as the network takes them, labels checked; the test data without a look at them.

        Raises
        ------
        DataError
            The network does not run on the data, or labels are missing or none of its classes.
        """
        train, validation = (
            fitted(network, part, labels="training and testing") if isinstance(part, Dataset) else part
            for part in (self.train, self.validation)
        )
        test = self.test
        if isinstance(test, Dataset) and isinstance(train, Dataset):
            test = dataclasses.replace(test, reading=train.reading)
        return Splits(train, validation, test)


@kept_memory()
def rounds(
    network: nn.Module,
    data: Splits,
    settings: Settings,
    folder: str | Path,
    *,
    measure: Measure,
    start: str | Path | None = None,
    report: Report | None = None,
) -> list[Record]:
    """Alternate allocation with retraining; return one record per round, the first being the common start.

    Everything is kept in ``folder``, which all processes must see: ``checkpoint.safetensors``, ``log.jsonl``, and for
    each round its problem and its packed network. Called again with the same arguments it goes on where it was stopped,
    or killed.

    Parameters
    ----------
    network : nn.Module
        Trained, in float; left as it is.
    data : Splits
    settings : Settings
    folder : path
    measure : Measure
    start : path, optional
        Folder of a run on the same network. Where it has finished its round 0 alone, its weights are taken, so that
        strategies are compared from one start; groups are measured anew, for they may be others. Where it has ended
        after further rounds, its last round is round 0 of this run, precisions and all.
    report : Report, optional

    Raises
    ------
    PausedError
        The report's deadline has passed.
    DataError, FileError
        The folder belongs to another run, or cannot be read or written.
    OptionError
        A policy that finds no precisions.
    """
    return _Run(network, data, settings, Path(folder), measure, report or Report()).run(start)


class _Run:
    def __init__(
        self, network: nn.Module, data: Splits, settings: Settings, folder: Path, measure: Measure, report: Report
    ) -> None:
        self.network, self.data, self.settings = copy.deepcopy(network), data.fitted(network), settings
        self.folder, self.measure, self.report = Folder(folder), measure, report
        self.example = self.data.train.rows(torch.arange(min(2, len(data.train))))[0]
        self.rank, self.world = processes()
        if settings.training.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.identity = Identity(
            network=network_digest(network),
            data=data_digest(data.train, data.validation),
            hyper=settings.identity() | {"processes": self.world},
        )

    def run(self, start: str | Path | None) -> list[Record]:
        state = self._opened(start)
        while not state.done:
            if state.decision is None:
                self._choose(state)
            quantized = self._train(state)
            self._close(state, quantized)
        if self.data.test is not None and any(record.accuracy.test is None for record in state.records):
            self._test(state)
        return state.records

    # -- one round -----------------------------------------------------------------------------------------------

    def _choose(self, state: State) -> None:
        """Measure, and decide this round's precisions; round 0 is uniform."""
        settings, began = self.settings, time.perf_counter()
        self.report.show(f"round {state.number}/{settings.plan.rounds}: measuring")
        problem = self._fixed(self._measured(state))
        seconds = Seconds(measure=time.perf_counter() - began, solve=0.0, train=0.0)
        began = time.perf_counter()
        decision = self._start_of(problem) if state.number == 0 else self._chosen(state, problem)
        seconds.solve = time.perf_counter() - began
        decision.seconds = seconds
        state.bits, state.decision = decision.bits, decision
        state.progress, state.trials = Progress(), []
        self._save(state)

    def _fixed(self, problem: Problem) -> Problem:
        """Return the problem with what the settings leave nobody to choose."""
        how = self.settings.quantizing
        return in_float(fix_activations(problem, how.activation_bits), how.leave_float)

    def _start_of(self, problem: Problem) -> Decision:
        bits = self.settings.quantizing
        activations = bits.activation_bits or bits.start_activation_bits or bits.start_bits
        wanted = np.where(problem.weights(), bits.start_bits, activations)
        fixed = problem.candidates.counts(len(problem)) == 1
        wanted = np.where(fixed, problem.candidates.bits(np.zeros(len(problem), dtype=np.int64)), wanted)
        columns = columns_of(problem, wanted)
        columns[list(problem.pins)] = list(problem.pins.values())  # such as what is not measured, at its most bits
        decision = decision_of(problem, columns)
        decision.status = "start"
        return decision

    def _chosen(self, state: State, problem: Problem) -> Decision:
        """Ask the policy."""
        settings, columns = self.settings, columns_of(problem, state.bits)
        if settings.policy.falls:
            problem = unmeasured_stay(problem, columns)
        choice = settings.policy.choose(
            Turn(
                problem=problem,
                columns=columns,
                number=state.number,
                rounds=settings.plan.rounds,
                seed=settings.seed,
                magnitudes=group_means(problem, state_of(self._before(state), latent=False)),
                memory=state.memory,
                trial=self._trials(state, problem),
            )
        )
        state.memory, state.last = dict(choice.memory), choice.done
        decision = decision_of(problem, choice.columns)
        return decision if choice.answer is None else answered(decision, choice.answer)

    def _trials(self, state: State, problem: Problem) -> Trial:
        """Return how the policy tries precisions out; what this round's earlier trials gave is not tried again."""
        asked = 0

        def trial(columns: IntArray, epochs: int = 1) -> float:
            nonlocal asked
            if asked == len(state.trials):
                self.report.show(f"round {state.number}/{self.settings.plan.rounds}: trial {asked + 1}")
                bits = problem.candidates.bits(columns)
                quantized = self._quantize(problem, bits)
                self._carry(state, quantized)
                first = self.settings.plan.epochs_before(state.number)
                objective, hook = training_of(quantized)
                train(
                    quantized,
                    self.data.train,
                    self.settings.training,
                    first_epoch=first,
                    epochs=epochs,
                    objective=objective,
                    hook=hook,
                )
                state.trials.append(self._accuracy(quantized, self.data.validation))
                self._save(state)
                if self.report.over(time.monotonic()):  # between trials, so that every call gets further
                    raise PausedError
            asked += 1
            return state.trials[asked - 1]

        return trial

    def _quantized(self, number: int, bits: list[int]) -> nn.Module:
        """Return the network quantized as in round ``number``, with nothing learned besides."""
        return self._quantize(self.folder.problem(number), bits)

    def _before(self, state: State) -> nn.Module:
        """Return the network as the round before left it."""
        quantized = self._quantized(state.number - 1, state.records[-1].bits)
        restore(quantized, state.learned)
        return quantized

    def _carry(self, state: State, quantized: nn.Module) -> None:
        """Give a round's network, not yet trained, what the one before it learned."""
        if state.learned:
            carry(self._before(state), quantized)

    def _quantize(self, problem: Problem, bits: npt.ArrayLike) -> nn.Module:
        scheme, precisions = self.settings.quantizing.method or None, np.asarray(bits)
        if not needs_tracing(problem, precisions):
            return quantize(self.network, problem, precisions, scheme=scheme)
        self._traced.fill(self.network)
        return quantize_traced(self._traced, problem, precisions, scheme=scheme)

    @cached_property
    def _traced(self) -> Network:
        """The network traced once: from round to round its weights change, not its calls."""
        return traced_for(self.network, self.example, None)

    def _measured(self, state: State) -> Problem:
        """Measure at this point of training, and keep it; all processes read what the first one wrote."""
        settings, how = self.settings, self.settings.measuring
        network = copy.deepcopy(self.network).eval()
        seed, at = settings.seed * 1009 + state.number, "the float network"
        if state.number > 0:
            at = f"{how.measure_at} weights after round {state.number - 1}"
        if state.number > 0 and how.measure_at == "quantized":
            before = self._before(state)
            network.load_state_dict(own_state(network, state_of(before, latent=False)))
            problem = with_latent_ranges(self.measure(network, self.data.train, seed), before)
        else:
            problem = self.measure(network, self.data.train, seed)
        if how.metric in RESTATED:
            problem = RESTATED[how.metric][1](problem, self.network, settings.quantizing.method)
        if self.rank == 0:
            told = {"round": state.number, "strategy": settings.strategy, "run_seed": settings.seed, "measured_at": at}
            told["input"] = describe_input(together(self.example))
            problem = dataclasses.replace(problem, provenance=dict(problem.provenance) | told)
            save_problem(problem, self.folder.problem_path(state.number))
        self._wait()
        return self.folder.problem(state.number)

    def _train(self, state: State) -> nn.Module:
        """Fine-tune at this round's precisions, from wherever this round stands."""
        assert state.decision is not None
        plan, quantized = self.settings.plan, self._quantized(state.number, state.bits)
        if not state.progress.step:
            self._carry(state, quantized)
        else:
            restore(quantized, state.learned)
            restore_spans(quantized, state.learned)
        seconds = state.decision.seconds

        def keep(progress: Progress, spent: float) -> None:
            seconds.train = before + spent
            self._save_training(state, quantized, progress)

        before, title = seconds.train, f"round {state.number}/{plan.rounds}"
        later = max(0, plan.rounds - state.number) * plan.epochs
        watch = Watch(self.report, keep, title, self.settings.training.batch, later)
        clips = Clips(self.settings.quantizing.clip_every)
        objective, hook = training_of(quantized)
        state.progress = train(
            quantized,
            self.data.train,
            self.settings.training,
            first_epoch=self._epochs_before(state, state.number),
            epochs=plan.epochs_of(state.number),
            objective=objective,
            hook=Hooks(hook, clips, watch),  # which keeps what was read
            progress=state.progress,
        )
        seconds.train = before + watch.spent()
        return quantized.eval()

    def _close(self, state: State, quantized: nn.Module) -> None:
        """Test, log, and go to the next round."""
        assert state.decision is not None
        settings, done, plan = self.settings, state.progress, self.settings.plan
        valid = self._accuracy(quantized, self.data.validation)
        hits = done.hits / done.seen if done.seen else self._accuracy(quantized, self.data.train)
        record = Record(
            round=state.number,
            strategy=settings.strategy,
            **msgspec.structs.asdict(state.decision),
            accuracy=Accuracy(train=hits, validation=valid, test=None),
            loss=done.loss / done.seen if done.seen else None,
            epochs=plan.epochs_of(state.number),
            total_epochs=self._epochs_before(state, state.number + 1),
            seed=settings.seed,
            versions=_versions(),
        )
        if self.rank == 0:
            self._pack(quantized, state.number)
        state.records.append(record)
        state.network = own_state(self.network, state_of(quantized, latent=True))
        self.network.load_state_dict(versioned(self.network, state.network))
        state.done = self._why_done(state, record)
        state.number, state.decision, state.progress = state.number + 1, None, Progress()
        state.learned = {name: tensor.detach() for name, tensor in learned_of(quantized).items()}
        self._save(state)

    def _epochs_before(self, state: State, number: int) -> int:
        """Return the epochs before a round, those of the run where this one began among them."""
        began = state.records[0].total_epochs if state.records else self.settings.plan.start_epochs
        return began + (number - 1) * self.settings.plan.epochs if number else 0

    def _why_done(self, state: State, record: Record) -> str:
        plan, effective = self.settings.plan, record.effective_bits.weights
        if state.number == 0:
            return "" if plan.rounds else "all rounds"
        if plan.floor is not None and record.accuracy.validation < plan.floor:
            return "validation accuracy below the floor"
        if plan.target_bits is not None and effective is not None and effective <= plan.target_bits:
            return "target effective bits"
        if plan.target_cost is not None and record.cost <= plan.target_cost:
            return "target cost"
        return state.last or ("all rounds" if state.number >= plan.rounds else "")

    def _test(self, state: State) -> None:
        """Read the test data, once everything is decided: each round's network comes back from its packed file."""
        assert self.data.test is not None
        for record in state.records:
            self.report.show(f"testing round {record.round}")
            packed = self.folder.packed_path(record.round)
            network = self.network  # of a run in float, which has no codes and one round
            if packed.exists():
                traced = needs_tracing(self.folder.problem(record.round), np.array(record.bits))
                network = unpack_traced(self._traced, packed) if traced else unpack_into(self.network, packed)
            record.accuracy.test = self._accuracy(network, self.data.test)
        self._save(state)

    def _accuracy(self, network: nn.Module, data: Samples) -> float:
        return accuracy(network, data, channels_last=self.settings.training.channels_last)

    # -- the folder ----------------------------------------------------------------------------------------------

    def _opened(self, start: str | Path | None) -> State:
        if self.rank == 0:
            self.folder.make()
        self._wait()
        kept = load_state(self.folder.path)
        self._wait()  # nobody writes before all have read
        if kept is not None:
            state, identity = kept
            check_identity(identity, self.identity, self.folder.path)
            self.network.load_state_dict(own_state(self.network, state.network))
            return state
        state = State(network=dict(self.network.state_dict()))
        if start is not None:
            self._take_start(state, Path(start))
        self._save(state)
        return state

    def _take_start(self, state: State, start: Path) -> None:
        """Take round 0 from another run, which must have begun as this one does: its own, or the last if it ended."""
        kept = load_state(start)
        if kept is None or not kept[0].records:
            raise FileError("holds no run that has finished its round 0", where=str(start))
        other, identity = kept
        for name in ("network", "data"):
            if getattr(identity, name) != getattr(self.identity, name):
                raise DataError(f"began with another {name}", where=str(start))
        if other.number != 1:
            self._take_end(state, other, identity, start)
            return
        # Its groups may be others.
        problem = self._fixed(self._measured(state))
        first, decision = other.records[0], self._start_of(problem)
        decision.seconds = first.seconds
        state.network, state.learned, state.bits, state.number = other.network, other.learned, decision.bits, 1
        told = msgspec.structs.asdict(decision) | {"strategy": self.settings.strategy}
        state.records = [msgspec.structs.replace(first, **told)]
        self.network.load_state_dict(own_state(self.network, state.network))
        if self.rank == 0:
            self._pack(self._before(state), 0)

    def _take_end(self, state: State, other: State, identity: Identity, start: Path) -> None:
        """Make the last round of a run that has ended, with its precisions and its weights, round 0 of this one."""
        if not other.done:
            raise DataError("has gone past round 0, and has not ended", where=str(start), value=other.number - 1)
        for name in ("granularity", "bits", "method"):  # what its groups are, and how its weights are packed
            if identity.hyper.get(name, "") != self.identity.hyper[name]:
                raise DataError(f"has another {name}", where=str(start), value=identity.hyper.get(name))
        theirs, last, fixed = Folder(start), other.records[-1], self.settings.quantizing.activation_bits
        problem = self._fixed(theirs.problem(last.round))
        columns = columns_of(problem, last.bits)
        if any(columns[group] != column for group, column in problem.pins.items()):
            raise DataError(
                "ended with activations of another precision", where=str(start), value=fixed, hint="activation_bits=0"
            )
        state.network, state.learned, state.bits, state.number = other.network, other.learned, last.bits, 1
        state.records = [
            msgspec.structs.replace(
                last,
                round=0,
                strategy=self.settings.strategy,
                status="start",
                accuracy=msgspec.structs.replace(last.accuracy, test=None),
            )
        ]
        self.network.load_state_dict(own_state(self.network, state.network))
        if self.rank == 0:
            save_problem(problem, self.folder.problem_path(0))
            # As it was packed then: its clip values are those at the end of that round.
            atomic_write(self.folder.packed_path(0), theirs.packed_path(last.round).read_bytes())
        self._wait()

    def _save(self, state: State) -> None:
        if self.rank == 0:
            save_state(self.folder.path, state, self.identity)
        self._wait()

    def _save_training(self, state: State, quantized: nn.Module, progress: Progress) -> None:
        """Keep a round in the middle of its training."""
        state.network, state.progress = own_state(self.network, state_of(quantized, latent=True)), progress
        state.learned = {name: tensor.detach() for name, tensor in learned_of(quantized).items()}
        if self.settings.quantizing.clip_every:
            state.learned |= spans_of(quantized)
        self._save(state)

    def _pack(self, quantized: nn.Module, number: int) -> None:
        if quantized_weights(quantized):  # a network that stays in float has no codes
            pack(quantized, self.folder.packed_path(number))

    def _wait(self) -> None:
        if self.world > 1:
            distributed.barrier()


def _versions() -> dict[str, str]:
    return {
        "impq-opt": impq_opt.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
