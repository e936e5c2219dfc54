"""Checks an allocation of impq-opt against its problem with Python's standard library alone (3.11 or later).

    python check.py problem.toml allocation.json

Made to be read in ten minutes, so that nobody has to trust the package that wrote the files. Numbers are whole or
fractions; a float in a file is the binary number that it is. Costs that couple groups, and several limits, get exact
sums and the bound of the multipliers: what is left is claimed. Exit status 0: all that the answer says is proved.
"""

import hashlib
import itertools
import json
import math
import struct
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import tomllib

results: list[bool] = []


def say(right: bool, text: str) -> None:
    results.append(right)
    print("proved " if right else "WRONG  ", text)


def stop(text: str) -> Any:
    raise SystemExit(f"not checked: {text}")


def exact(value: Any) -> Fraction:
    return Fraction(value)  # "3/4" and "0.1" as they are spelled, a float as the binary number that it is


def decimal(value: Any) -> Fraction:
    return Fraction(str(value))  # the precision 4.1 means 41/10


# -- the problem: a list of groups with what each candidate damages, and rules between them ---------------------------


def read_problem(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    doc = tomllib.loads(path.read_text("utf-8-sig"))
    if "arrays" in doc:
        data = (path.parent / doc["arrays"]["file"]).read_bytes()
        say(hashlib.sha256(data).hexdigest() == doc["arrays"]["sha256"], "the arrays are those of the problem file")
        groups = from_arrays(doc, safetensors(data))
    else:
        place = {group["name"]: i for i, group in enumerate(doc["groups"])}
        groups = [{"label": g["name"], "bits": doc.get("bits", list(range(1, 9))), **g} for g in doc["groups"]]
        for group, given in zip(groups, doc["groups"]):
            group["formats"] = given.get("formats", None if "bits" in given else doc.get("formats"))
            group["reads"] = place.get(group.get("reads"), -1)
            group["further"] = [(place[name], macs) for name, macs in group.pop("also_reads", [])]
        doc["tied"] = [
            [place[name] if name in place else stop(f"a pattern, {name}") for name in tie]
            for tie in doc.get("ties", [])
        ]
        doc["pinned"] = {
            place[n] if n in place else stop(f"a pattern, {n}"): bits for n, bits in doc.get("pins", {}).items()
        }
    for group in groups:
        if "damage" not in group:  # the squared step of a quantizer of B bits, times the sensitivity
            group["damage"] = [group["sensitivity"] * 2.0 ** (-2 * bits) for bits in group["bits"]]
        called = group["formats"] or group["bits"]
        group["open"] = [k for k, damage in enumerate(group["damage"]) if damage < math.inf]
        group["column"] = {name: k for k, name in enumerate(called)}
    for place, bits in doc["pinned"].items():
        groups[place]["open"] = [bits if "arrays" in doc else groups[place]["column"][bits]]
    return doc, groups


def from_arrays(doc: dict[str, Any], arrays: dict[str, Any]) -> list[dict[str, Any]]:
    names: dict[str, Any] = doc["names"]
    groups: list[dict[str, Any]] = []
    for label, shape in zip(names["labels"], names.get("shapes") or [[]] * len(names["labels"])):
        for index in itertools.product(*map(range, shape)):
            i = len(groups)
            group = dict(doc["candidates"][arrays["set_of"][i] if "set_of" in arrays else 0])
            group |= {"name": f"{label}[{','.join(map(str, index))}]" if shape else label, "size": arrays["sizes"][i]}
            group |= {key: arrays[key][i] for key in ("sensitivity", "macs") if key in arrays}
            if "damage" in arrays:
                group["damage"] = arrays["damage"][i][: len(group["bits"])]
            group["kind"] = "activation" if "kinds" in arrays and arrays["kinds"][i] else "weight"
            group["measured"] = not ("unmeasured" in arrays and arrays["unmeasured"][i])
            group["reads"] = arrays["reads"][i] if "reads" in arrays else -1
            group["further"] = [(act, macs) for weight, act, macs in arrays.get("also_reads", []) if weight == i]
            group["costs"] = {c["name"]: arrays["cost." + c["name"]][i] for c in doc.get("costs", [])}
            groups.append({"formats": None, **group})
    starts = [*arrays.get("tie_starts", []), len(arrays.get("tie_members", []))]
    doc["tied"] = [arrays["tie_members"][start:end] for start, end in zip(starts, starts[1:])]
    doc["pinned"] = dict(arrays.get("pins", []))
    return groups


def safetensors(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])  # then a JSON header, then numbers in little-endian order
    arrays = {}
    for name, head in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in head["data_offsets"])
            code = {"F64": "d", "I64": "q", "I8": "b"}[head["dtype"]]
            flat = list(struct.unpack(f"<{(end - start) // struct.calcsize('<' + code)}{code}", data[start:end]))
            for side in reversed(head["shape"][1:]):
                flat = [flat[i : i + side] for i in range(0, len(flat), side)]
            arrays[name] = flat
    return arrays


# -- costs: what each group costs by candidate, and (group, group, coefficient) for products of two precisions --------


