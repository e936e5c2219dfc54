"""The README's examples run as they are printed; and the runner of examples catches those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from readme import ROOT, Block, ExampleError, Examples, blocks_of

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_of(TEXT)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examples, list[int]]:
    return Examples(tmp_path_factory.mktemp("readme")), []


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda n: f"line{BLOCKS[n].line}-{BLOCKS[n].language}")
def test_example(number: int, examples: Any) -> None:
    state, done = examples
    for earlier in range(number + 1):  # also where this test is run alone
        if earlier not in done:
            done.append(earlier)
            state.run(BLOCKS[earlier])
    if BLOCKS[number].skip:
        pytest.skip(BLOCKS[number].skip)


def test_every_fence_is_a_block() -> None:
    assert sum(line.startswith("```") for line in TEXT.splitlines()) == 2 * len(BLOCKS)


PROBLEM = """```toml
# small.toml
format = "impq-opt problem"
format_version = 1
groups = [
    {name = "conv", size = 9216, sensitivity = 2.1531e-5},
    {name = "fc", size = 432, sensitivity = 1.64e-7},
]
```
"""

GOOD = (
    PROBLEM
    + """
```console
$ impq-opt solve small.toml --bound 1e-6 --bits 2,4,8
small.toml: 2 groups, least storage with mismatch bound <= 1e-06

exact              optimal
storage            4.605 KiB
...
time               ...ms
...
$ impq-opt solve small.toml \\
    --bound 1e-6 -o answer.json
$ impq-opt verify small.toml answer.json | tail -n 1
Everything it states is proved here.
$ impq-opt solve small.toml --bound 1e-99 --json | grep status
  "status": "infeasible",
$ impq-opt solve small.toml --bound 1e-99
...
$ echo $?
1
$ pip install nothing-at-all
```

```python
import impq_opt
from impq_opt import files
problem = files.load_problem("small.toml")
```

```python
answer = impq_opt.solve(problem, bound=1e-6)
print(answer.status.value)  # optimal
print(
    answer.damage
)  # 3.77...e-07
```

```python
>>> answer.gap
0.0
```

<!-- not run: needs a day -->
```console
$ impq-opt measure everything
```

```sh
pip install .  &&  impq-opt solve --bound 0.01   # no torch needed
```
"""
)

WRONG = {
    "output": "```console\n$ impq-opt solve small.toml --bound 1e-6\nsmall.toml: 3 groups\n...\n```",
    "output ends early": "```console\n$ impq-opt solve small.toml --bound 1e-6\nsmall.toml: 2 groups...1e-06\n```",
    "status": "```console\n$ impq-opt solve small.toml --bound 1e-99\n```",
    "status, then more": "```console\n$ impq-opt solve small.toml --bound 1e-99\n$ impq-opt solvers\n```",
    "shown status": "```console\n$ impq-opt solve small.toml --bound 1e-6\n$ echo $?\n1\n```",
    "foreign command": "```console\n$ curl example.org\n```",
    "no command": "```console\nimpq-opt solve\n```",
    "python error": "```python\n1 / 0\n```",
    "python output": "```python\nprint(1 + 1)  # 3\n```",
    "doctest": "```python\n>>> 1 + 1\n3\n```",
    "problem": "```toml\n# p.toml\nformat = 'x'\n```",
    "shell": "```sh\nimpq-opt compare\n```",
    "missing problem": "```console\n$ impq-opt solve other.toml --bound 1\n```",
}


def run_all(text: str, folder: Path) -> list[Block]:
    examples, blocks = Examples(folder), blocks_of(text)
    for block in blocks:
        examples.run(block)
    return blocks


def test_good_examples_run(tmp_path: Path) -> None:
    blocks = run_all(GOOD, tmp_path)
    assert [b.language for b in blocks] == ["toml", "console", "python", "python", "python", "console", "sh"]
    assert (tmp_path / "answer.json").exists()


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_examples_are_caught(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises((ExampleError, ArithmeticError, ValueError)):
        run_all(PROBLEM + "\n" + WRONG[wrong], tmp_path)
