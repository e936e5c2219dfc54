"""The mutants of mutation.py: one change each that makes an answer, a bound or a verdict false without a word."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MOVED", "MUTANTS", "TESTS", "Mutant"]

# Where a file lies now, for those that were moved since the table was written.
MOVED: dict[str, str] = {}

# What is run against the mutants of an area, quickest first.
_ATTACKS = ("tests/test_attack.py::test_instances[240]", "tests/test_attack.py::test_instances[360]")
_NUMBERS = ("tests/test_attack.py::test_numbers",)
_BOTH_NUMBERS = ("tests/test_attack.py::test_compiled_and_numpy_say_the_same[numbers]",)
TESTS: dict[str, tuple[str, ...]] = {
    "judge": ("tests/conformance/test_liars.py", "tests/test_mutants_judge.py", "tests/test_verify.py"),
    "bound": ("tests/test_mutants_judge.py", *_NUMBERS, *_ATTACKS),
    "numbers": ("tests/test_attack.py", "-k", "test_numbers or rows or roundings or sums"),
    "numpy numbers": (*_BOTH_NUMBERS,),
    "search": ("tests/test_mutants_search.py", *_ATTACKS, "tests/test_exact_attained.py"),
    "scan": ("tests/test_mutants_search.py", "-k", "scan or candidates_of_every"),
    "hulls": ("tests/test_mutants_search.py", "-k", "hulls or steps or one_limit"),
    "budgets": ("tests/test_mutants_search.py", *_ATTACKS, "-k", "limits or instances"),
    "coupled": ("tests/test_mutants_search.py", "tests/test_coupled_random.py", "-k", "branching or cluster or exact"),
    "quantize": ("tests/test_quantize.py",),
}


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``why`` says what it breaks, ``equivalent`` why no test can tell."""

    file: str
    tests: str
    why: str
    old: str
    new: str
    equivalent: str = ""

    @property
    def path(self) -> str:
        return MOVED.get(self.file, self.file)


