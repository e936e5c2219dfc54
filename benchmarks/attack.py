"""Hunt for lies: random questions, forged answers, lying strategies, damaged files and extreme numbers, for an hour.

Every answer is held against the truth that tests/attacks finds for itself. Each attack has a seed; a fault is printed
with it and with a program that reproduces it, and makes the exit status 1. Two processes work, one with compiled parts
and one without: both get all instances and numbers, whose answers must be the same, and share the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _figures import Figures
from attacks.core import ATTACKS, load

# kind -> what an hour is to do, the share of the time, and whether compiled and NumPy are compared
PLAN: dict[str, tuple[int, float, bool]] = {
    "instances": (100_000, 0.62, True),
    "files": (20_000, 0.18, False),
    "forgeries": (5_000, 0.06, False),
    "claims": (20_000, 0.06, False),
    "numbers": (20_000, 0.08, True),
}
_UNIT = {"forgeries": "forgeries", "files": "mutated files", "claims": "claims", "numbers": "arrays"}
BATCH = 50
# Seconds of silence after which a process is taken to hang: every step is broken off long before.
SILENCE = 180.0
# Faults alike are printed in full so many times.
SHOWN = 2


@dataclass
class Worker:
    """A process that attacks; its answers come through a queue."""

    pure: bool
    process: subprocess.Popen[str] = field(init=False)
    answers: queue.Queue[dict[str, Any] | None] = field(init=False)

    def __post_init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("IMPQ_OPT_PURE", None)
        if self.pure:
            environment["IMPQ_OPT_PURE"] = "1"
        command = [sys.executable, __file__, "--worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.answers = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.answers), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], answers: queue.Queue[dict[str, Any] | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(json.loads(line))
        answers.put(None)

    def ask(self, kind: str, start: int, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind} {start} {count}\n")
        self.process.stdin.flush()

    def collect(self, kind: str, start: int, count: int) -> list[dict[str, Any]]:
        """Return the outcomes of a batch; a process that hangs or dies is started anew behind the seed."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            try:
                answer = self.answers.get(timeout=SILENCE)
                what = "the process died"
            except queue.Empty:
                answer, what = None, f"silent for {SILENCE:.0f} s"
            if answer is None:
                self.close()
                seed = start + len(found)
                answer = {"seed": seed, "faults": [[what, ""]], "counts": {}, "done": 1, "digest": what}
                self.__post_init__()
                if len(found) + 1 < count:
                    self.ask(kind, seed + 1, count - len(found) - 1)
            found.append(answer)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def work() -> int:
    """Attack as told by lines on stdin; one line of JSON an attack on stdout."""
    warnings.simplefilter("error")  # a warning of NumPy is as little meant for users as a traceback
    out = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        kind, start, count = line.split()
        attack = load(kind)
        for seed in range(int(start), int(start) + int(count)):
            found = attack(seed)
            answer = {
                "seed": seed,
                "faults": [[fault.what, fault.code] for fault in found.faults],
                "counts": dict(found.counts),
                "done": found.done,
                "digest": found.digest,
            }
            print(json.dumps(answer), file=out, flush=True)
    return 0


@dataclass
class Hunt:
    """All that was found of one kind."""

    kind: str
    attacks: int = 0
    done: int = 0
    faults: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    alike: Counter[str] = field(default_factory=Counter)

    def add(self, answers: list[dict[str, Any]], pure: bool) -> None:
        for answer in answers:
            self.counts.update(answer["counts"])
            self.done += answer["done"]
            for what, code in answer["faults"]:
                self.fault(answer["seed"], what, code, pure)

    def fault(self, seed: int, what: str, code: str, pure: bool) -> None:
        self.faults += 1
        head = re.sub(r"-?\d[\d./e+-]*", "#", what.splitlines()[0])[:70]
        self.alike[head] += 1
        if self.alike[head] <= SHOWN:
            path = "NumPy" if pure else "compiled"
            print(f"FAULT {self.kind}, seed {seed}, {path}: {what[:2000]}\n{code[:6000]}\n", flush=True)

    def compare(self, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
        for one, other in zip(first, second, strict=True):
            if one["digest"] != other["digest"] and not one["faults"] and not other["faults"]:
                self.fault(one["seed"], "compiled and NumPy differ", f"    # attacks.{self.kind}", False)


def hunt(kind: str, workers: list[Worker], seed: int, goal: int, seconds: float) -> Hunt:
    """Attack until the goal is reached or the time is over."""
    found, both = Hunt(kind), PLAN[kind][2]
    ends = time.monotonic() + seconds
    batch = 5 if seconds < 60 else BATCH
    while found.done < goal and time.monotonic() < ends:
        starts = [seed] * 2 if both else [seed, seed + batch]
        for worker, start in zip(workers, starts, strict=True):
            worker.ask(kind, start, batch)
        answers = [worker.collect(kind, start, batch) for worker, start in zip(workers, starts, strict=True)]
        found.add(answers[0], False)
        if both:
            done = found.done
            found.add(answers[1], True)
            found.done = done
            found.compare(*answers)
        else:
            found.add(answers[1], True)
        found.attacks += batch * (1 if both else 2)
        seed += batch * (1 if both else 2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="some forty seconds")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--kind", choices=sorted(ATTACKS), action="append", help="this alone; may be repeated")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work()
    kinds = options.kind or list(PLAN)
    seconds = 40.0 if options.quick else 60 * options.minutes
    whole = sum(PLAN[kind][1] for kind in kinds)
    figures, workers = Figures(), [Worker(pure=False), Worker(pure=True)]
    try:
        for kind in kinds:
            goal, share, _ = PLAN[kind]
            found = hunt(kind, workers, options.seed, goal, seconds * share / whole)
            for what, count in sorted(found.counts.items()):
                print(f"    {count:8} {what}")
            for what, count in found.alike.most_common():
                print(f"    {count:8} FAULTS: {what}")
            full = options.kind is None and not options.quick and options.minutes >= 60
            figures.add(f"{kind}, tried", found.done, goal if full else None, _UNIT.get(kind, kind), least=True)
            figures.add(f"{kind}, faults", found.faults, 0, f"from seed {options.seed}")
    finally:
        for worker in workers:
            worker.close()
    return figures.finish(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
