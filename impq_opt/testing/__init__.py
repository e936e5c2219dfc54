"""The conformance suites: what every strategy and every method must keep, shipped ones and those of third parties.

::

    import pytest
    from impq_opt.testing import CASES, check_method, check_strategy

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_my_strategy(case):
        check_strategy(MySolver(), case)

    def test_my_method():
        check_method(MyMethod())
"""

from typing import TYPE_CHECKING, Any

from impq_opt.testing.cases import CASES, Case, random_case
from impq_opt.testing.checks import ConformanceError, check_strategy

if TYPE_CHECKING:
    from impq_opt.testing.methods import check_method

__all__ = ["CASES", "Case", "ConformanceError", "check_method", "check_strategy", "random_case"]


def __getattr__(name: str) -> Any:
    if name == "check_method":  # needs torch, which strategies do without
        from impq_opt.testing.methods import check_method

        return check_method
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
