"""The wheel and the sdist hold what the tree holds, and the wheel alone runs the main job."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
# Where each package lies in the tree; the two links of impq_opt are the folders beside it.
PLACES = {"impq_opt/problems": "problems", "impq_opt/solvers": "solvers"}
SUFFIXES = {".py", ".typed", ".css", ".html", ".js", ".toml", ".safetensors", ".c", ".h"}


def tree() -> Any:
    """Return path in the wheel -> file, for all that belongs to the package."""
    found = {}
    for inside, place in {"impq_opt": "impq_opt", **PLACES}.items():
        for path in (ROOT / place).rglob("*"):
            relative = path.relative_to(ROOT / place).as_posix()
            through_link = place == "impq_opt" and relative.split("/")[0] in ("problems", "solvers")
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in relative and not through_link:
                found[f"{inside}/{relative}"] = path
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build sdist and wheel from a copy of what git tracks, so that nothing stray gets in."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if names.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, names.stdout.decode().split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_every_file_of_the_package(built: Any) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        # Sources of compiled parts stay in the sdist.
        expected = {name: path for name, path in tree().items() if not name.endswith((".c", ".h"))}
        assert expected.keys() <= names
        extra = {name for name in names - expected.keys() if not name.endswith((".so", ".pyd", ".c", ".h"))}
        assert extra == set()
        for name, path in expected.items():
            assert wheel.read(name) == path.read_bytes()


def test_the_wheel_puts_one_name_in_site_packages(built: Any) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {"impq_opt"}


def test_the_sdist_can_build_the_wheel_again(built: Any) -> None:
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md"} <= names
    missing = [name for name, path in tree().items() if path.relative_to(ROOT).as_posix() not in names]
    assert missing == []


def test_every_package_of_the_tree_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {name.rpartition("/")[0].replace("/", ".") for name in tree() if name.endswith(".py")}
    assert folders <= declared


def test_the_wheel_alone_runs_the_main_job(built: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(site)
    code = (
        "import sys, impq_opt, impq_opt.cli;"
        "assert impq_opt.__file__.startswith(sys.argv[1]), impq_opt.__file__;"
        "found = impq_opt.allocate([[1, 2], [1, 2]], [[0.5, 0.1], [0.3, 0.2]], bound=0.5);"
        "assert found.choice.tolist() == [1, 0], found;"
        "assert found.status.value == 'optimal';"
        "raise SystemExit(impq_opt.cli.run(['solvers']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(site)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exact" in done.stdout


def test_importing_is_light() -> None:
    code = (
        "import sys, impq_opt;"
        "heavy = {'torch', 'scipy', 'numba', 'matplotlib', 'pulp', 'rich', 'networkx'} & set(sys.modules);"
        "raise SystemExit(str(sorted(heavy)) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
