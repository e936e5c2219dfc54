"""How large numbers may be, in one place: what the arithmetic of the solvers relies on.

Costs are int64. The sum over all groups of a row's largest costs, signs left out, stays below :data:`LARGEST_TOTAL`:
terms and rows are checked when they are made (``costs.terms``, ``instance.cost_row``), and what is made of a row later
(ties merged, clusters joined, groups settled) has the same sums. From that follow, for any set of groups,

* a cost is below 2**61, a difference of two costs of a group below 2**62;
* sums of such differences, one a group, are below 2**62 in absolute value: gains and needs of a core, hull steps;
* a sum of differences less a room of at most :data:`UNLIMITED` stays in int64.

setup.py hands the names in capitals to the C parts, which say again what they were built with. Imports nothing, so that
it can be read without the package.
"""

__all__ = [
    "ABOVE_ALL_DAMAGE",
    "CORE_BITS",
    "LARGEST_SIZES",
    "LARGEST_TOTAL",
    "MOST_COLUMNS",
    "MOST_MACS",
    "MOST_STATES",
    "MOST_TERMS",
    "PROHIBITIVE",
    "SHORT_COLUMNS",
    "UNLIMITED",
    "clamped",
    "shared",
]

# Sums of a row's costs stay below this, whatever their signs.
LARGEST_TOTAL = 1 << 61
# Sums of sizes times bits stay below this: with room for weights, and for parts of a bit.
LARGEST_SIZES = 1 << 55
# On top of a cost, for a column that stands for no candidate. No two candidates of a group are so far apart, and a cost
# with it, less any other of its group, is below 2**63.
PROHIBITIVE = 2 * LARGEST_TOTAL
# A room, or a target, that no sum of differences of costs reaches.
UNLIMITED = 2 * LARGEST_TOTAL
# Damages of a core are whole numbers of a unit of which no assignment has 2**CORE_BITS.
CORE_BITS = 60
# More damage than 2**32 groups can do, each less than 2**1024.
ABOVE_ALL_DAMAGE = 1 << 1056
# Multiply-accumulates of a network: their number and 64 times that are exact in float64 and far from overflow.
MOST_MACS = 1 << 53
# Compiled code keeps a group in arrays of this size; NumPy takes wider ones.
MOST_COLUMNS = 64
# Compiled sums of damages of more terms could overflow.
MOST_TERMS = 1 << 30
# Columns up to this many have numbers of 16 bits.
SHORT_COLUMNS = 1 << 16
# States of a dynamic program: places among a stage's states, before it drops any, have 31 bits.
MOST_STATES = ((1 << 31) - 1) // MOST_COLUMNS


def clamped(value: int) -> int:
    """Return a room or a target, no further out than what none reaches."""
    return max(min(value, UNLIMITED), -UNLIMITED)


def shared() -> dict[str, int]:
    """Return the limits that the C parts are built with, by name."""
    return {"MOST_COLUMNS": MOST_COLUMNS, "MOST_TERMS": MOST_TERMS, "PROHIBITIVE": PROHIBITIVE}
