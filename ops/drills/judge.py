"""A run's verdict: what was recorded, held against the oracles and against what was expected before. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from ops.catalog import names_of
from ops.drills.checks import Span, counts, failed, listing_agrees, no_false_answers, nothing_lost, waits
from ops.drills.client import known_body
from ops.drills.engine import Recorded
from ops.drills.faults import Cut, Freeze, Power, Stop
from ops.drills.findings import Checked, Finding, Verdict, check_all, verdict
from ops.drills.history import Operation
from ops.drills.linear import linearizable
from ops.drills.model import Scene
from ops.drills.outages import Recovery, error_budget, recoveries
from ops.drills.watch import Peer

HEALED_S = 30.0
"""how long after healing anything may be away: machines start, peers catch up and may change their roles"""
IN_DOUBT_S = 2.0
"""after the fault, in which what was on its way may still succeed"""
OUT_OF_DNS_S = 15.0
FINAL = "final"


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a run."""

    verdict: Verdict
    checked: Sequence[Checked]
    during: Sequence[Recovery]
    after: Sequence[Recovery]
    out_of_dns_s: Mapping[str, float | None]
    """hosts that were taken: how long public DNS named them; None: it still did at the end of the fault"""
    takeovers: Mapping[int, int]
    """by shard: how often another peer became primary while the fault held"""

    @property
    def findings(self) -> list[Finding]:
        return [finding for checked in self.checked for finding in checked.findings]

    def worst_s(self, *, writes: bool, served: Iterable[str]) -> float:
        """The longest outage while the fault held, of those whom service was promised."""
        return max((r.outage_s for r in self.during if r.writes == writes and r.az in set(served)), default=0.0)

    def worst_after_s(self) -> float:
        """The longest outage after healing, of anybody."""
        return max((r.outage_s for r in self.after), default=0.0)


def judge(record: Recorded) -> Judged:
    """Every oracle, and what was expected."""
    history = [o for o in record.history if o.client != FINAL]
    finals = {o.key: o.value for o in record.history if o.client == FINAL and o.kind == "get" and o.done}
    initial = {o.key: _md5(known_body(o.key)) for o in record.history if o.key.rpartition("/")[2].startswith("known")}
    fault = Span(record.injected_s, record.healed_s)
    expect = record.act.expect
    cut_off = frozenset(record.scene.clients) - set(expect.reach)
    away = Span(record.injected_s - IN_DOUBT_S, record.healed_s + HEALED_S, cut_off)
    served = Span(fault.began_s, fault.ended_s, frozenset(expect.served))
    during = recoveries(history, served) if expect.served else []  # a span of no AZs concerns all
    after = recoveries(history, Span(record.healed_s, record.ended_s))
    out_of_dns_s = _out_of_dns(record)
    groups = [f"shard:{number}" for number in record.scene.shards]
    checked = check_all({
        "O1": lambda: linearizable(history, initial=initial),
        "O2": lambda: nothing_lost(history, finals, initial=initial),
        "O3": lambda: no_false_answers(history, initial=initial),
        "O4": lambda: [f for f in record.looked if f.check == "O4"],
        "O5": lambda: error_budget(history, record.began_s, excused=[Span(fault.began_s, record.healed_s + HEALED_S)]),
        "O6": lambda: [*_outages(record, during), *_after(after), *_not_settled(record)],
        **({"O7": lambda: [f for f in record.looked if f.check == "O7"]} if record.drill.jobs else {}),
        "O9": lambda: _listing(record.history, finals),
        "O10": lambda: [f for f in record.looked if f.check == "O10"],
        "wait": lambda: waits(history, cut=[*([away] if cut_off else []), *_unanswerable(record)]),
        "forbidden": lambda: _forbidden(record, history),
        "takeover": lambda: list(_too_many_takeovers(record)),
        "dns": lambda: [*_late_in_dns(out_of_dns_s), *_never_in_dns(record)],
        "gate": lambda: counts(history, fault, expect.reach, groups, record.proof),
    })  # fmt: skip
    return Judged(verdict(checked), checked, during, after, out_of_dns_s, _takeovers(record))


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _last_lists(history: Iterable[Operation]) -> Iterable[Operation]:
    return {o.key: o for o in history if o.client == FINAL and o.kind == "list" and o.done}.values()


def _listing(history: Sequence[Operation], finals: Mapping[str, str | None]) -> list[Finding]:
    """Of what was listed and read at the end; what could not be is unknown, not wrong."""
    lists = list(_last_lists(history))
    read = {o.key for o in lists}
    known = {key: value for key, value in finals.items() if key.rpartition("/")[0] in read}
    asked = {o.key for o in history if o.client == FINAL and o.kind == "get"}
    listed = [name for o in lists for name in (f"{o.key}/{n}" for n in o.names) if name in finals or name not in asked]
    unread = sorted({key.rpartition("/")[0] for key in asked} - read)
    return [
        *listing_agrees(listed, known),
        *(Finding("O9", Verdict.UNKNOWN, f"{directory} was not listed at the end") for directory in unread),
    ]


def _outages(record: Recorded, during: Sequence[Recovery]) -> list[Finding]:
    """Longer than was said before the run."""
    found = []
    for r in during:
        number = int(r.group.removeprefix("shard:"))
        bound_s = (record.act.expect.writes if r.writes else record.act.expect.reads)[number]
        if bound_s is not None and r.outage_s > bound_s:
            found.append(failed("O6", f"{r.name}: out for {r.outage_s:.1f} s of the fault; {bound_s:g} s are allowed"))
    return found


