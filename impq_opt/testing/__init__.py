"""The conformance suites: what every strategy and every policy of rounds must keep, those of third parties too.

::

    import pytest
    from impq_opt.testing import CASES, check_strategy

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_my_strategy(case):
        check_strategy(MySolver(), case)

Policies have :func:`check_policy` and ``POLICY_CASES``.
"""

from impq_opt.testing.cases import CASES, Case, random_case
from impq_opt.testing.checks import ConformanceError, check_strategy
from impq_opt.testing.policies import POLICY_CASES, PolicyCase, check_policy

__all__ = [
    "CASES",
    "POLICY_CASES",
    "Case",
    "ConformanceError",
    "PolicyCase",
    "check_policy",
    "check_strategy",
    "random_case",
]
