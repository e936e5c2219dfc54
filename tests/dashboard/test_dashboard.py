"""The dashboard: what it finds in a folder, what it answers, whom it answers, and the page in a driven browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdriver import DRIVER, Browser, driven

from impq_opt import Group, GroupNames, Problem, frontier, solve, verify
from impq_opt.cli import run
from impq_opt.dashboard import Folder, Server
from impq_opt.dashboard.desk import Desk, Question, SupersededError
from impq_opt.dashboard.folder import _kind
from impq_opt.errors import FileError
from impq_opt.files import Revision, load_allocation, load_problem, save_allocation, save_problem
from impq_opt.problem.allocation import Allocation, Stop
from impq_opt.rounds.record import Accuracy, Cost, Effective, Record, write_records

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

EVIL = "conv</script><script>alert(1)</script>"


def network(groups: int = 4, seed: int = 0) -> Problem:
    """Return a kernel-wise problem with an activation, and a name that a page must not run."""
    rng = np.random.default_rng(seed)
    names = GroupNames((EVIL, "layer1.conv", "relu"), ((groups,), (2 * groups,), ()))
    sizes = np.concatenate([np.full(groups, 27), np.full(2 * groups, 36), [1024]])
    kinds = np.concatenate([np.zeros(3 * groups, dtype=int), [1]])
    sensitivities = 10 ** rng.uniform(-2, 1, len(sizes))
    return Problem.from_sensitivities(
        sizes, sensitivities, names=names, kinds=kinds, bound=0.05, objective={"representational": 1}
    )


def coupled() -> Problem:
    """Return a problem whose cost has no hull."""
    groups = [
        Group("conv", size=9, sensitivity=1.0, macs=100, reads="x"),
        Group("x", size=10, sensitivity=1.0, kind="activation"),
    ]
    return Problem.declare(groups, minimize="bit-operations", bound=0.1)


def flat() -> Problem:
    """Return a problem whose activations cost nothing, so that they take the most bits they may."""
    return Problem.from_sensitivities(
        [27, 36, 100, 100], [1, 0.5, 0.3, 0.2], names=["a", "b", "relu1", "relu2"], kinds=[0, 0, 1, 1], bound=0.1
    )


def write_run(folder: Path, seed: int = 0) -> None:
    """Write a run of two rounds as ``impq-opt rounds`` keeps it."""
    folder.mkdir(parents=True)
    problem, records = replace(network(), bound=None), []
    for number, bound in enumerate((0.01, 0.1)):
        save_problem(problem, folder / f"round-{number:02}.problem.toml")
        found = solve(problem, bound=bound)
        record = Record(
            round=number, strategy="exact", seed=seed, epochs=1, total_epochs=number + 1, loss=0.5, versions={},
            bits=[int(b) for b in found.bits], cost=int(found.cost), costs={"storage": Cost(float(found.cost), "bit")},
            effective_bits=Effective(*found.effective_bits), compression_ratio=found.compression_ratio,
            damage=found.damage, damage_unit="mismatch probability bound", status="optimal",
            accuracy=Accuracy(0.95, 0.9 - 0.01 * number, None),
        )  # fmt: skip
        records.append(record)
    write_records(folder / "log.jsonl", records)


def fill(folder: Path) -> None:
    """Write one of everything, and what is none of it."""
    problem = network()
    save_problem(problem, folder / "problem.toml")
    save_problem(coupled(), folder / "coupled.toml")
    save_problem(flat(), folder / "flat.toml")
    (folder / "deep").mkdir()
    save_allocation(solve(problem), folder / "deep" / "plain.json")
    revision = Revision(pins={"relu": 8})
    pinned = solve(revision.apply(problem), bound=0.02)
    save_allocation(pinned, folder / "deep" / "pinned.json", base=problem, revision=revision)
    write_run(folder / "run")
    (folder / "cut.toml").write_text((folder / "problem.toml").read_text()[:300])
    (folder / "cut.json").write_text('{"format": "impq-opt allocation", "status"')
    (folder / "foreign.json").write_text('{"name": "somebody else\'s", "score": NaN}')
    (folder / "empty.json").write_text("")
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "problem.toml").write_text("format =")


@dataclass
class Client:
    """Asks as the page does."""

    server: Server

    def send(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, content and headers of a path below the token's, or of an absolute one."""
        token = self.server.address.split("/")[3]
        own = {"Host": f"127.0.0.1:{self.server.port}"}
        if method == "POST":
            own |= {"Origin": f"http://127.0.0.1:{self.server.port}", "Content-Type": "application/json"}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[misc]
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.putrequest(method, path if path.startswith("/") else f"/{token}/{path}", skip_host=True)
            for name, value in own.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(data or b"")))
            connection.endheaders(data)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def told(self, path: str, body: Any = None) -> Any:
        """Return the answer to a question that has one."""
        status, content, _ = self.send("GET" if body is None else "POST", "api/" + path, body)
        assert status == 200, content
        return json.loads(content)

    def key(self, path: str) -> str:
        """Return what the item at ``path`` is called."""
        return next(str(item["key"]) for item in self.told("items")["items"] if item["path"] == path)


