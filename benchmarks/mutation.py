"""Mutation testing: break the code on purpose, one line at a time, and see that a test fails.

Each mutant of _mutants.py and _mutants_judge.py is put into a copy of the tree, compiled parts are built anew where it
touches them, and the tests named for its area run. A mutant that no test notices has survived, and makes the exit
status 1: it wants a test, or a sentence on why it changes nothing. So does a mutant whose text is no longer there, and
a test that fails without any mutant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _figures import Figures
from _mutant import Mutant
from _mutants import MUTANTS, TESTS
from _needs import need

ROOT = Path(__file__).resolve().parents[1]
# Seconds for the tests of one mutant: one that never ends is noticed.
LIMIT = 200.0
_LEFT_OUT = shutil.ignore_patterns(".git", "__pycache__", "build", "docs", "results", "*.egg-info", ".*_cache")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="only look whether every mutant's text is there")
    parser.add_argument("--only", default="", help="mutants whose file or reason holds this text, or of this area")
    options = parser.parse_args()
    chosen = [one for one in MUTANTS if options.only in one.path + one.why or options.only == one.tests]
    figures = Figures()
    gone = [one for one in chosen if not fits(one)]
    for one in gone:
        print(f"GONE      {one.path}: {one.why}: {one.old!r} is not there once")
    figures.add("mutants whose text is gone", len(gone), 0, "mutants")
    if not options.quick:
        need("pytest")
        with tempfile.TemporaryDirectory(prefix="mutation-") as name:
            _run(Path(name) / "tree", [one for one in chosen if one not in gone], figures)
    return figures.finish(options.json)


def fits(mutant: Mutant) -> bool:
    """Return whether the mutant's text is in its file, once."""
    file = ROOT / mutant.path
    return file.is_file() and file.read_text().count(mutant.old) == 1


def _run(tree: Path, mutants: list[Mutant], figures: Figures) -> None:
    shutil.copytree(ROOT, tree, symlinks=True, ignore=_LEFT_OUT)
    sound = {area: passes(tree, area) for area in dict.fromkeys(one.tests for one in mutants)}
    for area, good in sound.items():
        if not good:
            print(f"UNSOUND   the tests of {area!r} fail without any mutant")
    figures.add("areas whose tests fail as they are", sum(not good for good in sound.values()), 0, "areas")
    outcomes = {"killed": 0, "SURVIVED": 0, "equivalent": 0}
    for mutant in mutants:
        if not sound[mutant.tests]:
            continue
        started = time.monotonic()
        outcome = "equivalent" if mutant.equivalent else "killed" if killed(tree, mutant) else "SURVIVED"
        outcomes[outcome] += 1
        said = f" ({mutant.equivalent})" if mutant.equivalent else ""
        print(f"{outcome:9} {mutant.path}: {mutant.why}{said} [{time.monotonic() - started:.0f} s]", flush=True)
    figures.add("mutants killed", outcomes["killed"], None, f"of {len(mutants)}")
    figures.add("mutants that change nothing", outcomes["equivalent"], None, "reason in the table")
    figures.add("mutants that survived", outcomes["SURVIVED"], 0, "mutants")


def killed(tree: Path, mutant: Mutant) -> bool:
    """Return whether a test fails, or nothing compiles, with the mutant in the tree."""
    file = tree / mutant.path
    before = file.read_bytes()
    compiled = file.suffix in (".c", ".h")
    kept = {path: path.read_bytes() for path in tree.rglob("*.so")} if compiled else {}
    try:
        file.write_bytes(before.decode().replace(mutant.old, mutant.new).encode())
        if compiled and not build(tree):
            return True
        return not passes(tree, mutant.tests)
    finally:
        file.write_bytes(before)
        for path, data in kept.items():
            path.write_bytes(data)


def passes(tree: Path, area: str) -> bool:
    """Return whether the tests of an area pass in the tree."""
    tests = [test for test in TESTS[area] if not test.startswith("tests/") or (tree / test.partition("::")[0]).exists()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return _done(command, tree)


def build(tree: Path) -> bool:
    return _done([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], tree)


def _done(command: list[str], tree: Path) -> bool:
    # Byte code is told apart by time and length of its source: a mutant may have both of the text before it.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
