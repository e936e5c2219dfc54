"""The loop: measure, choose, fine-tune, test, again."""

from __future__ import annotations

import copy
import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

import impq_opt
from impq_opt.errors import DataError, FileError
from impq_opt.files import load_problem, save_problem
from impq_opt.memory import kept_memory
from impq_opt.problem.problem import Problem
from impq_opt.quantize import pack, quantize, state_of, unpack_into
from impq_opt.rounds.checkpoint import (
    State,
    check_identity,
    data_digest,
    load_state,
    network_digest,
    save_state,
)
from impq_opt.rounds.fit import Tally, accuracy, fine_tune, steps_per_epoch
from impq_opt.rounds.latent import group_means, with_latent_ranges, with_rounding_errors
from impq_opt.rounds.settings import Hyper
from impq_opt.rounds.strategies import choose, columns_of, describe, fix_activations
from impq_opt.training.samples import Samples
from impq_opt.training.seeds import processes

__all__ = ["Measure", "PausedError", "Report", "Splits", "rounds"]


class Measure(Protocol):
    """How sensitivities are measured; :func:`impq_opt.rounds.measuring.measurer` makes one from hyper-parameters."""

    def __call__(self, network: nn.Module, data: Samples, seed: int) -> Problem:
        """Return the problem of ``network``; :func:`impq_opt.quantize.quantize` says how its groups are named."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """Training, validation and test data. Choices use the first two; the third is read once, after the last round."""

    train: Samples
    validation: Samples
    test: Samples | None = None


class PausedError(Exception):
    """The time given to this call is over; the same call goes on from its checkpoint."""


@dataclasses.dataclass
class Report:
    """What the loop says while it works: round, epoch, step, and speed.

    Parameters
    ----------
    show : callable
        Gets one line of text; called at most once a second.
    deadline : float
        Stop with :class:`PausedError` at this :func:`time.monotonic`.
    save_every : float
        Seconds between checkpoints while training.
    """

    show: Callable[[str], None] = lambda line: None
    deadline: float = float("inf")
    save_every: float = 30.0


@kept_memory()
def rounds(
    network: nn.Module,
    data: Splits,
    hyper: Hyper,
    folder: str | Path,
    *,
    measure: Measure,
    start: str | Path | None = None,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Alternate allocation with retraining; return one record per round, the first being the common start.

    Everything is kept in ``folder``, which all processes must see: ``checkpoint.safetensors``, ``log.jsonl``, and for
    each round its problem and its packed network. Called again with the same arguments it goes on where it was stopped,
    or killed.

    Parameters
    ----------
    network : nn.Module
        Trained, in float; left as it is.
    data : Splits
    hyper : Hyper
    folder : path
    measure : Measure
    start : path, optional
        Folder of a run that has finished its round 0 on the same network: its weights are taken, so that strategies are
        compared from one start. Groups are measured anew, for they may be others.
    report : Report, optional

    Raises
    ------
    PausedError
        The report's deadline has passed.
    DataError, FileError
        The folder belongs to another run, or cannot be read or written.
    """
    return _Run(network, data, hyper, Path(folder), measure, report or Report()).run(start)


