"""Which agents are there: those that were heard of a while ago. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mobula.core import images
from mobula.core.images import ImageVersion

SILENCE_S = 10.0
"""an agent of which nothing was heard for so long has lost what it had"""


@dataclass(frozen=True, slots=True)
class Agent:
    """One start of the agent of a storage host."""

    host: str
    generation: str
    images: tuple[ImageVersion, ...] = ()
    """versions of the task image that it has"""

    def __str__(self) -> str:
        return f"{self.host}/{self.generation}"


class Presence:
    """Of agents, one for each host. Times are `monotonic_s`."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._seen_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def hosts(self) -> Collection[str]:
        return self._agents.keys()

    def fit(self, hosts: Sequence[str] | None, image: str, *, knows_all: bool) -> Sequence[str] | None:
        """Of hosts (None: any) those whose agents have an image in that range; all, if none has: whoever is given the task says so.

        `knows_all`: who was not met is not there. Else it may have one: nobody is to say no before it was heard.
        """
        having = {host for host, agent in self._agents.items() if images.newest(image, agent.images) is not None}
        if hosts is None:
            return sorted(having) or (None if knows_all else [])
        return [host for host in hosts if host in having or not (knows_all or host in self._agents)] or hosts

    def meet(self, agent: Agent, now_s: float) -> bool:
        """It asks for work; whether it is another start than the one before."""
        is_new = self._agents.get(agent.host) != agent
        self._agents[agent.host] = agent
        self._seen_s[agent.host] = now_s
        return is_new

    def heard(self, agent: Agent, now_s: float) -> None:
        """It says something else; nothing, if it was not met."""
        if self._agents.get(agent.host) == agent:
            self._seen_s[agent.host] = now_s

    def drop_silent(self, now_s: float) -> list[str]:
        """Hosts that are not there any more from now on."""
        silent = [host for host, seen_s in self._seen_s.items() if now_s - seen_s > SILENCE_S]
        for host in silent:
            del self._agents[host], self._seen_s[host]
        return silent

    def has(self, agent: str) -> bool:
        """By its name, as rows have it."""
        return str(self._agents.get(agent.partition("/")[0], "")) == agent
