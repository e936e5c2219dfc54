"""Attack: an answer is saved, one thing that people read in it is made false, and nobody may call the file proved.

The forgeries are those of :mod:`attacks.lies`; files that state the same in another way must stay proved.
"""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

from attacks import draws
from attacks.core import Attack, Fault, Step
from attacks.instances import answer_faults
from attacks.lies import FORGERIES, TRUE, Document, Saved, folder

KIND = "forgeries"
# Of the forgeries that fit an answer, so many are tried.
EACH = 12


def attack(seed: int) -> Attack:
    """Forge the saved answer to the question of a seed in several ways."""
    found = Attack(seed, done=0)
    saved = solved(seed)
    if saved is None:
        found.counts["no true answer"] += 1
        return found
    for name in TRUE:
        found.counts["true files"] += 1
        fault = kept(saved, name, seed)
        found.faults += [fault] if fault else []
    fitting = list(FORGERIES)
    saved.rng.shuffle(fitting)
    for name in fitting:
        if found.done == EACH:
            break
        tried, fault = forged(saved, name, seed)
        found.faults += [fault] if fault else []
        if tried:
            found.done += 1
            found.counts[f"forged {name}"] += 1
    return found


def kept(saved: Saved, name: str, seed: int) -> Fault | None:
    """Return the fault if a file that is true is not proved."""
    text = TRUE[name](copy.deepcopy(saved.document))
    what = _not_proved(saved, text)
    return _fault(saved, seed, f"a true file ({name}) is not proved: {what}", text) if what else None


def forged(saved: Saved, name: str, seed: int) -> tuple[bool, Fault | None]:
    """Return whether the forgery fits the answer, and the fault if the file is believed."""
    from impq_opt import ImpqError

    document = copy.deepcopy(saved.document)
    with Step(f"forging {name}", ImpqError) as step:
        fits = FORGERIES[name](document, saved)
    if step.fault:
        return True, _fault(saved, seed, step.fault, "")
    if step.refusal or not fits:
        return False, None
    text = json.dumps(document)
    what = _proved(saved, text)
    return True, _fault(saved, seed, f"{name}: {what}", text, document) if what else None


def solved(seed: int) -> Saved | None:
    """Return a saved answer that is true and closed; None where the package has none (instances look at that)."""
    from impq_opt import ImpqError, solve
    from impq_opt.files import save_allocation

    question = draws.question(seed)
    with Step("solve", ImpqError) as step:
        problem = question.problem
        found = solve(problem, solver="exact", **question.asked)
        truth = question.truth
        wrong = list(answer_faults(question, found, truth, complete=True))
        save_allocation(found, folder() / "true.json")
        document = json.loads((folder() / "true.json").read_text())
    if step.fault or step.refusal or wrong or found.status.value not in ("optimal", "infeasible"):
        return None
    return Saved(question, found, truth, document, Random(seed))


def _verified(saved: Saved, text: str) -> Any:
    """Return what verify says of a file, as the command line asks it; None where it is refused."""
    from impq_opt import ImpqError, verify
    from impq_opt.files import load_allocation

    path = folder() / "forged.json"
    path.write_text(text)
    with Step("load and verify", ImpqError) as step:
        loaded = load_allocation(path, saved.question.problem)
        found = verify(loaded.problem, loaded)
        str(found)
    return step.fault or (None if step.refusal else found)


def _proved(saved: Saved, text: str) -> str:
    found = _verified(saved, text)
    if isinstance(found, str):
        return found
    return "verify says that everything is proved" if found is not None and found.proved else ""


def _not_proved(saved: Saved, text: str) -> str:
    found = _verified(saved, text)
    if isinstance(found, str):
        return found
    return "refused" if found is None else "" if found.proved else str(found)


def _fault(saved: Saved, seed: int, what: str, text: str, document: Document | None = None) -> Fault:
    told = ""
    if document is not None:
        for key in document.keys() | saved.document.keys():
            if document.get(key) != saved.document.get(key):
                told += f"\n    # {key}: {saved.document.get(key)!r:.200} -> {document.get(key)!r:.200}"
    lines = [
        "from impq_opt.files import load_allocation",
        f"open('forged.json', 'w').write({text!r})",
        "found = load_allocation('forged.json', problem)",
        "print(verify(found.problem, found))",
    ]
    return Fault(KIND, seed, what + told, saved.question.program(*lines))
