"""The conformance suite: what every strategy must keep, for the shipped ones and for those of third parties.

::

    import pytest
    from impq_opt.testing import CASES, check_strategy

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_my_strategy(case):
        check_strategy(MySolver(), case)
"""

from impq_opt.testing.cases import CASES, Case, random_case
from impq_opt.testing.checks import ConformanceError, check_strategy

__all__ = ["CASES", "Case", "ConformanceError", "check_strategy", "random_case"]
