"""Where the exact strategy turns from one way to another: numbers that were measured, not options.

What is proved holds with any of them; they decide how soon, and which of several equal answers is met first.
"""

from __future__ import annotations

from dataclasses import dataclass

from impq_opt.exactness.limits import MOST_STATES

__all__ = ["Tuning"]


@dataclass(frozen=True)
class Tuning:
    """Numbers that one run of the exact strategy goes by, handed down from :class:`~.strategy.Exact`.

    Parameters
    ----------
    enumerated : int
        Assignments of several limits, or of groups that share costs, that are looked at one by one: they take
        milliseconds, less than the prices of the limits.
    last_resort, last_resort_groups : int
        Assignments, and groups, that are enumerated where nothing else settles them.
    joined : int
        Combinations of a cluster of coupled groups that becomes one group: three of eight candidates, four of four.
    budget_states, whole_states : int
        Partial choices under several limits: in arrays, and in Python's whole numbers, which take some hundred bytes
        each.
    deepest : int
        Groups that are branched on one inside the other.
    all_kept : int
        Up to this many groups no pass is needed: all of them are priced and kept.
    tiny : int
        So few groups are searched as soon as passed over, or filled up.
    close_groups, close_share : int, float
        Groups that the first pass keeps because a second choice comes close: about so many, and at least this share.
    sorted_at_once : int
        Few enough groups to sort the steps of their hulls.
    sample, many : int
        Groups of the sample that brackets the price; from ``many`` groups on, four times as many pay: they leave fewer
        open.
    sigmas : float
        Half-width of the sample's bracket in standard errors: it fails once in some thousands, and is checked.
    narrow : float
        A bracket is narrow enough for a line where its ends differ by less than this factor.
    stray, bend : float
        Half-widths of a bracket around a point of that line, as shares of the outer one: per root of a step, and in any
        case.
    near_steps : int
        Known steps on either side of the break, of which half are kept open.
    fill_groups, fill_changes : int
        Groups that are filled up, and changes of theirs.
    first_core, growth : int
        Groups of the first core, and the factor by which it grows.
    trial_states : int
        States of a core that is only one step of the growth.
    open_groups, ordinary : int, float
        From so many open groups on, settling one that outweighs the others is worth a search of its own for each
        candidate; such a share of them must span less than the gap: it is then none of theirs.
    counting : bool
        Whether the groups that pay are counted where all have two choices.
    bundled : int
        Up to this many groups of a core it does not pay to look for equal ones.
    doubtful : int
        Assignments that rounding leaves open and exact sums settle.
    domains : int
        Domains of a branch and bound over damages that interact.
    most_states : int
        States that have numbers, whatever is asked for.
    """

    enumerated: int = 1 << 13
    last_resort: int = 1 << 18
    last_resort_groups: int = 64
    joined: int = 512
    budget_states: int = 400_000
    whole_states: int = 400_000
    deepest: int = 3
    all_kept: int = 16_384
    tiny: int = 96
    close_groups: int = 15_000
    close_share: float = 0.0015
    sorted_at_once: int = 4096
    sample: int = 8192
    many: int = 1 << 21
    sigmas: float = 3.5
    narrow: float = 4.0
    stray: float = 3.0
    bend: float = 0.005
    near_steps: int = 48
    fill_groups: int = 2048
    fill_changes: int = 256
    first_core: int = 48
    growth: int = 4
    trial_states: int = 200_000
    open_groups: int = 1024
    ordinary: float = 0.99
    counting: bool = True
    bundled: int = 512
    doubtful: int = 1 << 14
    domains: int = 200_000
    most_states: int = MOST_STATES