@contextmanager
def serving(folder: Path) -> Iterator[Client]:
    server = Server(folder)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Client(server)
    finally:
        server.stop()
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("a <b>folder")
    fill(folder)
    with serving(folder) as client:
        yield client


# -- what is in the folder -----------------------------------------------------------------------------------------


def test_everything_is_listed_and_what_cannot_be_read_says_why(client: Client) -> None:
    items = {item["path"]: item for item in client.told("items")["items"]}
    assert {path: item["kind"] for path, item in items.items()} == {
        "coupled.toml": "problem", "flat.toml": "problem", "problem.toml": "problem", "deep/plain.json": "allocation",
        "deep/pinned.json": "allocation", "run": "run", "run/round-00.problem.toml": "problem",
        "run/round-01.problem.toml": "problem", "cut.toml": "broken", "cut.json": "broken",
        "empty.json": "broken",
    }  # fmt: skip
    assert "is not valid TOML" in items["cut.toml"]["error"]
    assert items["empty.json"]["error"].startswith("empty.json: is not valid JSON")
    assert "cut.json: is not an allocation" in items["cut.json"]["error"]
    assert items["problem.toml"]["groups"] == 13
    assert items["run"]["validation"] == pytest.approx(0.89)
    assert items["deep/plain.json"]["digest"] == items["problem.toml"]["digest"]


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    save_problem(coupled(), tmp_path / "a.toml")
    folder = Folder(tmp_path)
    (before,) = folder.items()
    assert folder.items() == [before]
    text = (tmp_path / "a.toml").read_text()
    (tmp_path / "a.toml").write_text(text.replace("size = 9", "size = 99"))
    (after,) = folder.items()
    assert after.key == before.key
    assert after.stamp != before.stamp
    assert folder.subject(after.key).base.sizes.tolist() == [99, 10]
    (tmp_path / "a.toml").write_text(text[:60])
    assert folder.items()[0].kind == "broken"
    (tmp_path / "a.toml").unlink()
    with pytest.raises(FileError, match="is not in the folder any more"):
        folder.subject(after.key)
    assert folder.items() == []


def test_foreign_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> str | None:
        read.append(path.name)
        return _kind(path)

    monkeypatch.setattr("impq_opt.dashboard.folder._kind", counted)
    (tmp_path / "foreign.json").write_text("{}")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    folder = Folder(tmp_path)
    assert folder.items() == []
    assert {*read} == {"foreign.json", "pyproject.toml"}
    read.clear()
    assert folder.items() == [] and read == []
    save_problem(network(), tmp_path / "pyproject.toml")
    assert [item.kind for item in folder.items()] == ["problem"]


def test_an_allocation_is_opened_anew_when_its_problem_changes(tmp_path: Path) -> None:
    problem = coupled()
    save_problem(problem, tmp_path / "p.toml")
    save_allocation(solve(problem), tmp_path / "a.json")
    folder = Folder(tmp_path)
    (key,) = [item.key for item in folder.items() if item.kind == "allocation"]
    first = folder.subject(key)
    assert folder.subject(key) is first
    (tmp_path / "p.toml").write_text((tmp_path / "p.toml").read_text().replace("size = 9", "size = 99"))
    with pytest.raises(FileError, match="no problem with its digest"):
        folder.subject(key)
    save_problem(problem, tmp_path / "other.toml")
    assert folder.subject(key).base.digest == problem.digest