class _Run:
    def __init__(
        self, network: nn.Module, data: Splits, hyper: Hyper, folder: Path, measure: Measure, report: Report
    ) -> None:
        self.network, self.data, self.hyper, self.folder = copy.deepcopy(network), data, hyper, folder
        self.measure, self.report = measure, report
        self.example = data.train.rows(torch.arange(min(2, len(data.train))))[0]
        self.rank, self.world = processes()
        if hyper.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.identity = {
            "network": network_digest(network),
            "data": data_digest(data.train, data.validation),
            "hyper": hyper.as_dict() | {"processes": self.world},
        }

    def run(self, start: str | Path | None) -> list[dict[str, Any]]:
        state = self._opened(start)
        while not state.done:
            if not state.chosen:
                self._choose(state)
            quantized = self._train(state)
            self._close(state, quantized)
        if self.data.test is not None and any(r["accuracy"]["test"] is None for r in state.records):
            self._test(state)
        return state.records

    # -- one round -----------------------------------------------------------------------------------------------

    def _choose(self, state: State) -> None:
        """Measure, and decide this round's precisions; round 0 is uniform."""
        hyper, began = self.hyper, time.perf_counter()
        self.report.show(f"round {state.number}/{hyper.rounds}: measuring")
        problem = self._measured(state)
        seconds = {"measure": time.perf_counter() - began}
        began = time.perf_counter()
        if state.number == 0:
            problem = fix_activations(problem, hyper.activation_bits)
            state.facts = describe(problem, self._start_columns(problem)) | {"status": "start"}
        else:
            now = np.asarray(state.bits)
            state.facts = choose(problem, now, state.number, hyper, group_means(problem, self.network)).facts
        state.bits = state.facts["bits"]
        state.facts["seconds"] = seconds | {"solve": time.perf_counter() - began, "train": 0.0}
        state.tally, state.chosen = Tally(), True
        self._save(state)

    def _quantized(self, network: nn.Module, problem: Problem, state: State) -> nn.Module:
        return quantize(network, problem, state.bits, scheme=self.hyper.weight_range, example=self.example)

    def _start_columns(self, problem: Problem) -> npt.NDArray[np.int64]:
        bits = self.hyper.start_bits
        return columns_of(problem, np.where(problem.weights(), bits, self.hyper.activation_bits or bits))

    def _measured(self, state: State) -> Problem:
        """Measure at this point of training, and keep it; all processes read what the first one wrote."""
        network, hyper = copy.deepcopy(self.network).eval(), self.hyper
        seed = hyper.seed * 1009 + state.number
        if state.number > 0 and hyper.measure_at == "quantized":
            before = self._quantized(network, self._problem(state.number - 1), state)
            network.load_state_dict(state_of(before, latent=False), strict=False)
            problem = with_latent_ranges(self.measure(network, self.data.train, seed), before)
        else:
            problem = self.measure(network, self.data.train, seed)
        if hyper.metric == "measured-error":
            problem = with_rounding_errors(problem, self.network, hyper.weight_range)
        if self.rank == 0:
            at = (
                "the float network"
                if state.number == 0
                else f"{hyper.measure_at} weights after round {state.number - 1}"
            )
            told = {"round": state.number, "strategy": hyper.strategy, "run_seed": hyper.seed, "measured_at": at}
            problem = dataclasses.replace(problem, provenance=dict(problem.provenance) | told)
            save_problem(problem, self._problem_path(state.number))
        self._wait()
        return self._problem(state.number)

    def _train(self, state: State) -> nn.Module:
        """Fine-tune at this round's precisions, from wherever this round stands."""
        hyper = self.hyper
        problem = self._problem(state.number)
        quantized = self._quantized(self.network, problem, state)
        saved = time.monotonic()
        began = time.perf_counter()
        before = state.facts["seconds"]["train"]
        epochs = hyper.epochs if state.number else hyper.start_epochs
        per_epoch = steps_per_epoch(len(self.data.train), hyper)
        shown = [0.0]
        first = state.tally.step

        def after(tally: Tally) -> None:
            nonlocal saved
            now = time.monotonic()
            over = self._agreed(now >= self.report.deadline)
            # Processes save together, so not by their own clocks.
            due = now - saved >= self.report.save_every if self.world == 1 else tally.step % per_epoch == 0
            if over or due:
                saved = now
                state.network, state.tally = state_of(quantized, latent=True), tally
                state.facts["seconds"]["train"] = before + time.perf_counter() - began
                self._save(state)
            if over:
                raise PausedError
            if now - shown[0] >= 1:
                shown[0] = now
                self.report.show(_line(state, hyper, tally, per_epoch, epochs, first, time.perf_counter() - began))

        start = hyper.start_epochs + (state.number - 1) * hyper.epochs if state.number else 0
        state.tally = fine_tune(
            quantized, self.data.train, hyper, first_epoch=start, epochs=epochs, tally=state.tally, after=after
        )
        state.facts["seconds"]["train"] = before + time.perf_counter() - began
        state.facts["epochs"] = epochs
        return quantized.eval()

    def _close(self, state: State, quantized: nn.Module) -> None:
        """Test, log, and go to the next round."""
        hyper, tally = self.hyper, state.tally
        valid = accuracy(quantized, self.data.validation, hyper)
        train = tally.hits / tally.seen if tally.seen else accuracy(quantized, self.data.train, hyper)
        facts = state.facts
        record = {
            "round": state.number,
            "strategy": hyper.strategy,
            **{key: value for key, value in facts.items() if key != "seconds"},
            # Training accuracy is that of the last epoch while it was trained on.
            "accuracy": {"train": train, "validation": valid, "test": None},
            "loss": tally.loss / tally.seen if tally.seen else None,
            "epochs": facts.get("epochs", 0),
            "total_epochs": hyper.start_epochs + state.number * hyper.epochs,
            "seconds": facts["seconds"],
            "seed": hyper.seed,
            "versions": _versions(),
        }
        if self.rank == 0:
            pack(quantized, self._packed_path(state.number))
        state.records.append(record)
        state.network = state_of(quantized, latent=True)
        self.network.load_state_dict(state.network, strict=False)
        state.done = self._why_done(state, record)
        state.number, state.chosen, state.facts, state.tally = state.number + 1, False, {}, Tally()
        self._save(state)

    def _why_done(self, state: State, record: dict[str, Any]) -> str:
        hyper = self.hyper
        effective = record["effective_bits"]["weights"]
        if state.number == 0:
            return "" if hyper.rounds else "all rounds"
        if hyper.floor is not None and record["accuracy"]["validation"] < hyper.floor:
            return "validation accuracy below the floor"
        if hyper.target_bits is not None and effective is not None and effective <= hyper.target_bits:
            return "target effective bits"
        if hyper.target_cost is not None and record["cost"] <= hyper.target_cost:
            return "target cost"
        if hyper.is_heuristic and len(state.records) > 1 and record["bits"] == state.records[-2]["bits"]:
            return "nothing left to take"
        return "all rounds" if state.number >= hyper.rounds else ""

    def _test(self, state: State) -> None:
        """Read the test data, once everything is decided: each round's network comes back from its packed file."""
        assert self.data.test is not None
        for record in state.records:
            self.report.show(f"testing round {record['round']}")
            network = unpack_into(self.network, self._packed_path(record["round"]), example=self.example)
            record["accuracy"]["test"] = accuracy(network, self.data.test, self.hyper)
        self._save(state)

    # -- the folder ----------------------------------------------------------------------------------------------

    def _opened(self, start: str | Path | None) -> State:
        if self.rank == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"cannot be made: {error.strerror}", where=str(self.folder)) from None
        self._wait()
        found = load_state(self.folder)
        self._wait()  # nobody writes before all have read
        if found is not None:
            state, identity = found
            check_identity(identity, self.identity, self.folder)
            self.network.load_state_dict(state.network, strict=False)
            return state
        state = State(network=dict(self.network.state_dict()))
        if start is not None:
            self._take_start(state, Path(start))
        self._save(state)
        return state

    def _take_start(self, state: State, start: Path) -> None:
        """Take round 0 from another run, which must have begun as this one does."""
        found = load_state(start)
        if found is None or not found[0].records:
            raise FileError("holds no run that has finished its round 0", where=str(start))
        other, identity = found
        for key in ("network", "data"):
            if identity[key] != self.identity[key]:
                raise DataError(f"began with another {key}", where=str(start))
        if other.number != 1:
            raise DataError("has gone past round 0", where=str(start), value=other.number - 1)
        problem = fix_activations(self._measured(state), self.hyper.activation_bits)  # its groups may be others
        facts = describe(problem, self._start_columns(problem))
        state.network, state.bits, state.number = other.network, facts["bits"], 1
        state.records = [other.records[0] | facts | {"strategy": self.hyper.strategy}]
        self.network.load_state_dict(state.network, strict=False)
        if self.rank == 0:
            pack(self._quantized(self.network, problem, state), self._packed_path(0))

    def _save(self, state: State) -> None:
        if self.rank == 0:
            save_state(self.folder, state, self.identity)
        self._wait()

    def _problem_path(self, number: int) -> Path:
        return self.folder / f"round-{number:02}.problem.toml"

    def _packed_path(self, number: int) -> Path:
        return self.folder / f"round-{number:02}.packed.safetensors"

    def _problem(self, number: int) -> Problem:
        return load_problem(self._problem_path(number))

    def _wait(self) -> None:
        if self.world > 1:
            distributed.barrier()

    def _agreed(self, over: bool) -> bool:
        """Return whether any process says so."""
        if self.world == 1 or self.report.deadline == float("inf"):
            return over
        flag = torch.tensor(int(over))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)


def _line(state: State, hyper: Hyper, tally: Tally, per_epoch: int, epochs: int, first: int, seconds: float) -> str:
    done = tally.step - first
    speed = done / seconds
    left = epochs * per_epoch - tally.step + max(0, hyper.rounds - state.number) * hyper.epochs * per_epoch
    return (
        f"round {state.number}/{hyper.rounds}  epoch {tally.step // per_epoch + 1}/{epochs}  "
        f"step {tally.step % per_epoch}/{per_epoch}  loss {tally.loss / max(1, tally.seen):.3f}  "
        f"{speed * hyper.batch:.0f} images/s  {left / speed / 60:.1f} min left"
    )


def _versions() -> dict[str, str]:
    return {
        "impq-opt": impq_opt.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
