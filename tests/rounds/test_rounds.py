"""Rounds: every strategy's rule against the rule written out, schedules, stops, and survival."""

import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rounds_world import Small, Stripes, hyper, measure, small, splits
from safetensors.torch import load_file

from impq_opt import GroupNames, Problem, solve
from impq_opt.errors import DataError, FileError, OptionError
from impq_opt.files import load_problem
from impq_opt.quantize import WeightRange, quantize, quantized_weights, state_of, storage_bits, unpack, unpack_into
from impq_opt.rounds import Hyper, PausedError, Report, Schedule, parse_schedule, rounds
from impq_opt.rounds.fit import accuracy, fine_tune, learning_rate
from impq_opt.rounds.latent import group_means, with_latent_ranges, with_rounding_errors
from impq_opt.rounds.strategies import choose, columns_of, not_above, step_down
from impq_opt.training.seeds import mix

HERE = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def comparable(records):
    """The records without what depends on the clock."""
    return [{k: v for k, v in record.items() if k not in ("seconds", "versions")} for record in records]


# -- schedules and hyper-parameters --------------------------------------------------------------------------------


def test_schedules_go_from_first_to_last():
    shape = parse_schedule("geometric:8:1")
    assert [shape.at(n, 4) for n in (1, 2, 3, 4, 5)] == pytest.approx([8, 4, 2, 1, 1])
    line = parse_schedule("linear:4:2:3")
    assert [line.at(n, 9) for n in (1, 2, 3, 4)] == pytest.approx([4, 3, 2, 2])
    assert parse_schedule("fixed:0.01").at(1, 5) == 0.01
    assert parse_schedule("geometric:4:2").at(1, 1) == 2


@pytest.mark.parametrize("text", ["geometric", "geometric:4", "cubic:4:2", "linear:4:x", "fixed:-1", "geometric:0:1"])
def test_a_bad_schedule_is_told(text):
    with pytest.raises(OptionError, match="schedule"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "rounds.batch: must be positive, got 0"),
        ({"start_bits": 9}, "rounds.start_bits: must be one of the candidates"),
        ({"take": ((2, 4.0),)}, "rounds.take"),
        ({"strategy": "exact"}, "either a schedule of budgets or of bounds"),
        ({"augment": "mixup"}, "rounds.augment"),
        ({"metric": "hawq"}, "rounds.metric: is not known at quantized weights; set measure_at = latent"),
    ],
)
def test_bad_hyper_parameters_are_told(changes, message):
    with pytest.raises(OptionError, match=message):
        Hyper(**({"strategy": "iterative"} | changes))


def test_hyper_parameters_survive_a_file():
    one = hyper(strategy="exact", options={"states": 1000}, take=((1, 0.25), (4, 10)))
    assert Hyper.from_dict(json.loads(json.dumps(one.as_dict()))) == one
    assert Hyper.from_dict({"strategy": "exact", "budget": "geometric:3:2"}).budget == Schedule("geometric", 3, 2)
    with pytest.raises(OptionError, match=r"unknown hyper-parameter, got 'rounnds' \(did you mean 'rounds'"):
        Hyper.from_dict({"rounnds": 3})
    with pytest.raises(OptionError, match="Expected `int`"):
        Hyper.from_dict({"strategy": "iterative", "rounds": "three"})


