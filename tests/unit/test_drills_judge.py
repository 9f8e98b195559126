"""The verdict on a run: a region that kept its word passes, and each promise that was broken, or not shown, is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from mobula.lab.faults import alone
from ops.drills.client import known_body
from ops.drills.engine import Recorded
from ops.drills.fault import Fault
from ops.drills.faults import Cut, Freeze, Power, Stop
from ops.drills.findings import Finding, Verdict
from ops.drills.history import Operation
from ops.drills.judge import FINAL, HEALED_S, IN_DOUBT_S, OUT_OF_DNS_S, Judged, judge
from ops.drills.model import BACK_S, NEVER, UNTOUCHED_S, Act, Drill, Expect, Scene, expect
from ops.drills.said import EXIT_CODES, text
from ops.drills.watch import Names, Peer
from tests.drills import scene

BEGAN_S, INJECTED_S, HEALED_AT_S, SETTLED_S, ENDED_S = 1000.0, 1006.0, 1036.0, 1041.0, 1090.0
RATE_PER_S = 16.0
SCENE = scene("small")
ROOT = "/demo/stor/drills/x"
LB, LB_OF_C = "lab-a-loadbalancer-01", "lab-c-loadbalancer-01"
Edit = Callable[[Operation], Operation | None]


class Saw:
    """What a `Watch` has seen."""

    def __init__(self, peers: Sequence[Peer] = (), names: Sequence[Names] = ()) -> None:
        self.peers = list(peers)
        self.names = list(names)


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def history(found: Scene = SCENE, edit: Edit = lambda o: o) -> list[Operation]:
    """A region without a fault: each client writes a key of its own on each shard and reads it, and what stays as it is."""
    made, held = [], {}
    for client in found.clients:
        for number in range(int((ENDED_S - BEGAN_S) * RATE_PER_S)):
            at_s = BEGAN_S + number / RATE_PER_S
            shard = 1 + number // 3 % len(found.shards)
            key = f"{ROOT}/d{shard}/k-{client}"
            kind, value, status = "get", held.get(key), 200
            if number % 3 == 0:
                kind, value, status = "put", md5(f"{client} {number}".encode()), 204
            elif number % 3 == 1:
                key = f"{ROOT}/d{shard}/known000"
                value = md5(known_body(key))
            o = edit(Operation(client, client, kind, key, value, at_s, at_s + 0.02, status, f"shard:{shard}"))  # type: ignore[arg-type]
            if o is not None:
                made.append(o)
                if o.kind == "put" and o.status == 204:
                    held[o.key] = o.value
    return made + finals(made)


def finals(made: Sequence[Operation]) -> list[Operation]:
    """What the last reads find, after such a history."""
    held = {o.key: o.value for o in made if o.value and 200 <= o.status < 300 and o.kind != "list"}
    at_s = ENDED_S - 0.1
    gets = [Operation(FINAL, FINAL, "get", key, value, at_s, at_s, 200) for key, value in held.items()]
    lists = [
        Operation(
            FINAL, FINAL, "list", folder, None, at_s, at_s, 200,
            names=tuple(key.rpartition("/")[2] for key in held if key.startswith(f"{folder}/")),
        )
        for folder in {key.rpartition("/")[0] for key in held}
    ]  # fmt: skip
    return [*gets, *lists]


def record(
    made: list[Operation] | None = None,
    faults: Sequence[Fault] = (Power(("lab-a-api-01",)),),
    expected: Expect | None = None,
    found: Scene = SCENE,
    saw: Saw | None = None,
) -> Recorded:
    act = Act(tuple(faults), expected or expect(found))
    drill = Drill("fake", "", (), ("one",), lambda *_: act)
    return Recorded(
        drill, "one", found, act, 7, 0.0, BEGAN_S, injected_s=INJECTED_S, healing_s=HEALED_AT_S, healed_s=HEALED_AT_S,
        settled_s=SETTLED_S, ended_s=ENDED_S,
        proof=[("it was there", True)], watch=saw, history=history(found) if made is None else made,  # type: ignore[arg-type]
    )  # fmt: skip


def of(judged: Judged, check: str) -> tuple[Verdict, list[str]]:
    (found,) = [c for c in judged.checked if c.check == check]
    return found.verdict, [f.what for f in found.findings]


def no_answers(
    since_s: float, until_s: float, *, azs: Sequence[str] = (), group: str = "", writes: bool | None = None
) -> Edit:
    """Who begins in this time is sent away as is right."""

    def edit(o: Operation) -> Operation:
        hit = since_s <= o.began_s < until_s and (not azs or o.az in azs) and group in ("", o.group)
        if not hit or writes not in (None, o.writes):
            return o
        return replace(o, status=503, retry_after=True, value=o.value if o.writes else None)

    return edit


def at(
    number: int, made: list[Operation], kind: str = "get", client: str = "a", since_s: float = INJECTED_S + 5
) -> int:
    """Index of the so-and-so-manieth operation of a client in the fault."""
    found = [
        i for i, o in enumerate(made)
        if o.client == client and o.kind == kind and o.began_s > since_s and "known" not in o.key
    ]  # fmt: skip
    return found[number]


@pytest.mark.parametrize("profile", ["small", "lab"])
def test_a_region_that_kept_its_word_passes(profile: str) -> None:
    found = scene(profile)
    recorded = record(history(found), found=found)
    judged = judge(recorded)
    assert judged.verdict is Verdict.PASS
    assert judged.findings == []
    assert [c.check for c in judged.checked] == [
        "O1",
        "O2",
        "O3",
        "O4",
        "O5",
        "O6",
        "O9",
        "O10",
        "wait",
        "forbidden",
        "takeover",
        "dns",
        "gate",
    ]
    assert judged.worst_s(writes=True, served=found.clients) < 1
    assert judged.worst_after_s() < 1
    assert set(judged.takeovers.values()) == {0}
    said = text(recorded, judged)
    assert said.splitlines()[-1] == "verdict: pass"
    assert "  proof      it was there\n" in said
    assert "DNS" not in said


def test_an_outage_as_long_as_was_said_before_passes() -> None:
    made = history(edit=no_answers(INJECTED_S, INJECTED_S + BACK_S - 1))
    recorded = record(made)
    judged = judge(recorded)
    assert judged.verdict is Verdict.PASS, judged.findings
    assert BACK_S - 2 < judged.worst_s(writes=True, served=SCENE.clients) < BACK_S
    assert "reads      away 9.0 s at most during the fault" in text(recorded, judged)


# Each promise, broken.


def swapped_twice(made: list[Operation]) -> None:
    """Two writes that needed the same value, one after the other."""
    first = at(0, made, "put")
    old = next(o.value for o in reversed(made[:first]) if o.kind == "put" and o.key == made[first].key)
    made[first] = replace(made[first], kind="put_if_match", expected=old)
    second = at(0, made, "put")
    made[second] = replace(made[second], kind="put_if_match", expected=old)


def stale(made: list[Operation]) -> None:
    number = at(3, made)
    made[number] = replace(made[number], value=made[at(0, made)].value)


def absent(made: list[Operation]) -> None:
    number = at(3, made)
    made[number] = replace(made[number], status=404, value=None)


def known_is_other(made: list[Operation]) -> None:
    number = next(i for i, o in enumerate(made) if "known" in o.key and o.client == "b")
    made[number] = replace(made[number], value=md5(b"other"))


def known_is_gone(made: list[Operation]) -> None:
    number = next(i for i, o in enumerate(made) if "known" in o.key and o.client == "b")
    made[number] = replace(made[number], status=404, value=None)


def lost(made: list[Operation]) -> None:
    number = next(i for i, o in enumerate(made) if o.client == FINAL and o.key.endswith("k-a") and o.kind == "get")
    made[number] = replace(made[number], status=404, value=None)


def known_is_lost(made: list[Operation]) -> None:
    number = next(i for i, o in enumerate(made) if o.client == FINAL and "known" in o.key and o.kind == "get")
    made[number] = replace(made[number], status=404, value=None)


def unlisted(made: list[Operation]) -> None:
    number = next(i for i, o in enumerate(made) if o.kind == "list")
    made[number] = replace(made[number], names=made[number].names[1:])


def listed_too_much(made: list[Operation]) -> None:
    number = next(i for i, o in enumerate(made) if o.kind == "list")
    made[number] = replace(made[number], names=(*made[number].names, "k-nobody"))


def late(made: list[Operation]) -> None:
    number = at(3, made)
    made[number] = replace(made[number], ended_s=made[number].began_s + 10.5)


def rude(made: list[Operation]) -> None:
    number = at(3, made)
    made[number] = replace(made[number], status=500, value=None)


def failed_before(made: list[Operation]) -> None:
    made[5] = replace(made[5], status=503, retry_after=True, value=None)


@pytest.mark.parametrize(
    ("check", "spoil", "says"),
    [
        ("O1", swapped_twice, "writes succeeded on"),
        ("O1", stale, "k-a"),
        ("O3", stale, "a stale read of"),
        ("O3", absent, "404 for"),
        ("O3", known_is_other, "which nobody wrote"),
        ("O3", known_is_gone, "known000, which is known to be there"),
        ("O2", lost, "k-a is gone"),
        ("O2", known_is_lost, "known000 is gone; it held"),
        ("O9", lost, "k-a is listed, and GET does not find it"),
        ("O9", unlisted, "is found by GET, and not listed"),
        ("O9", listed_too_much, "k-nobody is listed, and GET does not find it"),
        ("wait", late, "10.5 s until 200"),
        ("wait", rude, "500 without Retry-After"),
        ("O5", failed_before, "are allowed"),
    ],
)
def test_a_promise_that_was_broken_once_fails(check: str, spoil: Callable[[list[Operation]], None], says: str) -> None:
    made = history()
    spoil(made)
    recorded = record(made)
    judged = judge(recorded)
    kind, found = of(judged, check)
    assert kind is Verdict.FAIL
    assert any(says in what for what in found), found
    assert judged.verdict is Verdict.FAIL
    assert f"FAIL     {check}" in text(recorded, judged)


@pytest.mark.parametrize("oracle", ["O4", "O10"])
def test_what_was_found_on_the_machines_counts(oracle: str) -> None:
    bad, unseen = (Finding(oracle, v, "a copy is missing") for v in (Verdict.FAIL, Verdict.UNKNOWN))
    for looked, verdict in [([bad], Verdict.FAIL), ([unseen], Verdict.UNKNOWN), ([unseen, bad], Verdict.FAIL)]:
        recorded = record()
        recorded.looked = looked
        assert judge(recorded).verdict is verdict


def test_a_job_that_came_to_something_else_counts_where_there_was_one() -> None:
    recorded = record()
    recorded.looked = [Finding("O7", Verdict.FAIL, "the job had 1 errors")]
    assert judge(recorded).verdict is Verdict.PASS
    recorded.drill = replace(recorded.drill, jobs=True)
    assert judge(recorded).verdict is Verdict.FAIL


def test_away_for_longer_than_was_said_fails() -> None:
    made = history(edit=no_answers(INJECTED_S, INJECTED_S + BACK_S + 1))
    judged = judge(record(made))
    kind, found = of(judged, "O6")
    assert kind is Verdict.FAIL
    assert len(found) == 2 * len(SCENE.clients)
    assert all(": out for 1" in what and "s of the fault; 10 s are allowed" in what for what in found)


def test_a_shard_that_was_not_hit_has_its_own_bound() -> None:
    found = scene("lab")
    made = history(found, no_answers(INJECTED_S, INJECTED_S + UNTOUCHED_S + 1, group="shard:2"))
    assert judge(record(made, found=found)).verdict is Verdict.PASS
    judged = judge(record(made, found=found, expected=expect(found, hit=[1])))
    kind, sentences = of(judged, "O6")
    assert kind is Verdict.FAIL
    assert all("shard:2" in sentence and "3 s are allowed" in sentence for sentence in sentences)


def test_away_for_long_after_healing_fails_whoever_it_is() -> None:
    gone = no_answers(HEALED_AT_S, HEALED_AT_S + HEALED_S + 1, azs=["a"])
    judged = judge(record(history(edit=gone), expected=expect(SCENE, served=["b", "c", "pub"])))
    kind, found = of(judged, "O6")
    assert kind is Verdict.FAIL
    assert all("from a: out for 31" in what and "after healing; 30 s are allowed" in what for what in found)
    assert judged.worst_after_s() > HEALED_S


def test_what_the_drill_could_not_do_fails() -> None:
    recorded = record()
    recorded.troubles = ["heal 'frozen: x': no"]
    judged = judge(recorded)
    assert of(judged, "O6") == (Verdict.FAIL, ["heal 'frozen: x': no"])


def test_never_is_not_judged_while_the_fault_holds() -> None:
    gone = no_answers(INJECTED_S, HEALED_AT_S, writes=True)
    nothing = {1: NEVER}
    expected = Expect({1: BACK_S}, nothing, SCENE.clients, SCENE.clients)
    judged = judge(record(history(edit=gone), expected=expected))
    assert judged.verdict is Verdict.PASS, judged.findings
    assert judged.worst_s(writes=True, served=SCENE.clients) > HEALED_AT_S - INJECTED_S - 1
    assert judge(record(history(edit=gone))).verdict is Verdict.FAIL


def test_clients_who_were_promised_nothing_do_not_count() -> None:
    made = history(edit=no_answers(INJECTED_S, HEALED_AT_S, azs=["a"]))
    others = [client for client in SCENE.clients if client != "a"]
    judged = judge(record(made, expected=expect(SCENE, served=others, reach=SCENE.clients)))
    assert judged.verdict is Verdict.PASS, judged.findings
    assert {r.az for r in judged.during} == set(others)
    assert judged.worst_s(writes=False, served=others) < 1
    assert judge(record(made)).verdict is Verdict.FAIL


def test_nobody_was_promised_anything() -> None:
    made = history(edit=no_answers(INJECTED_S, HEALED_AT_S))
    judged = judge(record(made, expected=expect(SCENE, served=[], reach=SCENE.clients)))
    assert judged.during == []
    assert judged.verdict is Verdict.PASS, judged.findings


def test_who_reaches_nobody_may_hang_and_need_not_have_asked() -> None:
    """Clients of an AZ without power: no answer at all, for as long as they wait."""

    def edit(o: Operation) -> Operation | None:
        if o.az != "a" or not INJECTED_S <= o.began_s < HEALED_AT_S:
            return o
        if o.began_s % 15 >= 1 / RATE_PER_S:
            return None
        return replace(o, status=0, value=o.value if o.writes else None, ended_s=o.began_s + 15)

    others = [client for client in SCENE.clients if client != "a"]
    made = history(edit=edit)
    assert sum(o.status == 0 for o in made) > 1
    judged = judge(record(made, expected=expect(SCENE, served=others)))
    assert judged.verdict is Verdict.PASS, judged.findings
    judged = judge(record(made, expected=expect(SCENE, served=others, reach=SCENE.clients)))
    assert of(judged, "wait")[0] is Verdict.FAIL
    assert of(judged, "gate")[0] is Verdict.UNKNOWN


# The gate.


def test_a_run_that_shows_nothing_is_unknown() -> None:
    few = [o for o in history() if o.client != "b" or not INJECTED_S <= o.began_s <= HEALED_AT_S]
    kind, found = of(judge(record(few)), "gate")
    assert (kind, found) == (
        Verdict.UNKNOWN,
        [
            "clients in b began 0 operations during the fault; 200 are needed",
            "client b stood still for 30.1 s during the fault: this machine had no processor for it",
        ],
    )
    for proof, says in [([], "nothing shows that the fault was there"), ([("x", True), ("y", False)], "not shown: y")]:
        recorded = record()
        recorded.proof = proof
        judged = judge(recorded)
        assert of(judged, "gate") == (Verdict.UNKNOWN, [says])
        assert judged.verdict is Verdict.UNKNOWN
        assert "UNKNOWN  gate" in text(recorded, judged)
    kind, found = of(judge(record([])), "gate")
    assert kind is Verdict.UNKNOWN
    assert "0 operations were completed; 2000 are needed" in found


def test_a_shard_that_nobody_asked_is_unknown() -> None:
    found = scene("lab")
    made = [o for o in history(found) if o.group != "shard:2" or not o.writes]
    made = [replace(o, value=None, status=404) if o.key.rpartition("/")[0].endswith("d2") and "k-" in o.key and o.kind == "get"
            else replace(o, names=("known000",)) if o.kind == "list" and o.key.endswith("d2") else o for o in made]  # fmt: skip
    judged = judge(record(made, found=found))
    assert of(judged, "gate") == (Verdict.UNKNOWN, ["no write of shard:2 was completed"])
    assert judged.verdict is Verdict.UNKNOWN, judged.findings


def test_what_was_not_read_at_the_end_is_unknown_and_not_wrong() -> None:
    made = history()
    (directory,) = {o.key for o in made if o.kind == "list"}
    unlisted = [replace(o, status=503, names=()) if o.kind == "list" else o for o in made]
    judged = judge(record(unlisted))
    assert of(judged, "O9") == (Verdict.UNKNOWN, [f"{directory} was not listed at the end"])
    assert judged.verdict is Verdict.UNKNOWN
    unread = [
        replace(o, status=503, value=None) if o.client == FINAL and o.kind == "get" and o.key.endswith("k-a") else o for o in made
    ]  # fmt: skip
    judged = judge(record(unread))
    assert of(judged, "O2") == (Verdict.UNKNOWN, [f"{directory}/k-a was not read at the end"])
    assert of(judged, "O9") == (Verdict.PASS, [])


def test_the_last_of_several_tries_at_the_end_counts() -> None:
    made = history()
    tries = [replace(o, status=503, value=None, names=()) for o in made if o.client == FINAL]
    first = [o for o in made if o.client != FINAL]
    assert judge(record([*first, *tries, *made[len(first) :]])).verdict is Verdict.PASS


def test_a_check_that_breaks_leaves_the_others() -> None:
    recorded = record([replace(o, group="elsewhere") if o.client == "a" else o for o in history()])
    judged = judge(recorded)
    kind, (broke,) = of(judged, "O6")
    assert kind is Verdict.UNKNOWN
    assert "the check itself broke" in broke
    assert of(judged, "O1") == (Verdict.PASS, [])


# What must not succeed.


def forbidding(*forbidden: tuple[int, bool]) -> Expect:
    return Expect({1: NEVER}, {1: NEVER}, SCENE.clients, SCENE.clients, forbidden)


def test_a_success_that_nobody_could_vouch_for_fails() -> None:
    silent = no_answers(INJECTED_S + IN_DOUBT_S, HEALED_AT_S, writes=True)
    expected = forbidding((1, True))
    assert judge(record(history(edit=silent), expected=expected)).verdict is Verdict.PASS

    def but_one(o: Operation) -> Operation:
        return o if o.client == "b" and 1020 <= o.began_s < 1021 else silent(o) or o

    judged = judge(record(history(edit=but_one), expected=expected))
    kind, (what,) = of(judged, "forbidden")
    assert kind is Verdict.FAIL
    assert "writes of shard 1 succeeded; none could" in what
    assert of(judge(record(history(edit=silent), expected=forbidding((1, False)))), "forbidden")[0] is Verdict.FAIL


def test_what_was_on_its_way_or_ended_after_healing_is_no_forbidden_success() -> None:
    silent = no_answers(INJECTED_S, HEALED_AT_S, writes=True)
    made = history(edit=silent)
    early = at(0, made, "put", since_s=INJECTED_S)
    last = [i for i, o in enumerate(made) if o.client == "a" and o.kind == "put" and o.began_s < HEALED_AT_S][-1]
    made[early] = replace(made[early], status=204, retry_after=False)
    made[last] = replace(made[last], status=204, retry_after=False, ended_s=HEALED_AT_S + 0.01)
    assert of(judge(record(made, expected=forbidding((1, True)))), "forbidden") == (Verdict.PASS, [])


# DNS.


def names(host: str, until_s: float | None, *, silent: bool = False, name: str = "@") -> Saw:
    """The name had the host until then; None: to the end."""
    address, others = SCENE.hosts[host].address, {"10.77.9.1"}
    seen = []
    for number in range(int(ENDED_S - BEGAN_S)):
        at_s = BEGAN_S + number
        there = until_s is None or at_s < until_s or at_s > HEALED_AT_S
        seen.append(Names(at_s, None if silent else frozenset({address, *others} if there else others), name))
    return Saw(names=seen)


@pytest.mark.parametrize(
    ("fault", "late_s", "verdict"),
    [
        (Freeze((LB,)), 3, Verdict.PASS),
        (Freeze((LB,)), OUT_OF_DNS_S + 1, Verdict.FAIL),
        (Freeze(("lab-a-api-01",)), 3, Verdict.FAIL),
        (Power((LB,)), 3, Verdict.FAIL),
    ],
)
def test_nobody_can_answer_for_a_loadbalancer_that_stands_still(fault: Fault, late_s: float, verdict: Verdict) -> None:
    """Its kernel holds the connections until the client gives up; once it is out of DNS nobody comes to it any more."""
    made = history()
    number = at(0, made, since_s=INJECTED_S + late_s)
    made[number] = replace(made[number], status=0, value=None, ended_s=made[number].began_s + 15)
    judged = judge(record(made, faults=[fault], saw=names(LB, INJECTED_S + 9)))
    assert of(judged, "wait")[0] is verdict


TAKE_LB = [
    (Power((LB, "lab-a-api-01")), LB),
    (Freeze((LB,)), LB),
    (Stop((LB,), "haproxy"), LB),
    (Stop((LB,), "registrar"), LB),
    (Cut(tuple(sorted(alone(SCENE.zone("c")))), "c is alone"), LB_OF_C),
]


@pytest.mark.parametrize(("fault", "host"), TAKE_LB)
def test_how_long_dns_names_a_loadbalancer_that_is_lost(fault: Fault, host: str) -> None:
    judged = judge(record(faults=[fault], saw=names(host, INJECTED_S + 9)))
    assert judged.verdict is Verdict.PASS, judged.findings
    assert judged.out_of_dns_s == {host: 8.0}
    assert "  DNS        named 1 lost hosts for 8 s" in text(record(), judged)
    judged = judge(record(faults=[fault], saw=names(host, INJECTED_S + OUT_OF_DNS_S + 2)))
    assert of(judged, "dns") == (Verdict.FAIL, [f"public DNS named {host} for 16 s; 15 s are allowed"])
    judged = judge(record(faults=[fault], saw=names(host, None)))
    assert judged.out_of_dns_s == {host: None}
    assert of(judged, "dns") == (
        Verdict.FAIL,
        [f"public DNS named {host} to the end of the fault; 15 s are allowed"],
    )
    assert "  DNS        named 1 lost hosts to the end of the fault" in text(record(), judged)


@pytest.mark.parametrize(
    ("fault", "saw"),
    [
        (Power((LB,)), None),
        (Power((LB,)), names(LB, None, silent=True)),
        (Power(("lab-a-api-01",)), names(LB, None)),
        (Stop(("lab-a-api-01",), "authcache"), names(LB, None)),
        (Cut(((1, 2), (2, 1)), "a and b"), names(LB, None)),
        # Nobody on the internet can ask.
        (Cut(tuple(sorted(alone(1) | alone(2) | alone(3))), "all"), names(LB, None)),
    ],
)
def test_dns_is_not_judged_where_nobody_saw_it_or_no_loadbalancer_is_lost(fault: Fault, saw: Saw | None) -> None:
    judged = judge(record(faults=[fault], saw=saw))
    assert judged.out_of_dns_s == {}
    assert judged.verdict is Verdict.PASS


STORAGE, API = "lab-a-storage-01", "lab-a-api-01"


def both_names(webapi: Saw, authcache: Saw) -> Saw:
    return Saw(names=[*webapi.names, *authcache.names])


def test_a_host_of_any_pool_that_registers_nothing_has_to_leave_every_name_that_it_has() -> None:
    stop = Stop((STORAGE,), "registrar")
    judged = judge(record(faults=[stop], saw=names(STORAGE, INJECTED_S + 9, name="storage")))
    assert judged.verdict is Verdict.PASS, judged.findings
    assert judged.out_of_dns_s == {STORAGE: 8.0}
    early = names(API, INJECTED_S + 3, name="webapi")
    for until_s, verdict, out_s in [(9, Verdict.PASS, 8.0), (18, Verdict.FAIL, 17.0), (None, Verdict.FAIL, None)]:
        late = names(API, until_s and INJECTED_S + until_s, name="authcache")
        judged = judge(record(faults=[Stop((API,), "registrar")], saw=both_names(early, late)))
        assert (judged.out_of_dns_s, of(judged, "dns")[0]) == ({API: out_s}, verdict)


@pytest.mark.parametrize(
    ("saw", "missing"),
    [
        (None, ("authcache", "webapi")),
        (names(API, INJECTED_S + 9, name="webapi"), ("authcache",)),
        (both_names(names(API, None, silent=True, name="webapi"), names(API, INJECTED_S + 9, name="authcache")), ("webapi",)),
        (both_names(names(API, BEGAN_S, name="webapi"), names(API, INJECTED_S + 9, name="authcache")), ("webapi",)),
    ],
)  # fmt: skip
def test_who_was_not_in_dns_before_shows_nothing_by_not_being_there(saw: Saw | None, missing: tuple[str, ...]) -> None:
    judged = judge(record(faults=[Stop((API,), "registrar")], saw=saw))
    told = [f"public DNS was not seen to have {API} as {name} before the fault" for name in missing]
    assert of(judged, "dns") == (Verdict.UNKNOWN, told)


# Takeovers.


def test_takeovers_are_counted_while_the_fault_holds() -> None:
    shard = SCENE.shards[1]

    def leads(at_s: float, host: str, role: str = "primary", kind: str = "primary") -> Peer:
        return Peer(at_s, host, 1, role, kind)

    seen = [
        leads(BEGAN_S, shard.primary),
        leads(INJECTED_S - 1, shard.sync),  # before
        leads(INJECTED_S + 1, shard.primary),
        leads(INJECTED_S + 2, shard.sync, kind=""),  # without a lease it is nobody
        leads(INJECTED_S + 3, shard.asynchronous, role="standby"),
        leads(INJECTED_S + 6, shard.sync),
        leads(INJECTED_S + 5, shard.asynchronous),  # told later, was before
        leads(INJECTED_S + 7, shard.sync),
        leads(HEALED_AT_S + 1, shard.primary),  # after
    ]
    recorded = record(saw=Saw(peers=seen))
    judged = judge(recorded)
    assert judged.takeovers == {1: 2}
    assert "  takeovers  shard 1: 2" in text(recorded, judged)
    assert judge(record()).takeovers == {1: 0}


def test_a_primary_that_goes_from_peer_to_peer_breaks_what_was_said_of_it() -> None:
    shard, at_s = SCENE.shards[1], INJECTED_S
    peers = [shard.primary, shard.sync, shard.asynchronous]
    for count, most, verdict, told in [
        (0, 1, Verdict.PASS, []),
        (1, 1, Verdict.PASS, []),
        (2, 1, Verdict.FAIL, ["another peer became primary of shard 1 2 times; 1 are allowed"]),
        (2, None, Verdict.PASS, []),
    ]:
        seen = [Peer(at_s + n, host, 1, "primary", "primary") for n, host in enumerate(peers[: count + 1], 1)]
        recorded = record(expected=expect(SCENE, takeovers_max=most), saw=Saw(peers=seen))
        assert of(judge(recorded), "takeover") == (verdict, told)
    nobody = [Peer(at_s + 1, shard.sync, 1, "standby", ""), Peer(at_s - 1, shard.primary, 1, "primary", "primary")]
    for saw in (None, Saw(peers=nobody)):
        judged = judge(record(expected=expect(SCENE, takeovers_max=1), saw=saw))
        assert of(judged, "takeover") == (Verdict.UNKNOWN, ["nobody was seen to be primary of shard 1"])
    assert of(judge(record(saw=None)), "takeover") == (Verdict.PASS, [])


def test_each_verdict_has_its_exit_code() -> None:
    assert EXIT_CODES == {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 2}


def test_a_proof_that_is_not_so_says_so() -> None:
    recorded = record()
    recorded.proof = [("a", True), ("b", False)]
    said = text(recorded, judge(recorded))
    assert "  proof      a\n  proof      b  (NOT SO)\n" in said
    assert said.splitlines()[-1] == "verdict: unknown"
