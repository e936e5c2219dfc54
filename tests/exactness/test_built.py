"""A build of other C sources than those beside it is not used, and says so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import impq_opt
from impq_opt.exactness import build

ROOT = Path(__file__).parents[2]
PARTS = {
    "impq_opt.exactness._exact": "impq_opt/exactness/_exact.c",
    "impq_opt.solvers.native._kernel": "solvers/native/_kernel.c",
}
WORDS = "compiled parts of impq-opt were built from other C sources than those beside them"


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of the sources with a build beside it, as an editable install has them."""
    for file in (ROOT / "impq_opt" / "exactness").glob("*.[ch]"):
        shutil.copy(file, tmp_path)
    (tmp_path / "_built.py").write_text(Path(build.__file__).read_text())
    spec = spec_from_file_location("built_copy", tmp_path / "_built.py")
    assert spec is not None and spec.loader is not None
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    monkeypatch.setattr(copy, "PURE", False)
    built = type(sys)("somewhere._exact")
    built.__file__ = str(tmp_path / "_exact.so")
    vars(built)["SOURCES"] = copy.source_digest(tmp_path / "_exact.c")
    monkeypatch.setitem(sys.modules, "somewhere", type(sys)("somewhere"))
    monkeypatch.setitem(sys.modules, "somewhere._exact", built)
    return copy, built, tmp_path


def test_a_build_of_the_sources_beside_it_is_used(part: Any) -> None:
    copy, built, _ = part
    assert copy.load("somewhere._exact") is built


@pytest.mark.parametrize("changed", ["_exact.c", "_sums.h", "_new.h"])
def test_a_build_of_other_sources_is_not_used_and_says_so(part: Any, changed: str) -> None:
    copy, _, folder = part
    with (folder / changed).open("a") as file:
        file.write("/* changed */\n")
    with pytest.warns(RuntimeWarning, match=WORDS):
        assert copy.load("somewhere._exact") is None


def test_a_build_from_before_digests_is_an_old_one(part: Any) -> None:
    copy, built, _ = part
    del built.SOURCES
    with pytest.warns(RuntimeWarning, match=WORDS):
        assert copy.load("somewhere._exact") is None


def test_without_sources_there_is_nothing_to_compare(part: Any) -> None:
    copy, built, folder = part
    (folder / "_exact.c").unlink()
    built.SOURCES = "anything"
    assert copy.load("somewhere._exact") is built


def test_what_was_not_built_is_none(part: Any) -> None:
    assert part[0].load("somewhere._stars") is None


def test_several_old_parts_warn_once() -> None:
    code = f"""
import sys, types, warnings
sys.path.insert(0, {str(ROOT)!r})
from impq_opt.exactness import build as _built
for name, place in {PARTS!r}.items():
    sys.modules[name] = module = types.ModuleType(name)
    module.__file__ = {str(ROOT)!r} + "/" + place
    assert _built.load(name) is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(WORDS) == 1


@pytest.mark.parametrize("name", PARTS)
def test_the_builds_of_this_checkout_are_up_to_date(name: Any) -> None:
    pytest.importorskip(name)
    if Path(impq_opt.__file__).parents[1] != ROOT or build.PURE:
        pytest.skip("another installation is tested, or NumPy in any case")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build.load(name) is not None