def test_an_allocation_of_the_gallery_needs_no_problem_beside_it(tmp_path: Path) -> None:
    from impq_opt import problems

    save_allocation(solve(problems.load(), bound=0.01), tmp_path / "a.json")
    folder = Folder(tmp_path)
    (item,) = folder.items()
    assert folder.subject(item.key).base.digest == problems.load().digest
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace(problems.load().digest, "0" * 64))
    folder.items()
    with pytest.raises(FileError, match="no problem with its digest is in the folder or in the gallery"):
        folder.subject(item.key)


# -- what is answered ----------------------------------------------------------------------------------------------


def test_a_bound_is_answered_as_solve_does(client: Client) -> None:
    key, problem = client.key("problem.toml"), network()
    told = client.told(f"subjects/{key}")
    assert [layer["name"] for layer in told["layers"]] == [EVIL, "layer1.conv", "relu"]
    assert [layer["groups"] for layer in told["layers"]] == [4, 8, 1]
    curve = client.told(f"subjects/{key}/curve", {})
    hull = frontier(problem)
    assert curve["breakpoints"] == len(hull)
    assert curve["range"]["damage"] == [hull.damage[-1], hull.damage[0]]
    assert curve["start"]["damage"] == 0.05
    for bound in (0.01, 0.05, 1.0):
        found, expected = (
            client.told(f"subjects/{key}/solve", {"limit": "damage", "value": bound}),
            solve(problem, bound=bound),
        )
        assert (found["status"], found["costValue"]) == ("optimal", expected.cost)
        assert found["damageValue"] == expected.damage
        bits = [layer["bits"] for layer in found["layers"]]
        assert bits == pytest.approx([expected.bits[:4].mean(), expected.bits[4:12].mean(), expected.bits[12]])


def test_a_budget_is_answered_as_solve_does(client: Client) -> None:
    key = client.key("problem.toml")
    found = client.told(f"subjects/{key}/solve", {"limit": "cost", "value": 4000, "minimize": "storage"})
    expected = solve(network(), budget=4000, minimize="storage")
    assert (found["minimizes"], found["damageValue"]) == ("damage", expected.damage)
    assert found["costValue"] <= 4000


def test_pins_of_layers_and_groups_are_kept_and_shown(client: Client) -> None:
    key = client.key("problem.toml")
    question = {
        "limit": "damage",
        "value": 0.05,
        "pins": [{"layer": 2, "to": "4"}, {"layer": 0, "group": 1, "to": "8"}],
    }
    expected = solve(network().revise(pins={"relu": 4, f"{EVIL}[1]": 8}), bound=0.05)
    cold = client.told(f"subjects/{key}/solve", question)
    client.told(f"subjects/{key}/curve", {"pins": question["pins"]})
    warm = client.told(f"subjects/{key}/solve", question)
    for found in (cold, warm):
        assert found["costValue"] == expected.cost
        assert [layer["pinned"] for layer in found["layers"]] == [1, 0, 1]
        assert found["layers"][2]["bits"] == 4
    groups = client.told(f"answers/{warm['key']}/groups?layer=0&first=1")
    assert groups["total"] == 4
    assert [group["name"] for group in groups["groups"]] == [f"{EVIL}[{k}]" for k in (1, 2, 3)]
    assert [group["bits"] for group in groups["groups"]] == expected.bits[1:4].tolist()
    assert groups["groups"][0]["pinned"] is True


