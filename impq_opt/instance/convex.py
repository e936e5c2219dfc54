"""The damage of groups that interact as a convex function of the choice: a sum over groups and one square.

For every choice k of the free groups, the damage is within ``slack`` of

    base + sum_g linear[g, k_g] + |sum_g factors[g, k_g]|^2.

A group takes one candidate, so that its own quadratic terms x_a x_b (a != b) are 0 and x_a^2 is x_a: what they weigh
may be moved to the linear terms and back. Of factors the square is given. Of pairs it is made: their matrix, in
differences to a reference candidate, plus blocks on the diagonal that make it positive semi-definite at least cost,
found with a barrier that has a closed form for each block (cf. Billionnet, Elloumi & Plateau 2009, who move the
diagonal).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.interactions import Factors, Pairs
from impq_opt.instance.instance import Instance
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["LARGEST_MATRIX", "Convex", "convex_form", "places"]

# Rows of the matrix of pairs that is made positive semi-definite.
LARGEST_MATRIX = 4000
# And of that of factors, where it is made at all.
_LARGEST_MADE = 700
_EPS = 2.0**-53
# Rounds of the barrier, each with a tenth of the weight.
_ROUNDS, _SWEEPS = 6, 3
# Of the mean weight, what every candidate has of it.
_LEAST = 0.05


@dataclass(frozen=True, eq=False)
class Convex:
    """See the module. linear (size, K), factors (size, K, R); columns past a group's width repeat its last one.

    The square was ``made`` where it is another than that of declared factors: it can be made anew for fewer candidates.
    """

    base: float
    linear: FloatArray
    factors: FloatArray
    slack: float
    made: bool = False


def places(instance: Instance) -> tuple[IntArray, IntArray]:
    """Return where the problem's groups are among the free ones (G,), -1 where pinned, and their columns (G, K).

    Column k is what a group takes where its free group takes candidate k, its last one past its width.
    """
    count = len(instance.problem)
    place = np.full(count, -1)
    place[instance.representatives] = np.arange(instance.size)
    for tie in instance.ties:
        place[tie.members] = tie.groups[:, None]
    width = int(instance.widths.max(initial=1))
    each = [instance.lift(np.minimum(k, instance.widths - 1)) for k in range(width)]
    return place, np.stack(each, axis=1)


@np.errstate(over="ignore", invalid="ignore")
def convex_form(
    instance: Instance,
    shares: FloatArray | None = None,
    allowed: BoolArray | None = None,
    *,
    declared: bool = False,
) -> Convex:
    """Return the convex form of an instance whose damages interact.

    Parameters
    ----------
    shares : ndarray (size, K), optional
        Where its tangents are wanted: what is moved to the linear terms of pairs is then such that the form is largest
        there.
    allowed : ndarray of bool (size, K), optional
        The candidates that it is good for; all where left out.
    declared : bool
        Of factors the square of themselves, whose tangents need no matrix to be recomputed.
    """
    interactions = instance.problem.interactions
    assert interactions is not None
    if isinstance(interactions, Factors):
        form = _of_factors(instance, interactions, shares, allowed, declared)
    else:
        form = _of_pairs(instance, interactions, shares, allowed)
    finite = np.isfinite(form.slack) and np.isfinite(form.linear).all() and np.isfinite(form.factors).all()
    return form if finite else Convex(0.0, np.zeros_like(form.linear), form.factors[:, :, :0], np.inf)


def _of_factors(
    instance: Instance, factors: Factors, shares: FloatArray | None, allowed: BoolArray | None, declared: bool
) -> Convex:
    place, columns = places(instance)
    values = factors.values[np.arange(len(place))[:, None], columns]  # (G, K, r)
    squares = np.einsum("gkr,gkr->gk", values, values)
    free = place >= 0
    vectors = np.zeros((instance.size, *values.shape[1:]))
    own = np.zeros(vectors.shape[:2])
    np.add.at(vectors, place[free], values[free])
    np.add.at(own, place[free], squares[free])
    damage = instance.tables[1]
    pinned = values[~free, 0]
    # Seen from a reference candidate of each group, so that what all candidates share is linear.
    kept = _inside(instance, allowed)
    reference = np.where(kept, own, np.inf).argmin(axis=1)
    origin = vectors[np.arange(instance.size), reference]
    total = pinned.sum(axis=0) + origin.sum(axis=0)
    apart = vectors - origin[:, None]
    linear = damage - own + 2 * (apart @ total)
    base = nearest_float(instance.base_damage) - float(squares[~free, 0].sum()) + float(total @ total)
    reach = np.linalg.norm(values, axis=2).max(axis=1).sum()
    size = abs(nearest_float(instance.base_damage)) + np.abs(damage).max(axis=1).sum() + 4 * reach * reach
    slack = 16 * (len(place) + values.shape[2] + 16) * _EPS * float(size)
    flat = apart.reshape(-1, apart.shape[2])
    if not declared and apart.shape[2] >= len(flat) - instance.size and len(flat) <= _LARGEST_MADE:
        # Directions enough for every candidate: what a group does to itself may be less curved.
        matrix = flat @ flat.T
        slack += 16 * apart.shape[2] * _EPS * float(4 * reach * reach)
        blocks = np.repeat(np.arange(instance.size), apart.shape[1])
        linear = linear + np.einsum("gkr,gkr->gk", apart, apart)
        matrix[blocks[:, None] == blocks] = 0.0
        kept[np.arange(instance.size), reference] = False
        return _made(instance, Convex(base, linear, apart, slack), matrix, kept, shares)
    if apart.shape[2] > len(flat):  # fewer numbers say the same but for a rotation
        turned = np.asarray(np.linalg.qr(flat.T, mode="r")).T
        slack += _apart(flat @ flat.T, turned @ turned.T, instance.size, apart.shape[2], reach)
        apart = turned.reshape(*apart.shape[:2], -1)
    return Convex(base, linear, apart, slack)


def _apart(wanted: FloatArray, got: FloatArray, size: int, terms: int, reach: float) -> float:
    """Return the most by which a square with matrix ``got`` differs from that with ``wanted``, roundings included."""
    blocks = np.abs(wanted - got).reshape(size, len(wanted) // size, size, len(wanted) // size)
    return float(blocks.max(axis=(1, 3)).sum() * (1 + 1e-9) + 16 * terms * _EPS * reach * reach)


def _of_pairs(instance: Instance, pairs: Pairs, shares: FloatArray | None, allowed: BoolArray | None) -> Convex:
    place, columns = places(instance)
    size, width = instance.size, columns.shape[1]
    left, right = pairs.groups.T
    rows = np.arange(len(left))[:, None, None]
    values = pairs.values[rows, columns[left][:, :, None], columns[right][:, None, :]]  # (P, K, K)
    linear = instance.tables[1].copy()
    base = nearest_float(instance.base_damage)
    first, second = place[left], place[right]
    both = (first < 0) & (second < 0)
    base += float(values[both, 0, 0].sum())
    for mine, table in (
        ((first >= 0) & (second < 0), values[:, :, 0]),
        ((first < 0) & (second >= 0), values[:, 0, :]),
        ((first >= 0) & (first == second), np.einsum("pkk->pk", values)),
    ):
        np.add.at(linear, np.where(first >= 0, first, second)[mine], table[mine])
    between = np.flatnonzero((first >= 0) & (second >= 0) & (first != second))
    matrix = np.zeros((size, size, width, width))
    np.add.at(matrix, (first[between], second[between]), values[between] / 2)
    np.add.at(matrix, (second[between], first[between]), values[between].transpose(0, 2, 1) / 2)
    size_of = abs(base) + np.abs(instance.tables[1]).max(axis=1).sum() + np.abs(values).max(axis=(1, 2)).sum()
    slack = 64 * (len(left) + width + 16) * _EPS * float(size_of)
    group = np.arange(size)
    kept = _inside(instance, allowed)
    reference = np.where(kept, linear, np.inf).argmin(axis=1)
    # (i, j, a) <- P_ij[a, r_j] / 2
    to_reference = matrix[group[:, None], group[None, :], :, reference[None, :]]
    corner = to_reference[group[:, None], group[None, :], reference[:, None]]
    linear += 2 * (to_reference - corner[:, :, None]).sum(axis=1)
    base += float(corner.sum())
    matrix -= to_reference[:, :, :, None] + to_reference.transpose(1, 0, 2)[:, :, None, :] - corner[:, :, None, None]
    flat = matrix.transpose(0, 2, 1, 3).reshape(size * width, size * width)
    kept[group, reference] = False
    return _made(instance, Convex(base, linear, np.zeros((size, width, 0)), slack), flat, kept, shares)


def _inside(instance: Instance, allowed: BoolArray | None) -> BoolArray:
    """Return which candidates (size, K) a form is to be good for."""
    inside = np.arange(int(instance.widths.max(initial=1))) < instance.widths[:, None]
    return inside if allowed is None else inside & allowed


def _made(instance: Instance, flat: Convex, matrix: FloatArray, kept: BoolArray, shares: FloatArray | None) -> Convex:
    """Return ``flat``, of which the linear terms are taken, with a matrix of pairs made a square.

    matrix (size K, size K) is zero within groups, and for candidates that are not ``kept`` (size, K): the reference.
    """
    size, width = kept.shape
    linear, slack = flat.linear.copy(), flat.slack
    inside = np.flatnonzero(kept)
    factors = np.zeros((size * width, len(inside)))
    if len(inside):
        part = matrix[np.ix_(inside, inside)]
        weights = None if shares is None else shares.reshape(-1)[inside]
        blocks, root = _semidefinite(part, inside // width, weights)
        factors[inside] = root
        linear.reshape(-1)[inside] -= np.diag(blocks)
        slack += _residual(part + blocks, root, inside // width)
    # Past a group's width its last candidate is repeated.
    repeated = np.minimum(np.arange(width), instance.widths[:, None] - 1)
    cubes = np.take_along_axis(factors.reshape(size, width, -1), repeated[:, :, None], axis=1)
    return Convex(flat.base, np.take_along_axis(linear, repeated, axis=1), cubes, slack, made=True)


def _residual(wanted: FloatArray, root: FloatArray, group: IntArray) -> float:
    """Return the most by which |sum root|^2 differs from the form ``wanted``: one entry a pair of groups counts."""
    off = np.abs(wanted - root @ root.T)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    most = np.maximum.reduceat(np.maximum.reduceat(off, starts, axis=0), starts, axis=1)
    reach = np.maximum.reduceat(np.linalg.norm(root, axis=1), starts).sum()
    return float(most.sum() * (1 + 1e-9) + 16 * len(wanted) * _EPS * reach * reach)


def _semidefinite(matrix: FloatArray, group: IntArray, shares: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Return blocks (n, n) on the diagonal with which a matrix (n, n) is positive definite, and a root of the sum.

    Of least trace in a scale of the rows' own, or of least sum b x - x'Bx at ``shares`` x (n,): minimised with a
    barrier -log det, for which each block has a closed form.

    matrix
        Zero within groups. ``group`` (n,) rises.
    """
    scale = _equilibrated(matrix)
    scaled = matrix / scale[:, None] / scale
    lowest = float(np.linalg.eigvalsh(scaled)[0])
    tiny = 1e-9 * (1 + abs(lowest))
    blocks = np.diag(np.full(len(matrix), max(-lowest, 0.0) * 1.1 + tiny))
    starts = np.flatnonzero(np.diff(group, prepend=-1)).tolist()
    parts = [slice(*ends) for ends in zip(starts, [*starts[1:], len(group)], strict=True)]
    aims = [np.eye(part.stop - part.start) if shares is None else _aim(shares[part], scale[part]) for part in parts]
    weight = 1.0
    for _ in range(_ROUNDS):
        weight *= 0.2
        inverse = np.linalg.inv(scaled + blocks)
        for _ in range(_SWEEPS):
            for part, aim in zip(parts, aims, strict=True):
                own = inverse[part, part]
                change = weight * aim - np.linalg.inv(own)
                change = (change + change.T) / 2
                blocks[part, part] += change
                # Woodbury: (A + E change E')^-1
                middle = np.linalg.solve(np.eye(len(own)) + change @ own, change)
                inverse -= inverse[:, part] @ middle @ inverse[part]
    for more in (0.0, tiny, 1e-6, 1e-3, 1e0):
        try:
            shifted = blocks + more * (1 + abs(lowest)) * np.eye(len(matrix))
            root = np.linalg.cholesky(scaled + shifted)
        except np.linalg.LinAlgError:
            continue
        return shifted * scale[:, None] * scale, root * scale[:, None]
    raise AssertionError("a shift above the least eigenvalue is enough")


def _aim(shares: FloatArray, scale: FloatArray) -> FloatArray:
    """Return the inverse of diag(x) - x x', what a block costs at shares x (n,), scaled and kept away from singular."""
    cost = (np.diag(shares) - np.outer(shares, shares)) * scale[:, None] * scale
    size = float(np.trace(cost)) / len(shares)
    return np.asarray(np.linalg.inv(cost + (_LEAST * size + _LEAST) * np.eye(len(shares))))


def _equilibrated(matrix: FloatArray) -> FloatArray:
    """Return scales (n,) that make the rows of ``matrix`` about equally long when divided by them from both sides."""
    scale = np.ones(len(matrix))
    for _ in range(20):
        length = np.linalg.norm(matrix / scale[:, None] / scale, axis=1)
        scale *= np.sqrt(np.where(length > 0, length, 1.0))
    least = scale.max(initial=1.0) * 1e-9
    return np.maximum(scale, least)
