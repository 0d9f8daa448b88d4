"""The conformance kit: checks whether an engine's adapter keeps the contract of ENGINES.md.

`check_engine` runs all cases; `CASES` are for a test runner. The kit makes groups of ranks,
calls them as sessions and engines do, on threads as they have, and checks only what the ranks
compute and how they route.
"""

from trimtab_tools.conformance.case import Case, Result, Verdict
from trimtab_tools.conformance.cases import CASES
from trimtab_tools.conformance.check import Report, check_engine
from trimtab_tools.conformance.shape import Owners, Shape

__all__ = ["CASES", "Case", "Owners", "Report", "Result", "Shape", "Verdict", "check_engine"]