def test_what_is_downloaded_is_an_allocation_that_verify_proves(client: Client, tmp_path: Path) -> None:
    for name, pin in (("problem.toml", 0), ("deep/pinned.json", 1)):
        question = {"limit": "damage", "value": 0.05, "pins": [{"layer": pin, "to": "6"}]}
        found = client.told(f"subjects/{client.key(name)}/solve", question)
        status, content, headers = client.send("GET", f"api/answers/{found['key']}/file")
        assert status == 200
        stem = name.rpartition("/")[2].partition(".")[0]
        assert headers["content-disposition"] == f'attachment; filename="{stem}.allocation.json"'
        (tmp_path / "a.json").write_bytes(content)
        problem = load_problem(client.server.folder.root / "problem.toml")
        answer = load_allocation(tmp_path / "a.json", problem)
        assert answer.cost == found["costValue"]
        assert verify(answer.problem, answer).proved
        assert (answer.bits[12] == 8) == (name == "deep/pinned.json")


def test_an_allocation_is_shown_as_its_file_states_it(client: Client) -> None:
    told = client.told(f"subjects/{client.key('deep/pinned.json')}")
    stored = solve(network().revise(pins={"relu": 8}), bound=0.02)
    assert told["revised"] is True
    assert told["answer"]["claimed"] is True
    assert told["answer"]["costValue"] == stored.cost
    assert told["answer"]["bound"] == 0.02
    assert told["mean"][2] == 8


def test_what_has_no_hull_is_solved_all_the_same(client: Client) -> None:
    key = client.key("coupled.toml")
    curve = client.told(f"subjects/{key}/curve", {})
    assert curve["breakpoints"] == 0
    assert "couples them" in curve["reason"]
    assert curve["range"]["damage"][0] < 0.1 < curve["range"]["damage"][1]
    found = client.told(f"subjects/{key}/solve", {"limit": "damage", "value": 0.1})
    assert (found["status"], found["costValue"]) == ("optimal", solve(coupled()).cost)


def test_what_is_out_of_reach_is_told(client: Client) -> None:
    found = client.told(f"subjects/{client.key('problem.toml')}/solve", {"limit": "damage", "value": 1e-12})
    assert found["status"] == "infeasible"
    assert "the smallest reachable damage is" in found["diagnosis"]
    assert "layers" not in found


def test_budgets_of_the_file_hold_whatever_the_hull_says(tmp_path: Path) -> None:
    problem = network(1).revise(minimize="storage", budgets={"representational": 3000})
    save_problem(problem, tmp_path / "p.toml")
    folder, desk = Folder(tmp_path), Desk()
    subject = folder.subject(folder.items()[0].key)
    question = Question(limit="damage", value=0.0705)
    desk.swept(subject, question)
    found = desk.solve(subject, question).allocation
    assert found.objective == solve(problem, bound=0.0705).objective
    assert found.objective > solve(network(1), bound=0.0705, minimize="storage").objective


def test_the_newest_question_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_problem(network(), tmp_path / "p.toml")
    folder, desk, told = Folder(tmp_path), Desk(), []
    subject = folder.subject(folder.items()[0].key)
    started = threading.Event()

    def endless(instance: Any, strategy: Any, control: Any, began: float) -> Allocation:
        started.set()
        while not control.interrupted:
            time.sleep(0.001)
        return replace(solve(network()), stop=Stop.INTERRUPTED)

    def ask() -> None:
        try:
            desk.solve(subject, Question(limit="damage", value=0.5), seconds=60)
        except SupersededError as error:
            told.append(str(error))

    with monkeypatch.context() as patched:
        patched.setattr("impq_opt.dashboard.desk.answer", endless)
        first = threading.Thread(target=ask)
        first.start()
        assert started.wait(20)
        patched.undo()
        found = desk.solve(subject, Question(limit="damage", value=0.1))
        first.join(20)
    assert told == ["a newer question to this problem came"]
    assert found.allocation.cost == solve(network(), bound=0.1).cost


def test_runs_are_shown_round_by_round(client: Client) -> None:
    told = client.told(f"runs/{client.key('run')}")
    assert [row["round"] for row in told["rows"]] == [0, 1]
    (line,) = told["figure"]["series"]
    assert line["y"] == pytest.approx([90, 89])
    assert [row["problem"] for row in told["rows"]] == [client.key(f"run/round-0{k}.problem.toml") for k in (0, 1)]
    last = client.told(f"subjects/{told['rows'][1]['problem']}")
    assert last["run"] == {"key": client.key("run"), "round": 1}
    assert last["mean"][2] == solve(replace(network(), bound=None), bound=0.1).bits[12]


