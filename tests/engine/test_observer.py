"""Several observers of the same events."""

from __future__ import annotations

import inspect

from trimtab_server.engine.observer import Observer, Observers


def test_each_observer_is_told_of_every_event_in_order():
    told = []

    class Remembers(Observer):
        def __init__(self, name):
            for event in EVENTS:
                setattr(self, event, lambda *args, event=event, **named: told.append((name, event)))

    observers = Observers(Remembers("first"), Remembers("second"))
    for event in EVENTS:
        arguments = inspect.signature(getattr(Observer, event)).parameters.values()
        named = {each.name: True for each in arguments if each.kind is each.KEYWORD_ONLY}
        getattr(observers, event)(*["x"] * (len(arguments) - 1 - len(named)), **named)
    assert told == [(name, event) for event in EVENTS for name in ("first", "second")]
    assert len(EVENTS) > 20


EVENTS = [name for name, value in vars(Observer).items() if inspect.isfunction(value)]