MUTANTS: tuple[Mutant, ...] = (
    # -- what is concluded of a claim
    Mutant("impq_opt/conclusion.py", "judge", "optimal a quantum early", "return lower >= found.cost",
           "return lower >= found.cost - 1"),
    Mutant("impq_opt/conclusion.py", "judge", "a bound of whole costs rounded past a whole number",
           "math.ceil(dual) if whole", "math.floor(dual) + 1 if whole"),
    Mutant("impq_opt/conclusion.py", "judge", "a lower bound without evidence is believed",
           "if claim.enumeration is not None and math.isfinite(claim.lower_bound):",
           "if math.isfinite(claim.lower_bound):"),
    # -- what verify says
    Mutant("impq_opt/audit.py", "judge", "proved where only something is proved",
           "return all(check.verdict is Verdict.PROVED", "return any(check.verdict is Verdict.PROVED"),
    Mutant("impq_opt/recount.py", "judge", "the enumeration stops short of the target",
           "highest = math.ceil(target) - 1", "highest = math.ceil(target) - 2"),
    Mutant("impq_opt/recount.py", "judge", "assignments on the limit are thrown away",
           "if any(v + r > m for v, r, m in", "if any(v + r >= m for v, r, m in"),
    # -- recomputing, and the bound of multipliers
    Mutant("impq_opt/verification.py", "bound", "a bound attained exactly is called broken",
           "if instance.bound is not None and damage > instance.bound:",
           "if instance.bound is not None and damage >= instance.bound:"),
    Mutant("impq_opt/verification.py", "bound", "a bound attained exactly is called broken, in one pass",
           "if instance.bound is not None and exact > instance.bound:",
           "if instance.bound is not None and exact >= instance.bound:"),
    Mutant("impq_opt/verification.py", "bound", "a budget may be overshot by a quantum",
           "if instance.budget_of(b, choice) > b.limit]", "if instance.budget_of(b, choice) > b.limit + 1]"),
    Mutant("impq_opt/verification.py", "bound", "roundings are added on, not taken off",
           "return 1.0 - (4 + 3 * budgets) * _EPS", "return 1.0 + (4 + 3 * budgets) * _EPS"),
    Mutant("impq_opt/verification.py", "bound", "infinite and undefined multipliers are let in",
           "if not (math.isfinite(value) and value >= 0):", "if value < 0:"),
    Mutant("impq_opt/verification.py", "bound", "damage of pinned groups is left out of the bound",
           "total += product(lam, instance.base_damage - instance.bound)", "total += product(lam, -instance.bound)"),
    Mutant("impq_opt/verification.py", "bound", "cost of pinned groups is left out of the bound",
           "total: int | Fraction = instance.base_cost\n", "total: int | Fraction = abs(instance.base_cost)\n"),
    Mutant("impq_opt/verification.py", "bound", "what pinned groups use of a budget is left out",
           "* (budget.base - budget.limit)", "* (-budget.limit)"),
    Mutant("impq_opt/verification.py", "bound", "a peak that can just be reached is ruled out",
           "_constants(below, lam, multipliers) > 0:", "_constants(below, lam, multipliers) >= 0:"),
    # -- bounds of what couples groups
    Mutant("impq_opt/pricing.py", "bound", "roundings are added on, not taken off",
           "factor = 1.0 - (8 + 4 * len(couplings) + 3 * len(parts)) * _EPS",
           "factor = 1.0 + (8 + 4 * len(couplings) + 3 * len(parts)) * _EPS"),
    Mutant("impq_opt/pricing.py", "bound", "whole numbers are rounded up",
           "return np.floor(np.ldexp(values * factor, exponent)).astype(np.int64)",
           "return np.ceil(np.ldexp(values * factor, exponent)).astype(np.int64)"),
    Mutant("impq_opt/pricing.py", "bound", "what makes tables of pairs positive is not taken off again",
           "shift += Fraction(price) * exact_int_sum(np.minimum(pairs.tables.min(axis=(1, 2)), 0))",
           "shift += 0"),
    Mutant("impq_opt/pricing.py", "bound", "choices that break a limit on few groups are given away too cheaply",
           "np.where(limit.kept, 0.0, ceiling)", "np.where(limit.kept, ceiling, 0.0)"),
    # -- why there is no answer
    Mutant("impq_opt/diagnosis.py", "bound", "a budget that can just be met is called out of reach",
           "if least > instance.limit:", "if least >= instance.limit:"),
    Mutant("impq_opt/diagnosis.py", "bound", "a further budget that can just be met is called out of reach",
           "if least > budget.limit:", "if least >= budget.limit:"),
    Mutant("impq_opt/diagnosis.py", "bound", "a bound that can just be met is called out of reach",
           "if smallest > instance.bound:\n        return True", "if smallest >= instance.bound:\n        return True"),
    Mutant("impq_opt/diagnosis.py", "bound", "the least damage is taken for the largest",
           "return table.left * table.right.min()", "return table.left * table.right.max()"),
    # -- arithmetic
    Mutant("impq_opt/arithmetic.py", "numbers", "a float is not its own floor",
           "nearest != math.inf and Fraction(nearest) <= value", "nearest != math.inf and Fraction(nearest) < value"),
    Mutant("impq_opt/arithmetic.py", "numbers", "sums of integers overflow",
           "if largest * flat.size < 1 << 62:", "if largest * flat.size < 1 << 66:"),
    Mutant("impq_opt/arithmetic.py", "numbers", "the low halves lose a bit", "(flat - (high << 32)).sum()",
           "(flat & 0x7FFFFFFF).sum()"),
    Mutant("impq_opt/arithmetic.py", "numbers", "sums of rows are rounded up",
           "np.where(error < 0, np.nextafter(added, -np.inf), added)",
           "np.where(error > 0, np.nextafter(added, -np.inf), added)"),
    Mutant("impq_opt/arithmetic.py", "numbers", "a float that is not below lies above all the same",
           "if integer << (UNIT_BITS + 1 - denominator.bit_length()) >= units",
           "if integer << (UNIT_BITS + 1 - denominator.bit_length()) > units"),
    Mutant("impq_opt/arithmetic.py", "numpy numbers", "the high halves of a sum lose their place",
           "(int(sums_high[offset]) << _LOW_BITS)", "(int(sums_high[offset]) << (_LOW_BITS - 1))"),
    Mutant("impq_opt/arithmetic.py", "numpy numbers", "small sums forget a smaller denominator",
           "numerator += top * (denominator // bottom)", "numerator += top"),
    # -- compiled sums
    Mutant("impq_opt/_sums.h", "numbers", "denormals get a leading one",
           "((uint64_t)(exponent != 0) << 52)", "((uint64_t)1 << 52)"),
    Mutant("impq_opt/_sums.h", "numbers", "the sign is lost", "int64_t sign = bits >> 63 ? -1 : 1",
           "int64_t sign = 1"),
    Mutant("impq_opt/_sums.h", "numbers", "pieces too long to add without rounding", "#define CUT_BITS 46",
           "#define CUT_BITS 51"),
    Mutant("impq_opt/_sums.h", "numbers", "cuts beyond the range of float64",
           "exponent > 900 || exponent < -800", "exponent > 1030 || exponent < -800"),
    Mutant("impq_opt/_sums.h", "numbers", "what three cuts leave over is dropped",
           "for (int i = 0; i < whole && any; i++) {", "for (int i = 0; i < whole && !any; i++) {"),
    Mutant("impq_opt/_sums.h", "numbers", "the last values of a block are dropped",
           "for (int i = whole; i < count; i++)", "for (int i = whole + 1; i < count; i++)"),
    # -- the compiled recount
    Mutant("impq_opt/_exact.c", "bound", "wide groups: a column too many is a choice",
           "if (k < 0 || k >= width) {", "if (k < 0 || k > width) {"),
    Mutant("impq_opt/_exact.c", "bound", "one of eight choices outside its group is overlooked",
           "r->outside |= valid != 0xff;", "r->outside |= valid == 0;"),
    Mutant("impq_opt/_exact.c", "bound", "roundings are not taken off",
           "(lowest[i] < r->huge ? lowest[i] : r->huge) * r->factor;", "(lowest[i] < r->huge ? lowest[i] : r->huge);"),
    Mutant("impq_opt/_exact.c", "bound", "wide groups: the first cost is taken for the least",
           "least = cost[k] < least ? cost[k] : least;", "least = cost[k] < least ? least : least;"),
    Mutant("impq_opt/_exact.c", "bound", "leaves follow their worst choice",
           "least[c] = value < least[c] ? value : least[c];", "least[c] = k == 0 ? value : least[c];"),
    # -- the core
    Mutant("solvers/_core.c", "search", "states on the target are thrown away", "if (bound <= target) {",
           "if (bound < target) {",
           "a margin is taken off the bound first: it equals the target only where nothing is paid or gained, and that "
           "assignment has been completed before"),
    Mutant("solvers/_core.c", "search", "rounding may throw the optimum away",
           "gain + extra - margin * (fabs(gain)", "gain + extra + margin * (fabs(gain)"),
    Mutant("solvers/_core.c", "search", "states that just fit are not completed",
           "if (s->saved[s->left] < over)", "if (s->saved[s->left] <= over)"),
    Mutant("solvers/_core.c", "search", "a better answer by one quantum is skipped", "lower_target(s, best - 1);",
           "lower_target(s, best - 2);"),
    Mutant("solvers/_core.c", "search", "the lattice is laid from zero, not from the start",
           "(target - s->origin) % s->lattice", "target % s->lattice"),
    Mutant("solvers/_core.c", "search", "a choice of the largest damage that fits is dropped",
           "(kept[i] && damage[i] <= most)", "(kept[i] && damage[i] < most)"),
    Mutant("solvers/_core.c", "search", "the least need is not kept: states are dropped that nothing beats",
           "if (least.over < lowest) {", "if (least.over + 1 < lowest) {"),
    Mutant("solvers/_core.c", "search", "candidates of equal cost: the worse is kept",
           "(gain[k] == gain[order[i - 1]] && need[k] < need[order[i - 1]])",
           "(gain[k] == gain[order[i - 1]] && need[k] > need[order[i - 1]])",
           "the worse is kept beside the better one, and its states are dropped as dominated"),
    # -- the scan
    Mutant("solvers/_kernel.c", "scan", "wide groups: a choice close at one end only is closed",
           "at_low[k] * s->guard > below_low && at_high[k]", "at_low[k] * s->guard > below_low || at_high[k]"),
    Mutant("solvers/_kernel.c", "scan", "a row is settled while its best differs between the ends",
           "closed = _mm512_mask_cmpeq_epi64_mask(closed, best, best_high);", ";"),
    Mutant("solvers/_kernel.c", "scan", "columns past a group's last may be chosen",
           "+ (past ? PROHIBITIVE : 0)", "+ 0"),
    Mutant("solvers/_kernel.c", "scan", "the second best is forgotten at the high end",
           "closed = _mm512_mask_cmp_pd_mask(closed, _mm512_mul_pd(second_high, guard), below_high, _CMP_GT_OQ);", ";"),
    # -- hulls
    Mutant("solvers/_hulls.h", "hulls", "wide groups: of the cheapest not the least damaging starts",
           "(c[k] == c[at] && lower(d, h->whole, k, at))", "(c[k] == c[at] && lower(d, h->whole, at, k))"),
    Mutant("solvers/_hulls.h", "hulls", "of the cheapest the first starts", "if (first & (first - 1))", "if (0)"),
    Mutant("solvers/_hulls.h", "hulls", "wide groups: of equal ratios the first is taken, inside an edge",
           "if (r > best || (r == best && next >= 0 &&", "if (r > best || (r == best && next >= 99 &&"),
    Mutant("solvers/_hulls.h", "hulls", "of equal ratios any is taken",
           "if (next & (next - 1))\n                next = least_damaging",
           "if (0)\n                next = least_damaging"),
    Mutant("solvers/_hull.py", "hulls", "of the cheapest the first starts",
           "np.where(cheapest, damage, largest).argmin(axis=1)", "cheapest.argmax(axis=1)"),
    Mutant("solvers/_hull.py", "hulls", "a step overtakes the one before it",
           "last[active] = np.minimum(last[active], best)", "last[active] = best"),
    # -- several limits
    Mutant("solvers/_budgets.py", "budgets", "states on a limit are thrown away",
           "(states.used + self.least[step] <= self.limits)", "(states.used + self.least[step] < self.limits)"),
    Mutant("solvers/_budgets.py", "budgets", "rounding may throw the optimum away",
           "below = bound - self.margin", "below = bound + 1e9 * self.margin"),
    Mutant("solvers/_budgets.py", "budgets", "damages are rounded up: what fits is thrown away",
           "self.table = np.floor(np.ldexp(capped, exponent))", "self.table = np.ceil(np.ldexp(capped, exponent))"),
    Mutant("solvers/_budgets.py", "budgets", "a state is thrown away for one of its own bin",
           "np.where(bins < number, first, large)", "np.where(bins <= number, first, large)"),
    Mutant("solvers/_budgets.py", "budgets", "the gap is taken too narrow",
           "(1 + 1e-9) + 2 * point.margin", "(1 - 1e-2) - 2 * point.margin"),
    Mutant("solvers/_budgets.py", "budgets", "with one limit the cheaper and worse is not kept",
           "keep[1:] = first[1:] < best[:-1]", "keep[1:] = first[1:] + 1 < best[:-1]"),
    # -- costs that couple
    Mutant("solvers/_coupled.py", "coupled", "a domain as good as the best so far by rounding is closed",
           "return self._whole(bound) >= self.value if self.by_cost else bound >= float(self.value)",
           "return self._whole(bound) >= self.value - 1 if self.by_cost else bound >= float(self.value)"),
    Mutant("solvers/_coupled.py", "coupled", "sums of joined groups, rounded down, decide",
           "if claim.choice is None or joined.is_feasible(claim.choice):", "if claim is not None:"),
    Mutant("solvers/_coupled.py", "coupled", "what an interrupted domain left open is taken for proved",
           "every = [*self.closed, *(self._whole(node.bound) for node in self.heap)]", "every = [*self.closed]"),
    Mutant("solvers/_coupled.py", "coupled", "a child starts above its bound",
           "bound + max(more, 0.0), point)", "bound + 2 * max(more, 0.0) + 1, point)"),
    Mutant("solvers/_coupled.py", "coupled", "leaves are settled that a better answer sets otherwise",
           "gap = max(float(self.value) - point.value, 0.0) * (1 + 1e-9) + 2 * point.margin",
           "gap = max(float(self.value) - point.value, 0.0) * 0.01"),
    # -- quantizers
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "mid-tread, not mid-rise",
           ".sub_(0.5).round_()", ".round_()"),
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "a code too many at the top",
           'self.register_buffer("most", half - 1', 'self.register_buffer("most", half'),
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "a step half as wide",
           "return 2.0 ** (1 - bits) *", "return 2.0 ** (-bits) *"),
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "one bit: half the mean",
           "torch.where(self.single, 2 * mean, step)", "torch.where(self.single, mean, step)"),
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "signed codes lack the lowest",
           "least = -(2 ** (self.bits - 1)) if signed", "least = 1 - 2 ** (self.bits - 1) if signed"),
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "gradients pass outside the clip value",
           "torch.ops.aten.hardtanh_backward(gradients[0], values, *ctx.inside)", "gradients[0]"),
    Mutant("impq_opt/quantize/quantizers.py", "quantize", "root of the sum, not of the mean",
           "scale = scale / math.sqrt(values.numel() / scale.numel())", "scale = scale / math.sqrt(values.numel())"),
    # -- packing
    Mutant("impq_opt/quantize/packing.py", "quantize", "codes grow a bit when they are packed",
           "            long = widths > place\n", "            long = widths >= place\n"),
    Mutant("impq_opt/quantize/packing.py", "quantize", "bits at the end of a piece are padded, not carried over",
           "whole = len(stream) // 8 * 8", "whole = len(stream)"),
    Mutant("impq_opt/quantize/packing.py", "quantize", "pieces are read from the start of the stream",
           "flat[starts[long] + place - 8 * first]", "flat[starts[long] + place]"),
    Mutant("impq_opt/quantize/packing.py", "quantize", "unequal groups are packed as equal ones",
           "if (sizes != sizes[0]).any():", "if False:"),
    Mutant("impq_opt/quantize/packing.py", "quantize", "empty tensors are left out",
           "if tensor.data_ptr() not in latent or tensor.numel() == 0:", "if tensor.data_ptr() not in latent:",
           "an empty tensor lies at address 0, where no quantized weight lies: none is empty"),
)  # fmt: skip