def test_a_folder_may_be_a_run_itself(tmp_path: Path) -> None:
    write_run(tmp_path / "mine")
    folder = Folder(tmp_path / "mine")
    assert [(item.shown, item.kind) for item in folder.items()] == [
        ("mine", "run"), ("round-00.problem.toml", "problem"), ("round-01.problem.toml", "problem"),
    ]  # fmt: skip
    run, *rounds = folder.items()
    assert [folder.run_of(item) for item in rounds] == [(run.key, 0), (run.key, 1)]
    assert len(folder.records(run.key)[1]) == 2


def test_several_are_compared(client: Client) -> None:
    names = ("problem.toml", "coupled.toml", "deep/plain.json", "deep/pinned.json", "run")
    told = client.told("compare?keys=" + ",".join(map(client.key, names)))
    (figure,) = told["figures"]
    assert {line["name"]: line["style"] for line in figure["series"]} == {
        "problem.toml": "line", "deep/plain.json": "ring", "deep/pinned.json": "ring",
    }  # fmt: skip
    assert told["without"][0][0] == "coupled.toml"
    assert [row["path"] for row in told["allocations"]] == ["deep/plain.json", "deep/pinned.json"]
    (layers,) = told["layers"]
    (relu,) = [row for row in layers["rows"] if row["name"] == "relu"]
    assert relu["bits"] == [solve(network()).bits[12], 8]
    assert len(told["rounds"]["rows"]) == 2


# -- whom it answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/api/items", "/{wrong}/", "/{short}/api/items", "/{token}x/", "//{token}/", "/%00"]
)
def test_without_the_token_nothing_is_told(client: Client, path: str) -> None:
    token = client.server.address.split("/")[3]
    path = path.format(token=token, short=token[:-1], wrong="x" * len(token))
    for method in ("GET", "POST"):
        status, content, headers = client.send(method, path, b"{}" if method == "POST" else None)
        assert status == 401
        assert content == b"Open the address that impq-opt dashboard printed: it has a token.\n"
        assert headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "", None])
def test_another_name_that_points_here_is_refused(client: Client, host: str | None) -> None:
    name = None if host is None else host.format(port=client.server.port)
    status, content, _ = client.send("GET", "", Host=name)
    assert status in (400, 421)
    assert b"folder" not in content


def test_localhost_is_this_machine(client: Client) -> None:
    assert client.send("GET", "", Host=f"localhost:{client.server.port}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": None}, {"Origin": "null"}, {"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:1"},
        {"Content_Type": "text/plain"}, {"Content_Type": None},
    ],
)  # fmt: skip
def test_other_pages_cannot_ask(client: Client, headers: dict[str, str | None]) -> None:
    path = f"api/subjects/{client.key('problem.toml')}/solve"
    status, content, _ = client.send("POST", path, {"limit": "damage", "value": 0.1}, **headers)
    assert (status, content) == (403, b"Only the dashboard's own page may ask this.\n")


def test_what_works_is_asked_by_post_and_what_is_read_by_get(client: Client) -> None:
    key = client.key("problem.toml")
    for path in (f"api/subjects/{key}/solve", f"api/subjects/{key}/curve"):
        assert client.send("GET", path)[0] == 405
    for path in ("", "api/items", f"api/subjects/{key}", "api/compare", "page.js"):
        assert client.send("POST", path, {})[0] == 405
    assert client.send("DELETE", "api/items", Origin=client.server.address[:-1])[0] == 403


