"""One server, one engine group and the network between them, as state machines only.

Everything that can happen next is an action; who picks them (a seeded generator, hypothesis)
decides the schedule. The server's writes are durable one by one, and it can die between any
two effects; messages can be late, doubled, reordered or lost with their stream; workers die
and form new groups. What happened is kept as a history.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from trimtab_client.placement import Placement as ClientPlacement
from trimtab_client.worker import switch as worker_side
from trimtab_client.worker.offer import SwitchOffer
from trimtab_client.worker.switch import WorkerSwitch
from trimtab_protocol.history import Again, Event, Flipped, InForce, Started
from trimtab_protocol.lines import encode_line, kind_of
from trimtab_protocol.messages import Hello, Transfers
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.placement import placement_of
from trimtab_server.rollout import effects as server_effects
from trimtab_server.rollout.record import Record
from trimtab_server.rollout.rollout import Rollout

LAYERS, EXPERTS, SLOTS_PER_GPU = 1, 3, 2
Action = tuple[Any, ...]
"""A name, a method of the world, and its arguments."""


@dataclass(frozen=True)
class Shape:
    """The parameters of a world.

    Attributes:
        workers: in the group.
        gpus_each: GPUs that each worker owns.
        every: steps from one barrier to the next.
        collective: whether transfers start on all ranks at once.
        reorder: whether messages of one stream may overtake each other.
    """

    workers: int = 2
    gpus_each: int = 2
    every: int = 1
    collective: bool = False
    reorder: bool = False

    @property
    def gpus(self) -> int:
        return self.workers * self.gpus_each


@dataclass
class Link:
    """A stream: the messages under way in each direction, and whether each end still reads."""

    number: int
    worker: str
    up: list[Any] = field(default_factory=list)
    down: list[tuple[int, Any]] = field(default_factory=list)
    worker_open: bool = True
    server_open: bool = True


@dataclass
class Rank:
    """A worker's process: its state machine, its engine's loop, and its transfers."""

    name: str
    switch: WorkerSwitch
    step: int = 0
    waiting: bool = False
    flipping: Any = None
    transfers: list[Any] = field(default_factory=list)
    link: Link | None = None


class World:
    """The whole world. `actions` lists the possible actions; `quiesce` brings it to rest."""

    def __init__(self, shape: Shape, rng: random.Random) -> None:
        self.shape = shape
        self.rng = rng
        self.histories: list[list[server_effects.Note]] = [[]]
        self.alarms: list[str] = []
        self.stores_lost = 0
        self.highest_epoch = 0
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()
        self.record = Record()  # the content of the disk
        self.term = 0
        self.rollout: Rollout | None = None
        self.die_after: int | None = None
        self.draining = False
        self.expiries: list[Version] = []
        self.links: list[Link] = []
        self.sessions = 0
        self.groups = 0
        self.incarnations = 0
        self.barriers: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.served: dict[int, bytes] = {}
        self.splits: list[str] = []
        self.started: dict[Version, set[str]] = defaultdict(set)
        self.ranks: dict[str, Rank] = {}
        self.faults = True
        self.start_server()
        self.form_group()

    # Actions.

    def actions(self) -> list[Action]:
        """All actions that are possible now."""
        self.links = [link for link in self.links if link.worker_open or link.server_open]
        possible: list[Action] = []
        for rank in self.ranks.values():
            possible += self._rank_actions(rank)
        for link in self.links:
            possible += self._link_actions(link)
        if self.rollout is None:
            possible.append(("start server", self.start_server))
        else:
            if self.rollout.blocked_reason() is None:
                possible.append(("propose", self.propose))
            possible += [("expire", self.expire, version) for version in self.expiries]
            if self.rollout.record.paused is not None:
                possible.append(("resume", self.resume))
        if len(self.ranks) < self.shape.workers:
            possible.append(("form group", self.form_group))
        return [*possible, *self._faults()] if self.faults else possible

    def act(self, action: Action) -> None:
        _, method, *arguments = action
        method(*arguments)

    def _rank_actions(self, rank: Rank) -> Iterator[Action]:
        if rank.flipping is not None:
            yield "flip", self.finish_flip, rank
        elif self.can_step(rank):
            yield "step", self.step, rank
        if rank.link is None and self.rollout is not None:
            yield "connect", self.connect, rank
        for offer in rank.transfers:
            if self.can_finish(offer):
                yield "transfer", self.finish_transfer, rank, offer, None
                if self.faults:
                    yield "fail transfer", self.finish_transfer, rank, offer, "no room"

    def _link_actions(self, link: Link) -> Iterator[Action]:
        if link.up and link.server_open and self.rollout is not None:
            yield "up", self.deliver_up, link
        if link.down and link.worker_open:
            yield "down", self.deliver_down, link
        if not link.worker_open and link.server_open and not link.up:
            yield "server notices", self.server_notices, link
        if not link.server_open and link.worker_open and not link.down:
            yield "worker notices", self.worker_notices, link

    def _faults(self) -> Iterator[Action]:
        if self.rollout is not None:
            if self.draining:
                yield "end", self.kill_server
            yield "kill server", self.kill_server
            yield "kill server later", self.kill_server_later
            if self.rollout.record.paused is None:
                yield "pause", self.pause
            yield "drain", self.drain
        for rank in self.ranks.values():
            yield "kill worker", self.kill_worker, rank
            if rank.link is not None:
                yield "lose stream", self.lose_stream, rank
        yield "form group", self.form_group
        yield "lose store", self.lose_store

    # The server.

    def start_server(self) -> None:
        self.term += 1
        self.die_after = None
        self.rollout = Rollout(self.record, self.shape.gpus)
        self.expiries.clear()
        self.note(Started(self.term))
        self.perform(self.rollout.started())

    def kill_server(self) -> None:
        self.rollout = None
        self.die_after = None
        self.draining = False
        for link in self.links:
            link.server_open = False
            link.up.clear()

    def lose_store(self) -> None:
        """The server dies, and its disk with it: the next one starts with an empty one."""
        self.kill_server()
        self.stores_lost += 1
        self.record, self.term = Record(), 0

    def kill_server_later(self) -> None:
        """Die after a few more effects."""
        self.die_after = self.rng.randrange(8)

    def perform(self, effects: list[Any]) -> None:
        """Carry out the server's effects, unless it dies half-way."""
        for effect in effects:
            if self.die_after is not None:
                if self.die_after == 0:
                    self.kill_server()
                    return
                self.die_after -= 1
            match effect:
                case server_effects.Save(record):
                    self._save(record)
                case server_effects.Send(session, order):
                    for link in self.links:
                        if link.number == session and link.server_open:
                            link.down.append((self.term, order))
                case server_effects.Close(session, _, _):
                    for link in self.links:
                        link.server_open &= link.number != session
                case server_effects.Expire(version):
                    self.expiries.append(version)
                case server_effects.Alarm(reason):
                    self.alarms.append(reason)
                case server_effects.Note(event):
                    self.note(event)

    def deliver_up(self, link: Link) -> None:
        message = self._take(link.up, link)
        if isinstance(message, Hello):
            if message.term > self.term:
                self.term = message.term + 1
            self.perform(self.rollout.joined(link.number, message))
        else:
            self.perform(self.rollout.answered(link.number, message))

    def server_notices(self, link: Link) -> None:
        link.server_open = False
        if self.rollout is not None:
            self.perform(self.rollout.left(link.number))

    def propose(self) -> None:
        placement = self.some_placement()
        _, served = self.rollout.record.served
        if placement.digest != served.digest:
            self.perform(self.rollout.propose(placement))

    def expire(self, version: Version) -> None:
        self.expiries.remove(version)
        self.perform(self.rollout.expired(version))

    def pause(self) -> None:
        self.perform(self.rollout.pause("an operator asked"))

    def resume(self) -> None:
        self.perform(self.rollout.resume())

    def drain(self) -> None:
        """Offer nothing more, and end soon after."""
        self.draining = True
        self.perform(self.rollout.drain())

    # The workers and their engine.

    def form_group(self) -> None:
        """The engine forms a group of all ranks; those that died start again."""
        self.groups += 1
        group_id = f"group {self.groups}"
        survivors = list(self.ranks.values())
        placement = self._placement_of_new_group(survivors)
        self.barriers.clear()
        self.served.clear()
        self.started.clear()
        for rank in survivors:
            self._regroup(rank, group_id, placement)
        for index in range(self.shape.workers):
            name = f"worker {index}"
            if name not in self.ranks:
                self.ranks[name] = self._start_rank(index, name, group_id, placement)
        for rank in self.ranks.values():
            rank.step, rank.waiting = 0, False

    def _placement_of_new_group(self, survivors: list[Rank]) -> ClientPlacement:
        """The placement that all ranks load: that of a survivor, or the first of the engine."""
        if survivors and self.rng.random() < 0.8:
            return self.rng.choice(survivors).switch.placement
        shape = self.shape
        return ClientPlacement.untouched(LAYERS, EXPERTS, shape.gpus * SLOTS_PER_GPU, shape.gpus)

    def _regroup(self, rank: Rank, group_id: str, placement: ClientPlacement) -> None:
        if rank.flipping is not None:
            # Its process cannot leave a flip half done.
            self.finish_flip(rank)
        if rank.link is not None:
            rank.link.worker_open = False
            rank.link = None
        self.perform_on(rank, rank.switch.regroup(group_id, placement))
        for offer in list(rank.transfers):
            # The old group's communicator is gone, and with it what ran over it.
            if self.shape.collective:
                self.finish_transfer(rank, offer, "the group has ended")

    def _start_rank(self, index: int, name: str, group_id: str, placement: ClientPlacement) -> Rank:
        self.incarnations += 1
        each = self.shape.gpus_each
        switch = WorkerSwitch(
            group_id=group_id,
            worker=name,
            incarnation=self.incarnations,
            gpus=tuple(range(index * each, (index + 1) * each)),
            placement=placement,
            collective=self.shape.collective,
        )
        return Rank(name, switch)

    def kill_worker(self, rank: Rank) -> None:
        del self.ranks[rank.name]
        if rank.link is not None:
            rank.link.worker_open = False

    def connect(self, rank: Rank) -> None:
        self.sessions += 1
        rank.link = Link(self.sessions, rank.name)
        self.links.append(rank.link)
        rank.link.up.append(rank.switch.connected(self.sessions))

    def lose_stream(self, rank: Rank) -> None:
        """Both directions break; what was under way to the server may still arrive."""
        assert rank.link is not None
        rank.link.worker_open = False
        rank.switch.disconnected(rank.link.number)
        if self.rng.random() < 0.5:
            rank.link.up.clear()
        rank.link = None

    def worker_notices(self, link: Link) -> None:
        link.worker_open = False
        rank = self.ranks.get(link.worker)
        if rank is not None and rank.link is link:
            rank.switch.disconnected(link.number)
            rank.link = None

    def deliver_down(self, link: Link) -> None:
        term, order = self._take(link.down, link)
        rank = self.ranks[link.worker]
        self.perform_on(rank, rank.switch.ordered(link.number, term, _order_down(order)))

    def perform_on(self, rank: Rank, effects: list[Any]) -> None:
        """Carry out a worker's effects."""
        for effect in effects:
            match effect:
                case worker_side.Prepare(offer):
                    rank.transfers.append(offer)
                    self.started[offer.version].add(rank.name)
                case worker_side.Discard(offer):
                    assert offer not in rank.transfers, "staging was freed under a transfer"
                case worker_side.Flip(offer):
                    assert offer not in rank.transfers, "a flip to what is not there yet"
                    rank.flipping = offer
                case worker_side.Complain(reason):
                    self.complaints.append(reason)
                case Flipped() | InForce():
                    self.note(effect)
                case answer:
                    assert rank.link is not None
                    rank.link.up.append(answer)

    def can_finish(self, offer: Any) -> bool:
        """A collective transfer ends only where all ranks have started it."""
        return not self.shape.collective or self.started[offer.version] >= self.ranks.keys()

    def finish_transfer(self, rank: Rank, offer: Any, failure: str | None) -> None:
        rank.transfers.remove(offer)
        self.perform_on(rank, rank.switch.prepared(offer.version, failure))

    def can_step(self, rank: Rank) -> bool:
        """Whether the engine's loop is not waiting for other ranks."""
        if rank.flipping is not None or len(self.ranks) < self.shape.workers:
            return False
        return not rank.waiting or len(self.barriers[rank.step]) == self.shape.workers

    def step(self, rank: Rank) -> None:
        """Take a step. At a barrier, contribute this rank's part first, then handle the result."""
        if rank.step % self.shape.every == 0 and not rank.waiting:
            self.barriers[rank.step][rank.name] = rank.switch.contribute()
            rank.waiting = True
            served = self.served.setdefault(rank.step, rank.switch.placement.digest)
            if served != rank.switch.placement.digest:
                self.splits.append(f"{rank.name} routes by another map at step {rank.step}")
            return
        if rank.waiting:
            rank.waiting = False
            brought = self.barriers[rank.step]
            accepted, armed = (min(column) for column in zip(*brought.values(), strict=True))
            self.perform_on(rank, rank.switch.agreed(accepted, armed))
            if rank.flipping is not None:
                return
        rank.step += 1

    def finish_flip(self, rank: Rank) -> None:
        rank.flipping = None
        self.perform_on(rank, rank.switch.flipped(rank.step))
        rank.step += 1

    # Rest.

    def quiesce(self) -> None:
        """Faults stop and steps go on: everything under way comes to its end."""
        self.faults = False
        self.die_after = None
        if self.draining:
            self.kill_server()
        for _ in range(2000 * self.shape.workers):
            pending = self.actions()
            urgent = [each for each in pending if each[0] not in ("propose", "expire", "step")]
            steps = [each for each in pending if each[0] == "step"]
            # A refused worker comes back later, and may need another step first.
            if urgent and not (steps and self.rng.random() < 0.1):
                self.act(self.rng.choice(urgent))
            elif self.is_at_rest():
                return
            elif steps:
                self.act(self.rng.choice(steps))
            else:
                return

    def switch_once_more(self) -> None:
        """From rest, with no faults: an offer is carried out to its end."""
        while self.record.switch is None:
            self.propose()
        self.quiesce()

    def is_at_rest(self) -> bool:
        """Whether only steps and offers are possible."""
        switches = [rank.switch for rank in self.ranks.values()]
        return (
            self.rollout is not None
            and self.rollout.record.switch is None
            and self.rollout.blocked_reason() is None
            and all(switch.in_force == self.rollout.record.in_force for switch in switches)
        )

    # Helpers.

    def some_placement(self) -> Placement:
        """A random placement in which every expert has a slot."""
        slots = self.shape.gpus * SLOTS_PER_GPU
        row = [*range(EXPERTS), *(self.rng.randrange(EXPERTS) for _ in range(slots - EXPERTS))]
        self.rng.shuffle(row)
        return placement_of(np.array([row] * LAYERS), EXPERTS, self.shape.gpus)

    def lines(self) -> list[list[str]]:
        """The events, as the lines of one or more histories."""
        return [[encode_line(event) for event in events] for events in self.histories]

    def note(self, event: Event) -> None:
        self.histories[-1].append(event)
        if not isinstance(event, Again):
            self.counts[kind_of(event)] += 1

    def _save(self, record: Record) -> None:
        if record.epoch is not None and record.epoch != self.record.epoch:
            # The store was lost, and with it the last who had served in its epochs: their
            # numbers come again, in a history of its own.
            if self.stores_lost and record.epoch.number <= self.highest_epoch:
                self.histories.append([])
            self.highest_epoch = record.epoch.number
        self.record = record

    def _take(self, queue: list[Any], link: Link) -> Any:
        """The next message, or another one if the network may reorder. It may also stay."""
        first = isinstance(queue[0], Hello)
        reorder = self.shape.reorder and self.faults and not first
        index = self.rng.randrange(len(queue)) if reorder else 0
        if self.faults and not first and self.rng.random() < 0.1:
            return queue[index]
        return queue.pop(index)


def _order_down(order: Any) -> Any:
    """The part of an order that the worker's state machine gets."""
    if not isinstance(order, server_effects.GroupOffer):
        return order
    base, new = (
        ClientPlacement(each.phy2log, each.num_experts, each.num_gpus)
        for each in (order.base_placement, order.placement)
    )
    return bare_offer(order.version, order.base, base, new)


def bare_offer(
    version: Version, base: Version, base_placement: ClientPlacement, placement: ClientPlacement
) -> SwitchOffer:
    """An offer without the arrays, which the state machine does not read."""
    nothing: Any = dict.fromkeys((each.name for each in fields(Transfers)), None)
    return SwitchOffer(
        version=version,
        base=base,
        base_digest=base_placement.digest,
        placement=placement,
        base_placement=base_placement,
        **nothing,
    )
