"""ENGINES.md has each field of what an engine gets, with the type and shape that it has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.engine import EngineAnswer
from trimtab_client.worker.offer import Flip, StateEvent, SwitchOffer
from trimtab_tools.conformance import CASES, Verdict
from trimtab_tools.conformance.inprocess import make_group
from trimtab_tools.conformance.reference import NumpyEngine

ENGINES = (Path(__file__).parents[3] / "ENGINES.md").read_text()


def documented(kind: str) -> dict[str, str]:
    """The type of each field in the table of a class."""
    (table,) = re.findall(
        rf"^\|[^|\n]*`{kind}`[^|\n]*\|.*\n\|---.*\n((?:\|.*\n)+)", ENGINES, re.MULTILINE
    )
    rows = [line.split(" | ") for line in table.splitlines()]
    return {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


class Recording(NumpyEngine):
    """A reference engine that keeps what it gets."""

    offers: list[SwitchOffer] = []  # noqa: RUF012
    flips: list[Flip] = []  # noqa: RUF012

    def on_offer(self, offer: SwitchOffer) -> Any:
        self.offers.append(offer)
        return super().on_offer(offer)

    def flip(self, flip: Flip) -> None:
        self.flips.append(flip)
        super().flip(flip)


def assert_is(value: Any, said: str, sizes: dict[str, int], name: str) -> None:
    """A value has the documented type; a letter stands for one size, but M."""
    if not said.startswith("int32"):
        assert type(value).__name__ == said, name
        return
    assert value.dtype == np.int32, name
    letters = re.findall(r"\w+", said.removeprefix("int32"))
    assert len(letters) == value.ndim, name
    for letter, size in zip(letters, value.shape, strict=True):
        if letter.isdecimal():
            assert int(letter) == size, name
        elif letter not in "MX":
            assert sizes.setdefault(letter, size) == size, (name, letter)


def test_offers_flips_and_placements_are_as_documented():
    case = next(case for case in CASES if str(case) == "pull-switch-each")
    assert case.run(lambda spec: make_group(spec, Recording)).verdict is Verdict.OK
    assert any(len(offer.sends) and len(offer.copies) for offer in Recording.offers)

    of_offer, of_flip = documented("SwitchOffer"), documented("Flip")
    of_placement = documented("Placement")
    assert of_offer.keys() == {*(field.name for field in fields(SwitchOffer)), "digest"}
    assert of_flip.keys() == {"offer", "step", "version", "placement", "layers"}
    for offer in Recording.offers:
        sizes: dict[str, int] = {"L": len(offer.placement.phy2log)}
        for name, said in of_offer.items():
            assert_is(getattr(offer, name), said, sizes, name)
        for name, said in of_placement.items():
            assert_is(getattr(offer.placement, name), said, sizes, name)
        assert len(offer.receive_sources) == len(offer.receives)
        assert (sizes["E"], sizes["R"] % offer.placement.num_gpus) == (
            offer.placement.num_experts,
            0,
        )
    assert Recording.flips
    for flip in Recording.flips:
        assert_is(flip.offer, of_flip["offer"], {}, "offer")
        assert_is(flip.step, of_flip["step"], {}, "step")
        assert (flip.version, flip.layers) == (flip.offer.version, flip.offer.layers)


def test_answers_and_events_are_documented_field_by_field():
    assert documented("EngineAnswer").keys() == {field.name for field in fields(EngineAnswer)}
    assert documented("StateEvent").keys() == {field.name for field in fields(StateEvent)}
