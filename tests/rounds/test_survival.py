"""A run that is killed, paused, out of space, damaged or shared between processes ends as if nothing had been."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantize_world import learning
from rounds_world import Small, Stripes, comparable, hyper, measure, small, splits
from safetensors.torch import load_file

from impq_opt.errors import DataError, FileError
from impq_opt.files import load_problem
from impq_opt.quantize import quantize, quantize_traced, storage_bits, unpack
from impq_opt.rounds import PausedError, Report, read_records, rounds

HERE = Path(__file__).parents[1]


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from rounds_world import hyper, measure, small, splits, traced_once
from impq_opt.rounds import Report, loop, rounds

data = splits()
loop.traced_for = traced_once
traced_once(small(), data.train.rows(torch.arange(2))[0], None)  # once for all children

def child(limit):
    torch.set_num_threads(1)
    seen = 0
    def event():
        nonlocal seen
        seen += 1
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)
    def before_and_after(owner, name):
        plain = getattr(owner, name)
        def wrapped(*args, **kwargs):
            event()
            found = plain(*args, **kwargs)
            event()
            return found
        setattr(owner, name, wrapped)
    before_and_after(torch.optim.SGD, "step")      # in the middle of a training step, and after it
    before_and_after(pathlib.Path, "replace")      # a file is written, not yet renamed; and renamed
    def watched(*args):                            # before and after measuring
        event()
        problem = measure(*args)
        event()
        return problem
    # saved after every step, so that how often does not depend on how fast the machine is
    rounds(small(), data, hyper(), sys.argv[2], measure=watched, report=Report(save_every=0.0))
    os._exit(0)

import random
draw, killed = random.Random(int(sys.argv[3])), 0
while True:
    pid = os.fork()
    if pid == 0:
        child(draw.randint(1, 60))
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status):
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    killed += 1
    assert killed < 300
print(os.WEXITSTATUS(status), killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_at_any_instant_it_resumes_to_the_same_bits_and_weights(tmp_path: Path) -> None:
    rounds(small(), splits(), hyper(), tmp_path / "whole", measure=measure)
    script = [sys.executable, "-c", KILLED, str(HERE / "worlds"), str(tmp_path / "killed"), "0"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=_environment())
    assert done.stdout.startswith("0 "), done.stderr
    assert int(done.stdout.split()[1]) >= 4
    _same_run(tmp_path / "whole", tmp_path / "killed")


def _same_run(one: Any, other: Any, rounds: int = 4) -> None:
    weights = [load_file(folder / "checkpoint.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    logs = [read_records(f / "log.jsonl") for f in (one, other)]
    assert comparable(logs[0]) == comparable(logs[1])
    for number in range(rounds):
        name = f"round-{number:02}.packed.safetensors"
        assert (one / name).read_bytes() == (other / name).read_bytes()


def _environment(**more: Any) -> Any:
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"} | more


def test_a_deadline_pauses_and_the_next_call_goes_on(tmp_path: Path) -> None:
    rounds(small(), splits(), hyper(rounds=1), tmp_path / "whole", measure=measure)
    for _ in range(100):
        try:
            report = Report(deadline=0.0)
            rounds(small(), splits(), hyper(rounds=1), tmp_path / "parts", measure=measure, report=report)
            break
        except PausedError:
            pass
    _same_run(tmp_path / "whole", tmp_path / "parts", 2)


def test_progress_is_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    rounds(small(), splits(), hyper(), tmp_path, measure=measure, report=Report(show=lines.append))
    assert any("round 1/3  epoch 1/1" in line and "images/s" in line and "min left" in line for line in lines)


def test_a_changed_network_data_set_or_setting_is_told(tmp_path: Path) -> None:
    rounds(small(), splits(), hyper(rounds=1), tmp_path, measure=measure)
    with pytest.raises(DataError, match="the network is not the one"):
        rounds(small(1), splits(), hyper(rounds=1), tmp_path, measure=measure)
    other = dataclasses.replace(splits(), train=Stripes(256, 9))
    with pytest.raises(DataError, match="the data are not those"):
        rounds(small(), other, hyper(rounds=1), tmp_path, measure=measure)
    with pytest.raises(DataError, match=r"hyper-parameters are not those.*'rate': 0.01"):
        rounds(small(), splits(), hyper(rounds=1, rate=0.01), tmp_path, measure=measure)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    rounds(small(), splits(), hyper(rounds=1), tmp_path, measure=measure)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(30):
        broken = bytearray(whole)
        place = draw.randrange(len(whole))
        broken[place] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(FileError, match="checkpoint"):
            rounds(small(), splits(), hyper(rounds=1), tmp_path, measure=measure)
    for end in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(FileError, match="checkpoint"):
            rounds(small(), splits(), hyper(rounds=1), tmp_path, measure=measure)


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(small(), splits(), hyper(), tmp_path / "whole", measure=measure)

    def full(descriptor: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match="cannot be written: No space left on device"):
            rounds(small(), splits(), hyper(), tmp_path / "full", measure=measure)
    rounds(small(), splits(), hyper(), tmp_path / "full", measure=measure)
    _same_run(tmp_path / "whole", tmp_path / "full")


DISTRIBUTED = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from processes import in_processes
from rounds_world import hyper, measure, small, splits, traced_once
from impq_opt.rounds import loop, rounds

network, data = small(), splits()
network.drop.p = 0.0
loop.traced_for = traced_once
traced_once(network, data.train.rows(torch.arange(2))[0], None)  # once for both

def train():
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rounds(network, data, hyper(rounds=2), sys.argv[2], measure=measure)
    torch.distributed.destroy_process_group()
    return 0

raise SystemExit(in_processes(2, train))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = [sys.executable, "-c", DISTRIBUTED, str(HERE / "worlds"), str(tmp_path / "two")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    network = small()
    network.drop.p = 0.0
    one = rounds(network, splits(), hyper(rounds=2), tmp_path / "one", measure=measure)
    two = read_records(tmp_path / "two" / "log.jsonl")
    assert len(two) == 3
    # Batch-norm sees half a batch in each process, so the runs are alike, not equal.
    for a, b in zip(one, two, strict=True):
        assert b.accuracy.validation == pytest.approx(a.accuracy.validation, abs=0.15)
    assert two[-1].accuracy.validation > 0.6
    budget = two[-1].budget
    assert isinstance(budget, dict) and two[-1].cost <= budget["storage"]


def test_packed_rounds_cost_what_the_log_says(tmp_path: Path) -> None:
    records = rounds(small(), splits(), hyper(rounds=1, epochs=0, start_epochs=0), tmp_path, measure=measure)
    problem = load_problem(tmp_path / "round-01.problem.toml")
    packed = unpack(tmp_path / "round-01.packed.safetensors")
    assert np.concatenate(list(packed.bits.values())).tolist() == records[1].bits[:18]
    assert storage_bits(quantize(Small(), problem, records[1].bits)) == records[1].cost


def test_what_quantizers_learn_besides_the_weights_survives_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "impq_opt.rounds.loop.quantize_traced", lambda *given, **options: learning(quantize_traced(*given, **options))
    )
    data = dataclasses.replace(splits(), test=None)
    settings = hyper(rounds=0, start_epochs=2)
    rounds(small(), data, settings, tmp_path / "whole", measure=measure)
    gains = []
    for _ in range(100):
        try:
            rounds(small(), data, settings, tmp_path / "parts", measure=measure, report=Report(deadline=0.0))
            break
        except PausedError:
            gains.append(
                float(
                    load_file(tmp_path / "parts/checkpoint.safetensors")["learned.conv2.parametrizations.weight.0.gain"]
                )
            )
    assert len(set(gains)) > 10
    weights = [load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
