"""Whatever a score file holds, reading it gives a problem or one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from formats import format_named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impq_opt.errors import ImpqError
from impq_opt.problem.problem import Problem

KEYS = [
    "groups", "layers", "candidates", "dkld", "dbits", "base", "alts", "bpw", "base_kld", "candidate_stats", "formats",
    "scores", "costs", "module_names", "uncompressed_cost", "method", "version", "score_granularity", "layer_scores",
    "scheme", "bits", "group_size", "sym", "data_type", "act_bits", "a", "b",
]  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(allow_nan=True), st.sampled_from(["per_op", "x", "1", ""])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)
number = st.one_of(st.integers(-3, 10**6), st.floats(-1e6, 1e6), scalars)

exllamav3 = st.fixed_dictionaries(
    {
        "groups": st.lists(
            st.fixed_dictionaries(
                {
                    "layers": st.lists(st.sampled_from(["a", "b", "c"]) | scalars, max_size=2),
                    "candidates": st.lists(st.fixed_dictionaries({"dkld": number, "dbits": number}), max_size=3),
                }
            ),
            max_size=3,
        )
    },
    optional={"base": anything, "alts": anything, "base_kld": anything},
)
modelopt = st.fixed_dictionaries(
    {
        "candidate_stats": st.dictionaries(
            st.sampled_from(["a.quant_recipe", "b.quant_recipe", "c"]),
            st.fixed_dictionaries(
                {
                    "formats": st.lists(st.sampled_from(["NVFP4", "FP8", "NONE"]) | scalars, max_size=3),
                    "scores": st.lists(number, max_size=3),
                    "costs": st.lists(number, max_size=3),
                },
                optional={"module_names": anything, "uncompressed_cost": anything},
            ),
            max_size=3,
        )
    },
    optional={"method": anything},
)
cache = st.fixed_dictionaries(
    {
        "version": st.just(1) | scalars,
        "score_granularity": st.just("per_op") | scalars,
        "scheme": st.dictionaries(st.sampled_from(["bits", "group_size", "sym", "data_type", "act_bits"]), anything),
        "layer_scores": st.dictionaries(
            st.sampled_from(["a", "b"]), st.tuples(number, number).map(list) | anything, max_size=2
        ),
    }
)


@pytest.mark.parametrize(
    ("name", "documents"),
    [
        ("exllamav3", exllamav3 | anything),
        ("modelopt", modelopt | anything),
        ("autoround", st.lists(cache | anything, min_size=1, max_size=2)),
        ("csv", st.dictionaries(st.sampled_from(["group", "bits", "damage", "size", "cost", "sensitivity", "kind"]),
                                st.lists(number | st.text(max_size=3), min_size=2, max_size=2))),
    ],
)  # fmt: skip
def test_any_document_is_read_or_told(name: str, documents: Any) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents)
    def check(document: Any) -> None:
        document = json.loads(json.dumps(document))
        try:
            problem = format_named(name).problem(document)
        except ImpqError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(problem, Problem)

    check()