def test_the_learning_rate_rises_and_falls_to_zero():
    one = hyper(rate=0.1, warmup=0.1)
    rates = [learning_rate(one, step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([0.01 * (k + 1) for k in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0, abs=1e-12)


# -- strategies ----------------------------------------------------------------------------------------------------


def table(seed=0, weights=30, activations=6, ties=()):
    rng = np.random.default_rng(seed)
    total = weights + activations
    return Problem.from_sensitivities(
        rng.integers(1, 50, total),
        rng.lognormal(0, 2, total),
        names=GroupNames(("w", "a"), ((weights,), (activations,))),
        kinds=[0] * weights + [1] * activations,
        ranges=rng.uniform(0.5, 3, total),
        ties=ties,
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_slides_heuristic_takes_one_bit_off_the_n_least_damaging_groups(seed):
    problem = table(seed)
    now = np.random.default_rng(seed + 100).integers(1, 9, 36)
    one = hyper(strategy="iterative", activation_bits=0, take=((1, 5), (3, 2)))
    for number, count in ((1, 5), (2, 5), (3, 2), (9, 2)):
        after = step_down(problem, columns_of(problem, now), number, one, np.ones(36)) + 1
        damage = problem.damage.sensitivity * 4.0**-now
        able = sorted((g for g in range(36) if now[g] > 1), key=lambda g: damage[g])
        expected = now.copy()
        expected[able[:count]] -= 1
        assert after.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_authors_code_takes_every_group_up_to_the_threshold_kind_by_kind(seed):
    problem = table(seed)
    rng = np.random.default_rng(seed + 100)
    now, magnitudes = rng.integers(1, 9, 36), rng.uniform(0.01, 1, 36)
    one = hyper(strategy="authors-code", activation_bits=0, take=((1, 4),), take_activations=((1, 2),))
    after = step_down(problem, columns_of(problem, now), 1, one, magnitudes) + 1
    raw = problem.damage.sensitivity / problem.ranges**2
    metric = np.where(problem.weights(), raw / problem.sizes * magnitudes, raw * problem.ranges) * 2.0**-now
    expected = now.copy()
    for kind, count in ((problem.weights(), 4), (~problem.weights(), 2)):
        able = [g for g in np.flatnonzero(kind) if now[g] > 1]
        if able:
            threshold = sorted(metric[able])[min(count, len(able) - 1)]
            for group in able:
                expected[group] -= metric[group] <= threshold
    assert after.tolist() == expected.tolist()


def test_the_heuristic_moves_tied_groups_together_and_leaves_pins():
    problem = table(ties=((0, 1, 2), (30, 31)))
    problem = dataclasses.replace(problem, pins={5: 3})
    now = np.full(36, 4)
    one = hyper(strategy="iterative", activation_bits=0, take=((1, 0.5),))
    after = step_down(problem, columns_of(problem, now), 1, one, np.ones(36)) + 1
    assert after[5] == 4
    assert len(set(after[[0, 1, 2]])) == 1
    assert len(set(after[[30, 31]])) == 1
    assert (after < now).sum() >= 17


def test_at_one_bit_nothing_falls():
    problem = table()
    columns = np.zeros(36, dtype=np.int64)
    assert np.array_equal(step_down(problem, columns, 1, hyper(strategy="iterative"), np.ones(36)), columns)


def test_a_solver_strategy_gives_what_solve_gives_within_the_rounds_budget():
    problem = table()
    now = np.full(36, 4)
    one = hyper(strategy="exact", activation_bits=8, rounds=4, budget=Schedule("geometric", 4, 2))
    choice = choose(problem, now, 3, one, np.ones(36))
    weights = problem.weights()
    room = math.floor(4 * 0.5 ** (2 / 3) * problem.sizes[weights].sum())
    pinned = problem.revise(pins={"a": 8})
    assert choice.facts["damage"] == solve(pinned, budget=room).damage
    assert choice.facts["cost"] <= room
    assert choice.facts["status"] == "optimal"
    assert {choice.facts["bits"][g] for g in np.flatnonzero(~weights)} == {8}


def test_a_bound_schedule_minimises_cost_within_the_bound():
    problem = table()
    one = hyper(strategy="exact", activation_bits=8, budget=None, bound=Schedule("geometric", 0.1, 10))
    choice = choose(problem, np.full(36, 4), 2, one, np.ones(36))
    assert choice.facts["bound"] == pytest.approx(1.0)
    assert choice.facts["damage"] <= choice.facts["bound"]
    assert choice.facts["cost"] == solve(problem.revise(pins={"a": 8}), bound=choice.facts["bound"]).cost


def test_monotone_bits_never_rise():
    problem = table()
    now = np.random.default_rng(1).integers(1, 9, 36)
    limited = not_above(problem, now)
    assert all(max(limited.candidates.of(g)) == now[g] for g in range(36))
    one = hyper(strategy="exact", activation_bits=0, monotone=True, budget=Schedule("fixed", 4, 4))
    free = dataclasses.replace(one, monotone=False)
    assert (np.array(choose(problem, now, 1, one, np.ones(36)).facts["bits"]) <= now).all()
    assert (np.array(choose(problem, now, 1, free, np.ones(36)).facts["bits"]) > now).any()


def test_monotone_rounds_keep_a_budget_that_stays():
    one = hyper(strategy="exact", activation_bits=8, monotone=True, budget=Schedule("fixed", 1.6, 1.6))
    problem = table()
    first = choose(problem, np.array([4] * 30 + [8] * 6), 1, one, np.ones(36)).facts
    again = choose(problem, np.array(first["bits"]), 2, one, np.ones(36)).facts
    assert again["budget"] == first["budget"]
    assert again["cost"] == first["cost"]


def test_an_impossible_budget_is_told():
    one = hyper(strategy="exact", budget=Schedule("fixed", 0.5, 0.5))
    with pytest.raises(OptionError, match="round 1: no allocation"):
        choose(table(), np.full(36, 4), 1, one, np.ones(36))


# -- the loop ------------------------------------------------------------------------------------------------------


def test_rounds_log_what_their_folder_holds(tmp_path):
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    records = rounds(network, splits(), hyper(), tmp_path, measure=measure)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == records
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert [record["total_epochs"] for record in records] == [3, 4, 5, 6]
    assert set(records[0]["bits"][:18]) == {4}
    for record in records:
        problem = load_problem(tmp_path / f"round-{record['round']:02}.problem.toml")
        quantized = unpack_into(small(3), tmp_path / f"round-{record['round']:02}.packed.safetensors")
        for split in ("validation", "test"):
            assert accuracy(quantized, getattr(splits(), split), hyper()) == record["accuracy"][split]
        weights = problem.weights()
        assert record["cost"] == int(np.dot(problem.sizes[weights], np.array(record["bits"])[weights]))
        assert record["effective_bits"]["weights"] == record["cost"] / problem.sizes[weights].sum()
        chosen = 4.0 ** -np.array(record["bits"], dtype=float) * problem.damage.sensitivity
        assert record["damage"] == pytest.approx(chosen.sum())
    for record in records[1:]:
        assert record["status"] == "optimal"
        assert record["cost"] <= record["budget"]["storage"]
    assert records[-1]["accuracy"]["validation"] > 0.8


def test_the_test_data_is_read_once_after_the_last_round(tmp_path):
    class Guarded(Stripes):
        reads: int = 0

        def rows(self, index):
            self.reads += 1
            assert len(json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["bits"]) == 20
            assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4
            return super().rows(index)

    data = splits()
    guarded = Guarded(200, 2)
    data = dataclasses.replace(data, test=guarded)
    rounds(small(), data, hyper(), tmp_path, measure=measure)
    assert guarded.reads == 4  # once for each of the four networks, in one batch
    rounds(small(), data, hyper(), tmp_path, measure=measure)
    assert guarded.reads == 4


@pytest.mark.parametrize(
    ("changes", "rounds_done", "why"),
    [
        ({"target_bits": 2.5}, 2, "target effective bits"),
        ({"target_cost": 1200.0}, 2, "target cost"),
        ({"floor": 1.01}, 1, "validation accuracy below the floor"),
        ({}, 3, "all rounds"),
    ],
)
def test_rounds_stop_when_told(tmp_path, changes, rounds_done, why):
    records = rounds(small(), splits(), hyper(epochs=0, start_epochs=0, **changes), tmp_path, measure=measure)
    assert records[-1]["round"] == rounds_done
    state = json.loads(_metadata(tmp_path)["state"])
    assert state["done"] == why


def test_the_heuristic_stops_when_nothing_is_left(tmp_path):
    one = hyper(strategy="iterative", epochs=0, start_epochs=0, rounds=30, start_bits=2, take=((1, 18),))
    records = rounds(small(), splits(), one, tmp_path, measure=measure)
    assert len(records) == 3
    assert set(records[-1]["bits"][:18]) == {1}


def test_strategies_start_alike(tmp_path):
    rounds(small(), splits(), hyper(rounds=0), tmp_path / "start", measure=measure)
    found = {}
    for strategy in ("exact", "iterative"):
        one = hyper(strategy=strategy)
        found[strategy] = rounds(small(), splits(), one, tmp_path / strategy, measure=measure, start=tmp_path / "start")
    alone = rounds(small(), splits(), hyper(), tmp_path / "alone", measure=measure)
    assert comparable(found["exact"]) == comparable(alone)
    first = [comparable(found[s])[0] for s in found]
    assert first[0] | {"strategy": ""} == first[1] | {"strategy": ""}
    with pytest.raises(DataError, match="began with another network"):
        rounds(small(1), splits(), hyper(), tmp_path / "other", measure=measure, start=tmp_path / "start")


def test_sensitivities_measured_at_quantized_weights_carry_the_latent_range():
    network = small()
    problem = measure(network, splits().train, 0)
    quantized = quantize(network, problem, np.random.default_rng(0).integers(1, 9, 20))
    rounded = small()
    rounded.load_state_dict(state_of(quantized, latent=False))
    corrected = with_latent_ranges(measure(rounded, splits().train, 0), quantized)
    np.testing.assert_allclose(corrected.ranges, problem.ranges, rtol=1e-6)
    raw = measure(rounded, splits().train, 0)
    moments = raw.damage.sensitivity[:18] / raw.ranges[:18] ** 2
    np.testing.assert_allclose(corrected.damage.sensitivity[:18], moments * problem.ranges[:18] ** 2, rtol=1e-6)


def test_measured_errors_are_those_of_the_latent_weights_by_their_own_quantizer():
    network, scheme = small(), WeightRange(one_bit="mean")
    problem = measure(network, splits().train, 0)
    found = with_rounding_errors(problem, network, scheme)
    assert found.metric == "measured-error"
    weight = network.conv2.weight[3].detach().double()
    gradients = 12 * problem.damage.sensitivity[9] / problem.ranges[9] ** 2
    middle = weight.abs().mean()  # levels of one bit
    error = float((weight - middle * weight.sign()).square().mean())
    assert found.damage.values[9, 0] == pytest.approx(gradients * error, rel=1e-5)
    at_three = dataclasses.replace(problem, damage=problem.damage).damage.at(slice(None), (3,))[:, 0]
    bits = np.full(20, 3)
    rounded = quantized_weights(quantize(network, problem, bits, scheme=scheme))["conv2.weight"].value[3].double()
    ratio = float((rounded - weight).square().mean()) / (problem.ranges[9] ** 2 / 64 / 12)
    assert found.damage.values[9, 2] == pytest.approx(at_three[9] * ratio, rel=1e-5)
    np.testing.assert_array_equal(found.damage.values[18:], problem.damage.at(slice(18, 20), range(1, 9)))


def test_rounds_by_measured_errors(tmp_path):
    records = rounds(small(), splits(), hyper(metric="measured-error"), tmp_path, measure=measure)
    assert records[-1]["effective_bits"]["weights"] <= 1.5
    again = load_problem(tmp_path / "round-02.problem.toml")
    assert again.metric == "measured-error"
    assert again.damage.values.shape == (20, 8)


def test_group_magnitudes_are_means_of_absolute_weights():
    network = small()
    problem = measure(network, splits().train, 0)
    means = group_means(problem, network)
    assert means[6] == pytest.approx(float(network.conv2.weight[0].detach().abs().mean()))
    assert means[17] == pytest.approx(float(network.fc.weight[3].detach().abs().mean()))


# -- training ------------------------------------------------------------------------------------------------------


def test_training_depends_on_the_seed_alone_and_resumes_at_any_step():
    def run(one, cut=None):
        network = small()
        data = Stripes(200, 0)
        if cut is None:
            return fine_tune(network, data, one, first_epoch=0, epochs=2), network
        caught = []

        def stop(tally):
            if tally.step == cut:
                caught.append((dataclasses.replace(tally), {k: v.clone() for k, v in network.state_dict().items()}))
                raise PausedError

        with pytest.raises(PausedError):
            fine_tune(network, data, one, first_epoch=0, epochs=2, after=stop)
        again = small(7)
        again.load_state_dict(caught[0][1])
        tally = dataclasses.replace(caught[0][0], momentum={k: v.clone() for k, v in caught[0][0].momentum.items()})
        return fine_tune(again, data, one, first_epoch=0, epochs=2, tally=tally), again

    one = hyper(augment="crop-flip")
    whole, reference = run(one)
    for cut in (1, 6, 7, 11):
        tally, resumed = run(one, cut)
        assert (tally.step, tally.hits, tally.loss) == (whole.step, whole.hits, whole.loss)
        for name, tensor in reference.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (cut, name)
    _, other = run(dataclasses.replace(one, seed=1))
    assert not torch.equal(other.conv1.weight, reference.conv1.weight)


def test_seeds_of_neighbouring_steps_are_unlike():
    seeds = {mix(s, e, p) for s in range(5) for e in range(5) for p in range(40)}
    assert len(seeds) == 1000
    assert mix(1, 2) != mix(2, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_bf16_compile_and_channels_last_train_the_same_network():
    finals = {}
    for name, changes in {
        "plain": {"channels_last": False},
        "channels_last": {},
        "bf16": {"bf16": True},
        "compile": {"compile": True},
    }.items():
        network = small()
        network.drop.p = 0.0  # compiled dropout draws other numbers
        problem = measure(network, Stripes(200, 0), 0)
        quantized = quantize(network, problem, np.full(20, 4))
        fine_tune(quantized, Stripes(200, 0), hyper(**changes), first_epoch=0, epochs=1)
        finals[name] = state_of(quantized, latent=True)["conv2.weight"]
    moved = float((finals["plain"] - small().conv2.weight).detach().abs().max())
    assert moved > 0.01
    torch.testing.assert_close(finals["channels_last"], finals["plain"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(finals["compile"], finals["plain"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(finals["bf16"], finals["plain"], rtol=0, atol=moved / 3)


def test_divergence_and_small_data_are_told(tmp_path):
    with pytest.raises(DataError, match="smaller than one batch, got 20"):
        fine_tune(small(), Stripes(20, 0), hyper(), first_epoch=0, epochs=1)
    with pytest.raises(DataError, match=r"training diverged.*lower the rate"):
        fine_tune(small(), Stripes(200, 0), hyper(rate=1e30), first_epoch=0, epochs=3)


# -- survival ------------------------------------------------------------------------------------------------------


def _metadata(folder):
    from safetensors import safe_open

    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        return file.metadata()


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from rounds_world import hyper, measure, small, splits
from impq_opt.rounds import Report, rounds

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
    rounds(small(), splits(), hyper(), sys.argv[2], measure=watched, report=Report(save_every=0.0))
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
def test_killed_at_any_instant_it_resumes_to_the_same_bits_and_weights(tmp_path):
    rounds(small(), splits(), hyper(), tmp_path / "whole", measure=measure)
    script = [sys.executable, "-c", KILLED, str(HERE / "worlds"), str(tmp_path / "killed"), "0"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=_environment())
    assert done.stdout.startswith("0 "), done.stderr
    assert int(done.stdout.split()[1]) >= 4
    _same_run(tmp_path / "whole", tmp_path / "killed")


def _same_run(one, other):
    weights = [load_file(folder / "checkpoint.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    logs = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (one, other)]
    assert comparable(logs[0]) == comparable(logs[1])
    for number in range(4):
        name = f"round-{number:02}.packed.safetensors"
        assert (one / name).read_bytes() == (other / name).read_bytes()


def _environment(**more):
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"} | more


def test_a_deadline_pauses_and_the_next_call_goes_on(tmp_path):
    rounds(small(), splits(), hyper(), tmp_path / "whole", measure=measure)
    for _ in range(100):
        try:
            rounds(small(), splits(), hyper(), tmp_path / "parts", measure=measure, report=Report(deadline=0.0))
            break
        except PausedError:
            pass
    _same_run(tmp_path / "whole", tmp_path / "parts")


def test_progress_is_reported(tmp_path):
    lines = []
    rounds(small(), splits(), hyper(), tmp_path, measure=measure, report=Report(show=lines.append))
    assert any("round 1/3  epoch 1/1" in line and "images/s" in line and "min left" in line for line in lines)


def test_a_changed_network_data_set_or_setting_is_told(tmp_path):
    rounds(small(), splits(), hyper(rounds=1), tmp_path, measure=measure)
    with pytest.raises(DataError, match="the network is not the one"):
        rounds(small(1), splits(), hyper(rounds=1), tmp_path, measure=measure)
    other = dataclasses.replace(splits(), train=Stripes(256, 9))
    with pytest.raises(DataError, match="the data are not those"):
        rounds(small(), other, hyper(rounds=1), tmp_path, measure=measure)
    with pytest.raises(DataError, match=r"hyper-parameters are not those.*'rate': 0.01"):
        rounds(small(), splits(), hyper(rounds=1, rate=0.01), tmp_path, measure=measure)


def test_a_damaged_checkpoint_is_told(tmp_path):
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


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, monkeypatch):
    rounds(small(), splits(), hyper(), tmp_path / "whole", measure=measure)

    def full(descriptor):
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
from rounds_world import Small, hyper, measure, splits, small
from impq_opt.rounds import rounds
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
network = small()
network.drop.p = 0.0
rounds(network, splits(), hyper(rounds=2), sys.argv[2], measure=measure)
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(script), str(HERE / "worlds")]
    done = subprocess.run(
        [*command, str(tmp_path / "two")], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    network = small()
    network.drop.p = 0.0
    one = rounds(network, splits(), hyper(rounds=2), tmp_path / "one", measure=measure)
    two = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert len(two) == 3
    # Batch-norm sees half a batch in each process, so the runs are alike, not equal.
    for a, b in zip(one, two, strict=True):
        assert b["accuracy"]["validation"] == pytest.approx(a["accuracy"]["validation"], abs=0.15)
    assert two[-1]["accuracy"]["validation"] > 0.6
    assert two[-1]["cost"] <= two[-1]["budget"]["storage"]


def test_packed_rounds_cost_what_the_log_says(tmp_path):
    records = rounds(small(), splits(), hyper(rounds=1, epochs=0, start_epochs=0), tmp_path, measure=measure)
    problem = load_problem(tmp_path / "round-01.problem.toml")
    packed = unpack(tmp_path / "round-01.packed.safetensors")
    assert np.concatenate(list(packed.bits.values())).tolist() == records[1]["bits"][:18]
    assert storage_bits(quantize(Small(), problem, records[1]["bits"])) == records[1]["cost"]
