"""Hypothesis strategies: problems of every form, small enough for exhaustive search."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from impq_opt import Problem

bits = st.lists(st.sampled_from([1, 2, 3, 4, 4.5, 5, 6, 8, 16]), min_size=1, max_size=4, unique=True)
damages = st.one_of(
    st.just(0.0),
    st.floats(1e-12, 1e3),
    st.floats(5e-324, 1e-300),
    st.sampled_from([0.1, 0.2, 0.3, 0.25, 1 / 3]),
)
bounds = st.floats(1e-12, 1e3)


@st.composite
def structured(draw: st.DrawFn) -> Problem:
    """Sizes, sensitivities and one list of candidates."""
    count = draw(st.integers(1, 5))
    return Problem.from_sensitivities(
        draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count)),
        draw(st.lists(damages, min_size=count, max_size=count)),
        bits=draw(bits),
    )


@st.composite
def tables(draw: st.DrawFn) -> Problem:
    """Tables of any shape, ragged in one half."""
    count, width = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    cost = draw(
        st.lists(st.lists(st.integers(-50, 50), min_size=width, max_size=width), min_size=count, max_size=count)
    )
    damage = draw(st.lists(st.lists(damages, min_size=width, max_size=width), min_size=count, max_size=count))
    ragged = None
    if draw(st.booleans()):
        ragged = [list(range(1, draw(st.integers(1, width)) + 1)) for _ in range(count)]
    return Problem.from_tables(np.array(cost), np.array(damage), bits=ragged)


@st.composite
def restricted(draw: st.DrawFn) -> Problem:
    """Any problem, perhaps with a pin and a tie."""
    problem = draw(st.one_of(structured(), tables()))
    names = problem.names
    if len(problem) >= 2 and draw(st.booleans()) and set(problem.candidates.of(0)) & set(problem.candidates.of(1)):
        problem = problem.revise(ties=[(names[0], names[1])])
    if len(problem) >= 3 and draw(st.booleans()):
        group = draw(st.integers(2, len(problem) - 1))
        problem = problem.revise(pins={names[group]: draw(st.sampled_from(problem.candidates.of(group)))})
    return problem
