"""What every exchange format must keep: nothing is lost on the way out, nothing but a sentence on a bad way in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from impq_opt.errors import ImpqError
from impq_opt.exchange import Format, Precision, Reader, Writer
from impq_opt.groups.names import GroupNames
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve
from impq_opt.testing.rules import ConformanceError, blocks, rule

__all__ = ["check_format"]

# What nobody's score file looks like.
_FOREIGN = (
    b"", b"\x00\xff\xfe", b"[]", b"{}", b"null", b"3", b'"x"', b"[[[]]]", b'{"a": NaN}', b"a,b\n1,2\n", b"{" * 5000,
    b'{"layers": [1, "x", null], "scores": {"a": -1}}',
)  # fmt: skip


def check_format(form: Format, *samples: str | Path, problem: Problem | None = None) -> None:
    """Raise ConformanceError, with the rule, unless ``form`` keeps every rule.

    The rules: it is a frozen dataclass with a name, a summary and a source. What goes out: precisions have distinct
    names and positive widths; preparing keeps the groups and counts the bits that are stored; a solved problem of two
    transformer blocks is written, twice alike, as bytes of a file; two allocations that differ are written differently;
    what the target cannot express is refused in a sentence. What comes in: each of ``samples`` is read, twice alike,
    with damages that are finite and not negative; whatever else stands in a file, a :class:`Problem` or an
    :class:`ImpqError` comes of it.

    Parameters
    ----------
    form : Format
    *samples : path
        Files of the format, for one that reads.
    problem : Problem, optional
        What is written; two transformer blocks unless given, with inputs where the format has some.

    Raises
    ------
    ConformanceError
    """
    frozen = is_dataclass(form) and type(form).__dataclass_params__.frozen
    rule(frozen, form, "it is no frozen dataclass")
    for word in ("name", "summary", "source"):
        rule(bool(getattr(form, word, "")), form, f"it has no {word}")
    rule(isinstance(form, (Reader, Writer)), form.name, "it neither reads nor writes")
    if isinstance(form, Writer):
        _check_writer(form, problem or blocks(activations=bool(form.inputs)))
    if isinstance(form, Reader):
        rule(bool(samples), form.name, "a format that reads is checked on files of it, and none were given")
        _check_reader(form, [Path(path) for path in samples])


# -- out ---------------------------------------------------------------------------------------------------------


def _check_writer(form: Writer, problem: Problem) -> None:
    precisions = form.precisions()
    names = [precision.name.casefold() for precision in precisions]
    rule(len(set(names)) == len(names), form.name, "its precisions have no names of their own")
    rule(all(p.width(problem.stored) > 0 for p in precisions), form.name, "a precision takes no bits")
    rule(bool(form.limits), form.name, "it does not say what it cannot express")
    try:
        prepared = form.prepare(problem)
        rule(list(prepared.names) == list(problem.names), form.name, "preparing changes the groups")
        _check_widths(form, prepared, precisions)
        answers = list(_answers(prepared))
        written = [form.dump(answer) for answer in answers]
        again = [form.dump(answer) for answer in answers]
    except ImpqError as error:
        raise ConformanceError(f"{form.name}: raised {error}") from error
    rule(all(isinstance(data, bytes) and data for data in written), form.name, "dump gives no bytes")
    rule(written == again, form.name, "the same allocation is written in two ways")
    said = {answer.bits.tobytes(): data for answer, data in zip(answers, written, strict=True)}
    rule(len(set(said.values())) == len(said), form.name, "two allocations that differ are written alike")
    _check_refusals(form)


def _check_widths(form: Writer, prepared: Problem, precisions: tuple[Precision, ...]) -> None:
    """Compare the bits that candidates of weights cost with those of the precisions that they are called by."""
    widths = {precision.name.casefold(): precision.width(prepared.stored) for precision in precisions}
    for number in {_set_of(prepared, group) for group in np.flatnonzero(prepared.weights()).tolist()}:
        bits = prepared.candidates.sets[number]
        for label, width in zip(prepared.candidates.labels(number), bits, strict=True):
            stored = widths.get(label.casefold())
            if stored is not None:
                rule(
                    Fraction(width) == Fraction(float(stored)), form.name, f"{label} costs {width:g} bits, not {stored}"
                )


def _answers(prepared: Problem) -> Iterator[Allocation]:
    """Yield allocations between the extremes, and two that differ from each other in one layer alone."""
    most = float(prepared.damage.chosen(prepared.candidates, np.zeros(len(prepared), dtype=np.int64)).sum())
    last = prepared.candidates.counts(len(prepared)) - 1
    least = float(prepared.damage.chosen(prepared.candidates, last).sum())
    for share in (0.001, 0.03, 0.3, 1.0):
        answer = solve(prepared, bound=least + share * (most - least) or 1.0)
        if answer.choice is not None:
            yield answer
    head = prepared.names[len(prepared) - 1]
    for candidate in {prepared.candidates.labels(_set_of(prepared, -1))[end] for end in (0, -1)}:
        yield solve(prepared.revise(pins={head: candidate}), bound=most or 1.0)


def _set_of(problem: Problem, group: int) -> int:
    return 0 if problem.candidates.set_of is None else int(problem.candidates.set_of[group])


def _check_refusals(form: Writer) -> None:
    """Write what most targets cannot express: it is refused in a sentence, or written."""
    odd = blocks((1, 7, 11), seed=1)
    kernels = Problem.from_sensitivities(
        [256] * 4, [1.0, 0.5, 0.2, 0.1], names=GroupNames(("conv",), ((4,),), ("conv",)), bits=(2, 4, 8)
    )
    told = _told(lambda: form.dump(solve(odd, bound=1e9)))
    rule(told, form.name, "precisions of 1, 7 and 11 bits end in a traceback")
    rule(_told(lambda: form.dump(solve(kernels, bound=0.02))), form.name, "kernels of one layer end in a traceback")
    if not form.inputs:
        acts = blocks((4, 8), activations=True)
        rule(_told(lambda: form.dump(solve(acts, bound=1e9))), form.name, "activations end in a traceback")
        _told(lambda: form.prepare(acts.revise(weights_only=True)))


def _told(action: Callable[[], Any]) -> bool:
    """Return whether ``action`` succeeds or raises an error of the package, which says so in a sentence."""
    try:
        action()
    except ImpqError as error:
        return bool(str(error))
    except Exception:  # whatever else a plug-in raises is what is looked for
        return False
    return True


# -- in ----------------------------------------------------------------------------------------------------------


def _check_reader(form: Reader, samples: list[Path]) -> None:
    for path in samples:
        try:
            first, second = form.read(path), form.read(path)
        except ImpqError as error:
            raise ConformanceError(f"{form.name}: does not read {path.name}: {error}") from error
        rule(first.digest == second.digest, form.name, f"{path.name} is read in two ways")
        rule(first.provenance.get("format") == form.name, form.name, "a problem does not say what it was read from")
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate([*_FOREIGN, *_wrecked(samples)]):
            path = Path(folder) / f"{number}{samples[0].suffix}"
            path.write_bytes(content)
            outcome = _told(lambda path=path: form.read(path))  # type: ignore[misc]
            rule(outcome, form.name, f"a file of {content[:40]!r} ends in a traceback")
        rule(_told(lambda: form.read(Path(folder) / "missing")), form.name, "a missing file ends in a traceback")


def _wrecked(samples: list[Path]) -> Iterator[bytes]:
    """Yield the samples cut short, and with every value of a JSON document replaced in turn."""
    for path in samples:
        data = path.read_bytes()
        yield from (data[: len(data) * part // 7] for part in range(1, 7))
        try:
            document = json.loads(data)
        except ValueError:
            continue
        values: tuple[Any, ...] = (None, -1, "x", [], {}, float("nan"), 1e400)
        for wrong in values:
            yield from (json.dumps(changed).encode() for changed in _replaced(document, wrong))


def _replaced(document: Any, wrong: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the document with one of its parts replaced, the first of every list standing for all."""
    yield wrong
    if depth > 8:
        return
    if isinstance(document, dict):
        for key, value in list(document.items())[:20]:
            yield from ({**document, key: changed} for changed in _replaced(value, wrong, depth + 1))
    elif isinstance(document, list) and document:
        yield from ([changed, *document[1:]] for changed in _replaced(document[0], wrong, depth + 1))
