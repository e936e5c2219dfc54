"""What every plug-in must keep: conformance suites, for those that ship and for those of third parties.

One function a kind, each raising :class:`ConformanceError` with the rule that was broken:
:func:`check_strategy`, :func:`check_cost`, :func:`check_metric`, :func:`check_format`, :func:`check_encodings`,
:func:`check_method`, :func:`check_policy` and :func:`check_calibration`. ::

    import pytest
    from impq_opt.testing import CASES, check_strategy

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_my_strategy(case):
        check_strategy(MySolver(), case)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from impq_opt.testing.cases import CASES, Case, random_case
from impq_opt.testing.costs import check_cost
from impq_opt.testing.encodings import check_encodings
from impq_opt.testing.formats import check_format
from impq_opt.testing.policies import POLICY_CASES, PolicyCase, check_policy
from impq_opt.testing.rules import ConformanceError
from impq_opt.testing.strategies import check_strategy

if TYPE_CHECKING:
    from impq_opt.testing.calibrations import check_calibration
    from impq_opt.testing.methods import check_method
    from impq_opt.testing.metrics import check_metric

__all__ = [
    "CASES",
    "POLICY_CASES",
    "Case",
    "ConformanceError",
    "PolicyCase",
    "check_calibration",
    "check_cost",
    "check_encodings",
    "check_format",
    "check_method",
    "check_metric",
    "check_policy",
    "check_strategy",
    "random_case",
]

# These need torch, which is loaded when they are asked for.
_LATER = {
    "check_calibration": "impq_opt.testing.calibrations",
    "check_method": "impq_opt.testing.methods",
    "check_metric": "impq_opt.testing.metrics",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
