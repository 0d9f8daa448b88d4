"""The conformance kit: does an engine's adapter keep the contract of ENGINES.md?

`check_engine` plays all cases; `CASES` are for a test runner. The kit makes groups of ranks,
calls them as sessions and engines would, on threads as they would, and judges nothing but
what the ranks compute and how they route.
"""

from trimtab_tools.conformance.case import Case, Result, Verdict
from trimtab_tools.conformance.cases import CASES
from trimtab_tools.conformance.check import Report, check_engine
from trimtab_tools.conformance.shape import Owners, Shape

__all__ = ["CASES", "Case", "Owners", "Report", "Result", "Shape", "Verdict", "check_engine"]