def test_every_answer_has_the_headers_that_keep_the_page_to_itself(client: Client) -> None:
    for path in ("", "page.js", "charts.js", "page.css", "report.css", "api/items", "api/runs/x", "nothing", "/"):
        _, _, headers = client.send("GET", path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert not {"access-control-allow-origin", "server"} & set(headers)


@pytest.mark.parametrize(
    "path",
    [
        "../problem.toml",
        "api/../problem.toml",
        "page.py",
        "%2e%2e/problem.toml",
        "problem.toml",
        "api/subjects/..%2Fproblem.toml",
    ],
)
def test_paths_name_no_files(client: Client, path: str) -> None:
    status, content, _ = client.send("GET", path)
    assert status in (401, 404)
    assert b"format" not in content


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    save_problem(network(200), outside / "big.toml")  # with arrays beside it
    save_problem(coupled(), outside / "small.toml")
    (inside / "link.toml").symlink_to(outside / "small.toml")
    (inside / "folder").symlink_to(outside)
    (inside / "big.toml").write_text((outside / "big.toml").read_text())
    (inside / "big.safetensors").symlink_to(outside / "big.safetensors")
    (inside / "circle.toml").symlink_to(inside / "circle.toml")
    save_problem(coupled(), inside / "own.toml")
    (inside / "again.toml").symlink_to(inside / "own.toml")
    items = {item.shown: item for item in Folder(inside).items()}
    assert {name: item.kind for name, item in items.items()} == {
        "link.toml": "broken", "big.toml": "broken", "own.toml": "problem", "again.toml": "problem",
    }  # fmt: skip
    assert items["big.toml"].error == "big.safetensors: is a link that leads out of the folder"


def test_names_are_text_wherever_they_come_from(client: Client) -> None:
    page = client.send("GET", "")[1].decode()
    assert "a &lt;b&gt;folder" in page
    assert "<b>folder" not in page
    for path in ("api/items", f"api/subjects/{client.key('problem.toml')}"):
        assert b"<" not in client.send("GET", path)[1]


def test_the_page_loads_its_own_files_alone(client: Client) -> None:
    page = client.send("GET", "")[1].decode()
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert set(links) == {"charts.js", "page.js", "page.css", "report.css", "data:,", "#view"}
    assert not re.search(r"<script>|<style|style=|onclick=", page)
    for link in links[1:]:
        if "." in link:
            status, content, _ = client.send("GET", link)
            assert status == 200
            assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(|@import|url\(", content)


# -- wrong input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not a question"),
        (b"[" * 100_000, "is not a question"),
        (b"[1]", "is not a question"),
        (b"\xff", "is not a question"),
        ({"limit": "time", "value": 1}, "is not a question: Invalid enum value"),
        ({"limit": "damage"}, "missing required field `value`"),
        ({"limit": "damage", "value": "x"}, "is not a question"),
        ({"limit": "damage", "value": -1}, "limit: must be a number >= 0, got -1.0"),
        (b'{"limit": "damage", "value": 1e999}', "is not a question"),
        ({"limit": "damage", "value": 1, "minimize": "storag"}, "did you mean 'storage'?"),
        ({"limit": "damage", "value": 1, "more": 1}, "unknown field `more`"),
        ({"limit": "damage", "value": 1, "pins": [{"layer": 9, "to": "8"}]}, "pins: there is no such layer, got 9"),
        ({"limit": "damage", "value": 1, "pins": [{"layer": -1, "to": "8"}]}, "there is no such layer"),
        ({"limit": "damage", "value": 1, "pins": [{"layer": 1, "group": 8, "to": "8"}]}, "there is no such group"),
        ({"limit": "damage", "value": 1, "pins": [{"layer": 1, "to": "99"}]}, "not among its candidates"),
        ({"limit": "damage", "value": 1, "pins": [{"layer": 1, "to": "8"}] * 2001}, "more than 2000 pins"),
        (
            {"limit": "damage", "value": 1, "pins": [{"layer": 1, "to": "8"}, {"layer": 1, "group": 0, "to": "2"}]},
            "is pinned twice",
        ),
        (b"x" * (1 << 21), "is longer than a question can be"),
    ],
)  # fmt: skip
def test_a_wrong_question_gets_one_sentence(client: Client, body: Any, says: str) -> None:
    status, content, _ = client.send("POST", f"api/subjects/{client.key('problem.toml')}/solve", body)
    error = json.loads(content)["error"]
    assert status == 400
    assert says in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("api/subjects/nothing", 404, "is not in the folder any more"),
        ("api/subjects/{run}", 404, "run: is neither a problem nor an allocation"),
        ("api/subjects/{cut.toml}", 404, "is not valid TOML"),
        ("api/runs/{problem.toml}", 404, "problem.toml: is not a run"),
        ("api/compare", 400, "compare: must be 1 to 8 items, got 0"),
        ("api/compare?keys=a,b,c,d,e,f,g,h,i", 400, "got 9"),
        ("api/answers/gone/groups?layer=0", 400, "is not kept any more"),
        ("api/answers/gone/file", 400, "is not kept any more"),
        ("api/answers/gone/groups?layer=x", 400, "layer"),
    ],
)
def test_what_is_not_there_is_told_in_one_sentence(client: Client, path: str, status: int, says: str) -> None:
    named = re.sub(r"\{(.*?)\}", lambda found: client.key(found[1]), path)
    answer, content, _ = client.send("GET", named)
    assert answer == status
    assert says in json.loads(content)["error"]