def _after(after: Sequence[Recovery]) -> list[Finding]:
    return [
        failed("O6", f"{r.name}: out for {r.outage_s:.1f} s after healing; {HEALED_S:g} s are allowed")
        for r in after
        if r.outage_s > HEALED_S
    ]


def _not_settled(record: Recorded) -> list[Finding]:
    return [failed("O6", trouble) for trouble in record.troubles]


def _forbidden(record: Recorded, history: Sequence[Operation]) -> list[Finding]:
    """Successes that nobody could vouch for."""
    found = []
    for number, writes in record.act.expect.forbidden:
        done = [
            o for o in history
            if o.group == f"shard:{number}" and o.writes == writes and 200 <= o.status < 300
            and o.began_s > record.injected_s + IN_DOUBT_S and o.ended_s < record.healed_s
        ]  # fmt: skip
        if done:
            what = "writes" if writes else "reads"
            found.append(failed("forbidden", f"{len(done)} {what} of shard {number} succeeded; none could", *done[:3]))
    return found


def _out_of_dns(record: Recorded) -> dict[str, float | None]:
    """Hosts that the faults took: how long their service's name still had their addresses, as the internet sees it.

    Until healing begins: a machine that starts again is back in DNS before the last one is.
    """
    found: dict[str, float | None] = {}
    for host in _taken(record):
        facts = record.scene.hosts[host]
        named_s = [s for name in names_of(facts.pool) if (s := _named_s(record, name, facts.address)) is not None]
        if named_s:
            found[host] = None if max(named_s) == inf else max(named_s)
    return found


def _named_s(record: Recorded, name: str, address: str) -> float | None:
    """How long a name had an address after the fault; inf: to its end; None: nobody saw."""
    seen = [
        (names.at_s, address in names.addresses)
        for names in (record.watch.names if record.watch else [])
        if names.name == name and names.addresses is not None
        if record.injected_s <= names.at_s <= record.healing_s
    ]
    if not seen:
        return None
    named = [at_s for at_s, there in seen if there]
    return inf if seen[-1][1] else max([at_s - record.injected_s for at_s in named], default=0.0)


def _taken(record: Recorded) -> Iterator[str]:
    """Loadbalancers that can't be of use to the internet any more, and hosts of any pool that register nothing."""
    scene: Scene = record.scene
    for fault in record.act.faults:
        if isinstance(fault, Power | Freeze):
            yield from (host for host in fault.hosts if scene.hosts[host].pool == "loadbalancer")
        elif isinstance(fault, Stop) and fault.service in ("haproxy", "registrar"):
            yield from fault.hosts
        elif isinstance(fault, Cut):
            alone = [az for az, zone in scene.zones.items() if (zone, 0) in fault.deaf]
            if len(alone) < len(scene.zones):  # else nobody on the internet can ask
                yield from (host for az in alone for host in scene.pool("loadbalancer", az))


def _unanswerable(record: Recorded) -> Iterator[Span]:
    """A loadbalancer that stands still: its kernel holds the connections, and nobody else can answer what came over them. Only the client's
    own patience ends that, as long as DNS may still name the host."""
    for fault in record.act.faults:
        if isinstance(fault, Freeze) and any(record.scene.hosts[host].pool == "loadbalancer" for host in fault.hosts):
            yield Span(record.injected_s - IN_DOUBT_S, record.injected_s + OUT_OF_DNS_S)


def _late_in_dns(out_of_dns_s: Mapping[str, float | None]) -> Iterator[Finding]:
    for host, seconds in out_of_dns_s.items():
        if seconds is None or seconds > OUT_OF_DNS_S:
            said = "to the end of the fault" if seconds is None else f"for {seconds:.0f} s"
            yield failed("dns", f"public DNS named {host} {said}; {OUT_OF_DNS_S:g} s are allowed")


def _never_in_dns(record: Recorded) -> Iterator[Finding]:
    """Who was to leave DNS, and was not seen there before: then nothing was shown."""
    before = [n for n in (record.watch.names if record.watch else []) if n.at_s < record.injected_s and n.addresses]
    for fault in record.act.faults:
        for host in fault.hosts if isinstance(fault, Stop) and fault.service == "registrar" else ():
            facts = record.scene.hosts[host]
            for name in names_of(facts.pool):
                if not any(seen.name == name and facts.address in (seen.addresses or ()) for seen in before):
                    what = f"public DNS was not seen to have {host} as {name} before the fault"
                    yield Finding("dns", Verdict.UNKNOWN, what)


def _too_many_takeovers(record: Recorded) -> Iterator[Finding]:
    most, seen = record.act.expect.takeovers_max, {peer.shard for peer in _primaries(record)}
    if most is None:
        return
    for number, count in _takeovers(record).items():
        if count > most:
            yield failed("takeover", f"another peer became primary of shard {number} {count} times; {most} are allowed")
        if number not in seen:
            yield Finding("takeover", Verdict.UNKNOWN, f"nobody was seen to be primary of shard {number}")


def _primaries(record: Recorded) -> list[Peer]:
    """Who was seen as one, with a lease, while the fault held; by time."""
    seen = [peer for peer in (record.watch.peers if record.watch else []) if peer.role == "primary" and peer.kind]
    return sorted((p for p in seen if record.injected_s <= p.at_s <= record.healed_s), key=lambda p: p.at_s)


def _takeovers(record: Recorded) -> dict[int, int]:
    seen: dict[int, list[str]] = {number: [shard.primary] for number, shard in record.scene.shards.items()}
    for peer in _primaries(record):
        if seen[peer.shard][-1] != peer.host:
            seen[peer.shard].append(peer.host)
    return {number: len(hosts) - 1 for number, hosts in seen.items()}