def cost(name: str, doc: dict[str, Any], groups: list[dict[str, Any]]) -> tuple[list[list[Fraction]], list[Any]]:
    pairs: list[Any] = []
    declared = {term["name"]: term for term in doc.get("costs", [])}
    if name in declared and "csv" not in declared[name]:
        quantum = declared[name].get("quantum")  # without one, numbers of the unit are read as decimals
        table = [[exact(quantum) * c if quantum else decimal(c) for c in g["costs"][name]] for g in groups]
        fixed = declared[name].get("fixed", 0)  # whatever is chosen: counted with the first group
        return [[c + fixed for c in table[0]], *table[1:]], pairs
    table = []
    for place, group in enumerate(groups):
        weight = group.get("kind", "weight") == "weight"
        slope = {"storage": weight, "activation-memory": not weight, "representational": True}.get(name, False)
        slope = group["size"] * slope
        if name == "bit-operations" and group.get("macs", 0) + len(group["further"]):
            for read, macs in [(group["reads"], group.get("macs", 0)), *group["further"]]:
                if read < 0:
                    slope += 8 * macs  # the network's input has 8 bits
                else:
                    pairs.append((place, read, macs))
        elif name not in ("storage", "activation-memory", "representational", "bit-operations"):
            stop(f"the cost {name}")
        table.append([slope * decimal(bits) for bits in group["bits"]])
    return table, pairs


def weighted(parts: list[tuple[Fraction, Any]]) -> tuple[list[list[Fraction]], list[Any]]:
    tables = zip(*([[w * c for c in row] for row in rows] for w, (rows, _) in parts))
    pairs = [(i, j, w * c) for w, (_, some) in parts for i, j, c in some]
    return [[sum(column, Fraction(0)) for column in zip(*rows)] for rows in tables], pairs


def total(costs: tuple[list[list[Fraction]], list[Any]], groups: list[dict[str, Any]], choice: list[int]) -> Fraction:
    bits = [decimal(group["bits"][k]) for group, k in zip(groups, choice)]
    return sum(row[k] for row, k in zip(costs[0], choice)) + sum(c * bits[i] * bits[j] for i, j, c in costs[1])


# -- units: groups that are tied choose together; an option is a column for each member -------------------------------


def called(group: dict[str, Any], k: int) -> tuple[float, str]:
    return group["bits"][k], group["formats"][k] if group["formats"] else ""


def units_of(
    groups: list[dict[str, Any]], tied: list[list[int]]
) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    unit = {place: frozenset([place]) for place in range(len(groups))}
    for tie in tied:
        joined = frozenset().union(*(unit[place] for place in tie))
        unit |= dict.fromkeys(joined, joined)
    units = []
    for members in dict.fromkeys(unit.values()):
        order, options = tuple(sorted(members)), []
        for k in groups[min(members)]["open"]:
            wanted = called(groups[min(members)], k)
            columns = [next((c for c in groups[m]["open"] if called(groups[m], c) == wanted), None) for m in order]
            options += [(k, *columns[1:])] if None not in columns else []
        units.append((order, options))
    return units


def least(priced: tuple[list[list[Fraction]], list[Any]], units: list[Any], groups: list[dict[str, Any]]) -> Fraction:
    table, pairs = priced
    count = Counter(i for i, _, _ in pairs)
    alone = {members[0] for members, _ in units if len(members) == 1}
    centres = {j for _, j, _ in pairs if j in alone and j not in count}
    stars: dict[int, list[tuple[int, Fraction]]] = {}
    bound = Fraction(0)
    for i, j, c in pairs:
        if count[i] == 1 and i in alone and j in centres:
            stars.setdefault(j, []).append((i, c))
        else:  # each factor at its least: below the truth, and so still a bound
            bound += (
                c * min(decimal(groups[i]["bits"][k]) for k in groups[i]["open"]) * min(map(decimal, groups[j]["bits"]))
            )
    leaves = {i for some in stars.values() for i, _ in some}
    for members, options in units:
        if members[0] not in leaves:
            sums = []
            for option in options:
                value = sum((table[m][k] for m, k in zip(members, option)), Fraction(0))
                for i, c in stars.get(members[0], []):  # all that read this group, each at its best for it
                    own = c * decimal(groups[members[0]]["bits"][option[0]])
                    value += min(table[i][k] + own * decimal(groups[i]["bits"][k]) for k in groups[i]["open"])
                sums.append(value)
            bound += min(sums)
    return bound