def test_a_fault_is_told_as_one(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impq_opt.dashboard.app.item_view", lambda item: 1 / 0)
    status, content, _ = client.send("GET", "api/items")
    assert status == 500
    assert json.loads(content)["error"].startswith("this is a fault of impq-opt")


# -- the command ---------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    with serving(tmp_path) as client:
        for arguments, says in (
            ([str(tmp_path / "none")], "there is no such folder"),
            ([str(tmp_path / "file")], "is a file, not a folder"),
            ([str(tmp_path), "--port", "99999"], "--port: must be a port, 0 to 65535, got 99999"),
            (
                [str(tmp_path), "--port", str(client.server.port)],
                "--port: cannot be listened on: Address already in use",
            ),
        ):
            assert run(["dashboard", *arguments]) == 2
            err = capsys.readouterr().err
            assert says in err
            assert err.count("\n") == 1


def test_without_the_server_library_the_install_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["dashboard", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err == "impq-opt: the dashboard needs the package 'uvicorn': pip install 'impq-opt[dashboard]'\n"


@pytest.mark.parametrize(("screen", "flags"), [(True, []), (False, []), (True, ["--no-open"])])
def test_the_address_is_printed_and_opened_where_there_is_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], screen: bool, flags: list[str]
) -> None:
    opened = threading.Event()
    monkeypatch.setattr("webbrowser.open", lambda address: opened.set())
    monkeypatch.setattr("impq_opt.cli.dashboard._has_screen", lambda: screen)
    monkeypatch.setattr(Server, "run", lambda server: server._socket.close())
    assert run(["dashboard", str(tmp_path), "--json", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", told["address"])
    assert told["folder"] == str(tmp_path)
    assert opened.wait(5 if screen and not flags else 0) == (screen and not flags)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_command_serves_until_ctrl_c_and_writes_nothing(tmp_path: Path) -> None:
    save_problem(coupled(), tmp_path / "p.toml")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    command = [sys.executable, "-m", "impq_opt", "dashboard", str(tmp_path), "--no-open"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{32})/", address)
        assert found
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", f"/{found[2]}/api/items")
        assert json.load(connection.getresponse())["items"][0]["path"] == "p.toml"
        process.send_signal(signal.SIGINT)  # with a connection that is kept open
        out, err = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, out, err) == (130, "", "impq-opt: interrupted\n")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


# -- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if DRIVER is None:
        pytest.skip("chromedriver is not installed")
    with driven() as browser:
        yield browser


def answered(browser: Browser) -> str:
    """Return the headline once an answer is there."""
    return str(browser.until("document.querySelector('#headline')?.textContent"))


SLIDE = """
document.querySelector("#headline").textContent = "";
const slider = document.querySelector("#bound");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""
CHOOSE = """
document.querySelector("#headline").textContent = "";
const select = document.querySelectorAll(arguments[0])[arguments[1]];
select.value = arguments[2];
select.dispatchEvent(new Event("change"));
"""
UNNAMED = """return [...document.querySelectorAll("input, select, button, a")].filter(
  (e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).length"""
DRAWN = "[...document.querySelectorAll('main .chart')].every((c) => c.querySelector('circle, rect, path'))"
TILE = "[...document.querySelectorAll('.tiles div')].map((tile) => tile.querySelector('dd').firstChild.textContent)"


def test_the_slider_pins_and_the_download_work_in_a_browser(client: Client, browser: Browser) -> None:
    problem = network()
    browser.size(1200, 900)
    browser.open(client.server.address)
    browser.until("document.querySelectorAll('#items li').length == 11")
    browser.click(f"#items a[href='#open={client.key('problem.toml')}']")
    browser.until("document.querySelector('#bound')")
    assert "damage at most 0.05" in answered(browser)
    assert browser.run(f"return {TILE}")[:2] == [f"{solve(problem).cost} bit", f"{solve(problem).damage:.4g}"]

    # the ends of the slider are the ends of the hull
    hull = frontier(problem)
    for place, at in ((1000, 0), (0, -1)):
        browser.run(SLIDE, place)
        answered(browser)
        assert browser.run(f"return {TILE}")[1] == f"{hull.damage[at]:.4g}"

    # by keyboard: a step of the slider, then a bound in the field
    browser.run("document.querySelector('#headline').textContent = ''")
    browser.keys("#bound", "\ue014")
    answered(browser)
    assert browser.run("return document.querySelector('#bound').value") == "1"
    browser.run("document.querySelector('#headline').textContent = ''; document.querySelector('#limit').select()")
    browser.keys("#limit", "0.1\ue007")
    assert "damage at most 0.1" in answered(browser)

    # pin a layer, then a kernel of another one
    browser.run(CHOOSE, "select[aria-label='pin relu activation']", 0, "4")
    answered(browser)
    browser.click("main td.name button")
    browser.until("document.querySelectorAll('tr.inner tbody tr').length == 4")
    browser.run(CHOOSE, "tr.inner select", 1, "7")
    answered(browser)
    pinned = solve(problem.revise(pins={"relu": 4, f"{EVIL}[1]": 7}), bound=0.1)
    assert browser.run(f"return {TILE}")[1] == f"{pinned.damage:.4g}"
    assert browser.run("return document.querySelectorAll('.chips button').length") == 3

    # what is downloaded is what is shown
    path = browser.run("return document.querySelector('#file').getAttribute('href')")
    text = client.send("GET", path)[1]
    assert json.loads(text)["cost"] == pinned.cost
    assert browser.run("return document.body.innerHTML.includes('<script>alert')") is False
    assert browser.complaints() == []


def test_what_is_constant_is_said_once(client: Client, browser: Browser) -> None:
    browser.size(1200, 900)
    browser.open("about:blank")
    browser.open(f"{client.server.address}#open={client.key('flat.toml')}")
    answered(browser)
    rows = "return [...document.querySelectorAll('main tbody tr')].filter((row) => !row.hidden).length"
    show = "[...document.querySelectorAll('main button')].find((b) => b.textContent.startsWith('Show the'))"
    assert browser.run(rows) == 2
    assert browser.run(f"return {show}.textContent") == "Show the 2 activations, all at 8 bits"
    assert "All 2 activations get 8 bits." in browser.run("return document.querySelector('main').textContent")
    browser.run(f"{show}.click()")
    assert browser.run(rows) == 4
    browser.run(CHOOSE, "select[aria-label='pin relu2 activation']", 0, "5")
    answered(browser)
    assert browser.run("return document.querySelectorAll('.chips button').length") == 1


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_every_view_fits_and_nothing_is_blocked(client: Client, browser: Browser, width: int, dark: bool) -> None:
    browser.size(width, 900, dark=dark)
    keys = {name: client.key(name) for name in ("problem.toml", "coupled.toml", "deep/pinned.json", "run")}
    places = [f"open={key}" for key in keys.values()] + ["compare=" + ",".join(keys.values())]
    browser.open("about:blank")
    browser.open(client.server.address)
    browser.until("document.querySelectorAll('#items li').length == 11")
    for place in places:
        browser.run("document.querySelector('main').replaceChildren(); location.hash = arguments[0]", place)
        browser.until("document.querySelector('main table, main .error')")
        if place.startswith("open") and keys["run"] not in place:
            answered(browser)
        assert browser.run("return [...document.querySelectorAll('main .error')].filter((e) => !e.hidden).length") == 0
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        browser.until(DRAWN)
        assert browser.run(UNNAMED) == 0
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(251, 251, 250)")
    assert browser.complaints() == []
