"""Groups as they lie in the network: what they are called, may take, how large they are, and who reads whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.errors import ProblemError, nearest
from impq_opt.exactness.limits import LARGEST_SIZES
from impq_opt.exactness.sums import exact_int_sum
from impq_opt.groups.arrays import KIND_NAMES, WEIGHT, float_array, int_array, kind_array
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.held import Held
from impq_opt.groups.names import GroupNames
from impq_opt.types import FloatArray, IntArray, KindArray

__all__ = ["Layout"]


@dataclass(frozen=True, eq=False)
class Layout(Held):
    """G groups without what they damage: all that a cost term may look at. Checked whole when it is made, and held.

    Parameters
    ----------
    names, candidates
        Of G groups.
    sizes : ndarray of int64 (G,)
        Elements of each group.
    kinds : ndarray of int8 (G,), optional
        0 weight, 1 activation; all weights where left out.
    ranges : ndarray of float64 (G,), optional
        Span of each quantizer; its square is already folded into the sensitivities.
    macs : ndarray of int64 (G,), optional
        Multiply-accumulates per sample that use a weight group.
    reads : ndarray of int64 (G,), optional
        The activation group that a weight group reads, or -1: the network's input, at 8 bits.
    also_reads : ndarray of int64 (E, 3), optional
        Further reads as (weight group, activation group, multiply-accumulates): a weight shared by several layers, a
        layer that reads several tensors. ``macs`` counts the multiply-accumulates of ``reads`` alone.
    lengths : ndarray of int64 (G,), optional
        Length D of the dot products of a weight group, which is that of the rows of a matrix; 0 where unknown.
    steps : ndarray of int64 (G, 2), optional
        First and last step of the execution at which an activation group is in memory; -1 for weights.
    types : mapping of str to str
        What a label belongs to, such as ``"Conv2d"``: the kind of layer, where it is known.
    """

    names: GroupNames
    candidates: Candidates
    sizes: IntArray
    kinds: KindArray | None = None
    ranges: FloatArray | None = None
    macs: IntArray | None = None
    reads: IntArray | None = None
    also_reads: IntArray | None = None
    lengths: IntArray | None = None
    steps: IntArray | None = None
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._read()
        super().__post_init__()
        self._check_shapes()
        self._check_sizes()
        self._check_reads()
        self._check_steps()
        self._check_types()

    def __len__(self) -> int:
        return len(self.sizes)

    def weights(self) -> npt.NDArray[np.bool_]:
        """Return which groups (G,) are weights."""
        return np.ones(len(self), dtype=bool) if self.kinds is None else self.kinds == WEIGHT

    def select(self, pattern: str) -> IntArray:
        """Return the indices of the groups that ``pattern`` means, in order.

        Beside what :meth:`GroupNames.select` takes: ``"kind:weight"`` and ``"kind:activation"``, and by the kind of
        layer ``"type:Linear"``, or ``"type:Conv*"``.

        Raises
        ------
        ProblemError
            Where it means no group, with the nearest names.
        """
        found = self.find(pattern)
        if found is not None:
            return found
        what, _, wanted = pattern.partition(":")
        if what == "kind" and wanted in KIND_NAMES:
            raise ProblemError(f"the problem has no {wanted} groups", value=pattern)
        if what == "kind":
            raise ProblemError("must be 'kind:weight' or 'kind:activation'", value=pattern)
        if what == "type":
            known = sorted(set(self.types.values()))
            hint = nearest(wanted, known, most=5) or "it does not say of which type its layers are"
            raise ProblemError("no layer of this type", value=pattern, hint=hint)
        return self.names.select(pattern)

    def find(self, pattern: str) -> IntArray | None:
        """Return what :meth:`select` does, None where the pattern means no group."""
        found = self.names.find(pattern)  # a name means itself, whatever it looks like
        if found is not None:
            return found
        what, _, wanted = pattern.partition(":")
        if what == "kind" and wanted in KIND_NAMES:
            found = np.flatnonzero(self.weights() == (wanted == KIND_NAMES[WEIGHT]))
        elif what == "type" and wanted:
            kinds = enumerate(self.types.get(label, "") for label in self.names.labels)
            found = self.names.groups_of(number for number, kind in kinds if fnmatchcase(kind, wanted) and kind)
        return found if found is not None and len(found) else None

    def place(self, group: int, what: str) -> str:
        """Return where a fault of ``group`` is, for an error."""
        return f"groups[{group}].{what} ({self.names[group]})"

    def _read(self) -> None:
        """Give every array its type; what is of another and does not fit it is told."""
        if np.size(self.sizes) == 0:
            raise ProblemError("a problem needs at least one group", where="groups")
        arrays: dict[str, object] = {"sizes": int_array(self.sizes, "sizes"), "kinds": kind_array(self.kinds)}
        if self.ranges is not None:
            arrays["ranges"] = float_array(self.ranges, "ranges")
        for name, dimensions in (("macs", 1), ("reads", 1), ("also_reads", 2), ("lengths", 1), ("steps", 2)):
            if getattr(self, name) is not None:
                arrays[name] = int_array(getattr(self, name), name, dimensions)
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def _check_shapes(self) -> None:
        count = len(self.sizes)
        if len(self.names) != count:
            raise ProblemError("one name per group", where="names", value=(len(self.names), count))
        for name in ("kinds", "ranges", "macs", "reads", "lengths", "steps"):
            array = getattr(self, name)
            if array is not None and len(array) != count:
                raise ProblemError("one value per group", where=name, value=(len(array), count))
        sets = self.candidates.set_of
        if sets is None:
            if len(self.candidates.sets) != 1:
                raise ProblemError("set_of is needed with several candidate sets", where="candidates")
        elif len(sets) != count or sets.min() < 0 or sets.max() >= len(self.candidates.sets):
            raise ProblemError("one known set per group", where="candidates.set_of", value=len(sets))

    def _check_sizes(self) -> None:
        smallest = int(self.sizes.argmin())
        if self.sizes[smallest] <= 0:
            raise ProblemError(
                "must be positive",
                where=self.place(smallest, "size"),
                value=int(self.sizes[smallest]),
                hint="a group has at least one element",
            )
        total = exact_int_sum(self.sizes)
        if total * Fraction(max(map(max, self.candidates.sets))) >= LARGEST_SIZES:
            raise ProblemError(
                "sizes are too large for exact 64-bit sums",
                where="sizes",
                value=total,
                hint="sizes times the most bits add up to less than 2**55",
            )
        for name in ("macs", "lengths"):
            values = getattr(self, name)
            if values is not None and int(values.min()) < 0:
                worst = int(values.argmin())
                raise ProblemError("must not be negative", where=self.place(worst, name), value=int(values[worst]))

    def _check_reads(self) -> None:
        count, reads, further = len(self.sizes), self.reads, self.also_reads
        if reads is not None:
            wrong = (reads < -1) | (reads >= count) | (reads == np.arange(count))
            if wrong.any():
                worst = int(wrong.argmax())
                raise ProblemError(
                    "must be another group or -1", where=self.place(worst, "reads"), value=int(reads[worst])
                )
        if further is None:
            return
        if further.ndim != 2 or further.shape[1] != 3 or further.dtype != np.int64:
            raise ProblemError("must be rows of (weight, activation, macs)", where="also_reads", value=further.shape)
        ends = further[:, :2]
        wrong = ((ends < 0) | (ends >= count)).any(axis=1) | (ends[:, 0] == ends[:, 1]) | (further[:, 2] < 0)
        if wrong.any():
            worst = int(wrong.argmax())
            raise ProblemError(
                "must name two groups and a count >= 0", where=f"also_reads[{worst}]", value=further[worst].tolist()
            )

    def _check_steps(self) -> None:
        steps = self.steps
        if steps is not None and (steps.shape != (len(self), 2) or bool((steps[:, 0] > steps[:, 1]).any())):
            raise ProblemError(
                "must be (first, last) with first <= last for each group", where="steps", value=steps.shape
            )

    def _check_types(self) -> None:
        labels = set(self.names.labels) if self.types else set()
        for label, kind in self.types.items():
            if label not in labels:
                raise ProblemError(
                    "no such label", where="types", value=label, hint=nearest(str(label), labels, most=3)
                )
            if not isinstance(kind, str) or not kind.strip() or not kind.isprintable():
                raise ProblemError("must be the name of a kind of layer", where=f"types.{label}", value=kind)
