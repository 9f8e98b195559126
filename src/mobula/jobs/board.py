"""Who gets which task: those that are ready stand on a board, and agents take from it. Pure.

A task stands there for every host that has a copy of its object, or for all. Jobs share by turns: the next task is of the group (job and
phase) that has the fewest running, so that a job of ten tasks does not wait for one of a hundred thousand. And a group that runs on a host
already leaves the last of its slots to others.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mobula.metadata.jobs import Attempt, Task

RESERVE_PERCENT = 12
"""of the slots that a host ever has, at least one: for groups that have nothing there"""
ANYWHERE = ""

Group = tuple[uuid.UUID, int]


def group_of(task: Task) -> Group:
    """Job and phase: tasks that may follow each other in a sandbox."""
    return task.attempt.job, task.work.phase


@dataclass(slots=True)
class _Waiting:
    """The ready tasks of a group."""

    tasks: dict[Attempt, Task] = field(default_factory=dict)
    places: dict[str, dict[Attempt, None]] = field(default_factory=lambda: defaultdict(dict))
    """host, or ANYWHERE: tasks in the order in which they came"""


class Board:
    """Tasks that are ready, and how many of each group run where."""

    def __init__(self) -> None:
        self._waiting: dict[Group, _Waiting] = {}
        """in the order in which groups came"""
        self._hosts: dict[Attempt, tuple[str, ...]] = {}
        self._running: dict[Attempt, tuple[Group, str]] = {}
        self._count: dict[Group, int] = defaultdict(int)
        self._at: dict[tuple[Group, str], int] = defaultdict(int)

    def __len__(self) -> int:
        return len(self._hosts)

    def put(self, task: Task, hosts: Collection[str] | None) -> None:
        """It is ready. `hosts` may run it, None for all; one that stands there already stays where it is."""
        if task.attempt in self._hosts:
            return
        places = (ANYWHERE,) if hosts is None else tuple(sorted(set(hosts)))
        waiting = self._waiting.setdefault(group_of(task), _Waiting())
        waiting.tasks[task.attempt] = task
        self._hosts[task.attempt] = places
        for place in places:
            waiting.places[place][task.attempt] = None

    def take(self, host: str, slots: int, used: int, most: int = 0) -> list[Task]:
        """For a host with so many slots now, of which some are used, and perhaps more later (`most`): these leave the board, and run."""
        taken: list[Task] = []
        most = max(most, slots)
        reserve = max(1, most * RESERVE_PERCENT // 100)
        while used + len(taken) < slots:
            left = most - used - len(taken)
            task = self._next(host, only_new=left <= reserve and most > 1)
            if task is None:
                break
            self._remove(task)
            self.runs(task, host)
            taken.append(task)
        return taken

    def _next(self, host: str, *, only_new: bool) -> Task | None:
        best: tuple[int, Attempt, Group] | None = None
        for group, waiting in self._waiting.items():
            if only_new and self._at.get((group, host)):
                continue
            for place in (host, ANYWHERE):
                first = next(iter(waiting.places.get(place, ())), None)
                if first is not None and (best is None or self._count.get(group, 0) < best[0]):
                    best = (self._count.get(group, 0), first, group)
        return self._waiting[best[2]].tasks[best[1]] if best else None

    def waiting(self) -> list[Task]:
        """All that are ready."""
        return [task for waiting in self._waiting.values() for task in waiting.tasks.values()]

    def withdraw(self, attempt: Attempt) -> None:
        """It is not ready; nothing, if it does not stand there."""
        for waiting in list(self._waiting.values()):
            if (task := waiting.tasks.get(attempt)) is not None:
                self._remove(task)

    def _remove(self, task: Task) -> None:
        group = group_of(task)
        waiting = self._waiting[group]
        del waiting.tasks[task.attempt]
        for place in self._hosts.pop(task.attempt):
            del waiting.places[place][task.attempt]
        if not waiting.tasks:
            del self._waiting[group]

    def runs(self, task: Task, host: str) -> None:
        """It runs there: taken from here, or found so by a supervisor that takes over."""
        group = group_of(task)
        if task.attempt not in self._running:
            self._running[task.attempt] = (group, host)
            self._count[group] += 1
            self._at[group, host] += 1

    def over(self, attempt: Attempt) -> None:
        """It runs no more, for whatever reason."""
        if attempt not in self._running:
            return
        group, host = self._running.pop(attempt)
        self._count[group] -= 1
        self._at[group, host] -= 1
        if not self._at[group, host]:
            del self._at[group, host]
        if not self._count[group]:
            del self._count[group]

    def running(self, host: str) -> list[Attempt]:
        """Those that a host has."""
        return [attempt for attempt, (_, where) in self._running.items() if where == host]

    def forget(self, job: uuid.UUID) -> None:
        """The job is over: nothing of it is handed out any more."""
        for group, waiting in list(self._waiting.items()):
            if group[0] == job:
                for task in list(waiting.tasks.values()):
                    self._remove(task)


def eligible(copies: Iterable[str], lost_on: Collection[str], up: Collection[str]) -> list[str]:
    """Hosts that may run a task next: those with a copy, rather one that did not lose an attempt at it, if such a one is up."""
    hosts = list(copies)
    fresh = [host for host in hosts if host not in lost_on]
    return fresh if any(host in up for host in fresh) else hosts
