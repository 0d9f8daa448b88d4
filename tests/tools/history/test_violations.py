"""The checker of histories names planted violations."""

from __future__ import annotations

import pytest

from tests.tools.history.plants import PLANTS, Plant
from tests.tools.history.runs import Run, clean, clean_run, index_of, judge, name_of, with_terms
from trimtab_tools.history.check import RULES


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.told)
def test_a_planted_violation_is_found_and_named_once(plant: Plant) -> None:
    """Later lines are compared with the correct state, as far as that is known."""
    lines, other = clean(), Run("e", seed=1)
    other.opened()
    other.switched()
    assert judge([*lines, *other.lines], complete=True).violations == ()

    blamed = plant.into(lines)
    violations = judge([*lines, *other.lines], complete=True).violations

    assert sorted(violation.invariant for violation in violations) == plant.codes
    deployment = "" if plant.codes == ["P1"] else "d"
    assert {violation.deployment for violation in violations} == {deployment}
    (told,) = (v for v in violations if plant.saying in v.message)
    assert lines[told.line - 1] is blamed


def test_every_rule_has_a_planted_violation() -> None:
    assert {code for plant in PLANTS for code in plant.codes} == {*RULES, "P1", "liveness"}


def test_a_violation_reads_as_one_line() -> None:
    lines = clean()
    number = index_of(lines, "flipped 1.4 w1") + 1
    lines[number - 1]["step"] += 1

    (violation,) = judge(lines).violations

    assert str(violation) == f"line {number}: I5: d: {violation.message}"


def test_a_server_that_has_lost_its_store_may_use_generations_again() -> None:
    """Its terms restart, which P1 reports. Generations of the lost store do not count."""
    run = clean_run()
    run.started()
    run.opened()
    run.generation = 0
    run.switched()  # 3.1
    lines = with_terms(run.lines)
    lines[index_of(lines, "started 3")]["term"] = 1

    assert {violation.invariant for violation in judge(lines).violations} == {"P1"}


@pytest.mark.parametrize(
    ("last", "dropped", "blamed", "saying"),
    [
        ("offered 2.6", None, "offered 2.6", "the switch to 2.6 is still offered at the end"),
        ("commit_sent 2.6", None, "offered 2.6", "the switch to 2.6 is still committed at the end"),
        (
            "in_force 2.0 w1",
            "in_force 2.0 w0",
            "flipped 1.4 w0",
            "'w0' (incarnation 1) is at 1.4 at the end, but 2.0 was applied",
        ),
        (
            "in_force 2.0 w1",
            "in_force 2.0 w1",
            "epoch 2",
            "'w1' (incarnation 2) never served in epoch 2",
        ),
    ],
)
def test_what_is_not_at_rest_at_the_end_of_a_complete_run_is_reported(
    last: str, dropped: str | None, blamed: str, saying: str
) -> None:
    lines = clean()
    lines = lines[: index_of(lines, last) + 1]
    lines = [line for line in lines if name_of(line) != dropped]

    assert judge(lines).violations == ()
    (violation,) = judge(lines, complete=True).violations

    assert violation.invariant == "liveness"
    assert saying in violation.message
    assert violation.line == index_of(lines, blamed) + 1