def nothing_below(target: Fraction, main: Any, limited: Any, limit: Fraction, price: Fraction, units: Any) -> bool:
    """Try all combinations of what the multipliers leave open: is none of them below the target within the limit?"""
    sums = [
        [(sum(main[m][k] for m, k in zip(ms, o)), sum(limited[m][k] for m, k in zip(ms, o))) for o in os]
        for ms, os in units
    ]
    excess = [[a + price * b - min(c + price * d for c, d in unit) for a, b in unit] for unit in sums]
    room = target + price * limit - sum(min(a + price * b for a, b in unit) for unit in sums)
    core = [[(a, b, e) for (a, b), e in zip(unit, es) if e <= room] for unit, es in zip(sums, excess)]
    core.sort(key=lambda unit: max(a for a, _, _ in unit) - min(a for a, _, _ in unit), reverse=True)
    scale = math.lcm(*(x.denominator for unit in core for option in unit for x in option), room.denominator)
    whole = [[tuple(int(x * scale) for x in option) for option in unit] for unit in core]
    states, room_left = [(0, 0, 0)], int(room * scale)
    for unit in whole:
        grown = sorted((a + x, b + y, e + z) for a, b, e in states for x, y, z in unit if e + z <= room_left)
        states = []
        for state in grown:  # what costs more and needs as much of the limit is no better for the rest
            if not states or state[1] < states[-1][1]:
                states.append(state)
        if len(states) > 200_000:
            return False
    return not any(a < target * scale and b <= limit * scale for a, b, _ in states)


def main(problem: str, allocation: str) -> int:
    doc, groups = read_problem(Path(problem))
    answer = json.loads(Path(allocation).read_bytes())
    if answer["bits"] is None or answer.get("revision"):
        stop("an answer without bits, or to a revision of the file's problem")
    budgets = {name: exact(limit) for name, limit in answer["budgets"].items()}
    for name, limit in doc.get("budgets", {}).items():
        if isinstance(limit, str) and not limit.replace("/", "").replace(".", "").isdigit():
            stop(f"a budget with a unit, {limit}")
        say(name in budgets and budgets[name] <= decimal(limit), f"budget {name} is no looser than the file's")
    names = answer.get("formats") or {name: float(bits) for name, bits in answer["bits"].items()}
    choice = [group["column"][names[group["name"]]] for group in groups]
    units = units_of(groups, doc["tied"])
    picked = [tuple(choice[m] for m in members) in options for members, options in units]
    say(all(picked), "every group has a candidate of its own; pins and ties are kept")
    weights, by_cost = {name: decimal(w) for name, w in answer["minimize"].items()}, answer["minimizes"] == "cost"
    costs = weighted([(w, cost(name, doc, groups)) for name, w in weights.items()])
    harm: Any = ([[exact(d) if d < math.inf else Fraction(0) for d in group["damage"]] for group in groups], [])
    paid, done = total(costs, groups, choice), total(harm, groups, choice)
    say(paid == exact(answer["exact"]["cost"]), f"the cost is exactly {paid}, as stated; about {float(paid):.15g}")
    say(done == exact(answer["exact"]["damage"]), f"the damage is exactly as stated; about {float(done):.15g}")
    unknown = [g["name"] for g, k in zip(groups, choice) if not g.get("measured", True) and g["bits"][k] < 16]
    if unknown:
        print(f"CLAIMED the damage, and so its bound: of {len(unknown)} groups none is known, such as {unknown[0]}")
    for name, true in {"cost": paid, "damage": done, "objective": paid if by_cost else done}.items():
        near = math.isclose(answer[name] or 0, true, rel_tol=1e-12)
        say(near, f"{name} as people read it is about {float(true):.6g}")
    rows = []  # (price, what is limited, limit): prices are in quanta of cost
    quantum = exact(answer["certificate"]["quantum"]) if answer["certificate"] else Fraction(1)
    prices = answer["certificate"]["multipliers"] if answer["certificate"] else {}
    if answer["exact"]["bound"] is not None:
        rows.append((exact(prices.get("bound", 0)) * quantum, harm, exact(answer["exact"]["bound"])))
    for name, limit in budgets.items():
        own = not by_cost and name == "+".join(weights)
        price = exact(prices.get("budget" if own else name, 0))
        rows.append((price / quantum if own else price, costs if own else cost(name, doc, groups), limit))
    say(all(price >= 0 for price, _, _ in rows), "no multiplier is negative")
    for _, limited, limit in rows:
        say(total(limited, groups, choice) <= limit, f"a limit of about {float(limit):.15g} is kept")
    first, aim = (costs, paid) if by_cost else (harm, done)
    bound = least(weighted([(Fraction(1), first), *((p, row) for p, row, _ in rows)]), units, groups)
    bound -= sum((p * limit for p, _, limit in rows), Fraction(0))
    print(f"proved  the multipliers show that nothing is below about {float(bound):.15g}")
    stated = answer["exact"]["lower_bound"]
    target = bound if stated is None else exact(stated)
    if answer["status"] == "optimal":  # damages are compared as they are reported, rounded once to a float
        say(target >= aim if by_cost else float(target) >= float(aim), "optimal: the lower bound meets the objective")
    alone = not first[1] and len(rows) == 1 and not rows[0][1][1]  # no pairs, one limit
    below = bound >= target or (alone and nothing_below(target, first[0], rows[0][1][0], rows[0][2], rows[0][0], units))
    print(f"{'proved ' if below else 'CLAIMED'} nothing is below about {float(target):.15g}: {answer['status']}")
    return 0 if below and all(results) and not unknown else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
