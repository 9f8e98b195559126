"""Inputs of jobs: what they are, who may read them, where their bytes are."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

import pytest

from mobula.core.accounts import Account, User
from mobula.core.errors import unavailable
from mobula.core.job import JobDocument, Phase
from mobula.jobs.lead import Located
from mobula.jobs.places import RegionPlaces
from mobula.metadata.jobs import Cleared, Item, Job, JobError, Owner, State, Version
from mobula.metadata.memory import MemoryMetadata
from mobula.metadata.model import Entry, Kind, Page, Precondition, StorageServer, Unavailable

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
SERVERS = [StorageServer(f"s-{az}", az, f"10.0.{n}.41", 8060) for n, az in enumerate("abc", 1)]
DAP, BOB, ROOT = (
    Account(uuid.UUID(int=n), login, True, login == "root", {}, {"sub": User(uuid.UUID(int=9), "sub", {})} if login == "dap" else {})
    for n, login in enumerate(("dap", "bob", "root"), 1)
)  # fmt: skip
OBJECT, ACCOUNT_OF_BYTES = uuid.UUID(int=7), uuid.UUID(int=8)


class Accounts:
    def __init__(self) -> None:
        self.away = False

    async def get(self, login: str, *, key: str | None = None, user: str | None = None) -> Account | None:
        assert key is user is None
        if self.away:
            raise unavailable("no authcache answers")
        return {account.login: account for account in (DAP, BOB, ROOT)}.get(login)

    async def by_uuid(self, number: uuid.UUID) -> Account | None:
        return {account.uuid: account for account in (DAP, BOB, ROOT)}.get(number)


def entry(name: str, size: int = 5) -> Entry:
    return Entry(name, Kind.OBJECT, NOW, size_bytes=size, md5=bytes(16), object_id=OBJECT if size else None,
                 account=ACCOUNT_OF_BYTES if size else None, group=1 if size else 0, copies=2 if size else 0)  # fmt: skip


async def tier() -> MemoryMetadata:
    """dap has stor/a, stor/empty, stor/d/; bob has stor/private and public/p."""
    made = MemoryMetadata(SERVERS)
    epochs = {group.id: group.epoch for group in await made.groups()}
    for account, namespace, name, size in (
        (DAP, "stor", "a b€", 5), (DAP, "stor", "empty", 0), (BOB, "stor", "private", 5), (BOB, "public", "p", 5),
    ):  # fmt: skip
        await made.put_object(
            f"/{account.uuid}/{namespace}", entry(name, size), group_epoch=epochs[1], precondition=Precondition(), parent_is_root=True
        )  # fmt: skip
    await made.put_directory(f"/{DAP.uuid}/stor", Entry("d", Kind.DIRECTORY, NOW), parent_is_root=True)
    return made


def job_of(owner: Owner) -> Job:
    return Job(uuid.UUID(int=3), owner, JobDocument((Phase("wc"),)), State.RUNNING, False, True, (1, 0), (0,), (0,))


async def located(names: Sequence[str], owner: Owner | None = None) -> list[str]:
    """What becomes of each name: `ok`, `empty`, or the error."""
    places = RegionPlaces(await tier(), Accounts())
    items = [Item(n, name, "/first") for n, name in enumerate(names, 1)]
    said = []
    for item, found in zip(items, await places.locate(job_of(owner or Owner(DAP.uuid, "dap")), 4, items), strict=True):
        if isinstance(found, JobError):
            assert (found.phase, found.name, found.first_input) == (4, item.name, "/first")
            said.append(f"{found.code}: {found.message}")
        else:
            said.append("ok" if found.version else "empty")
    return said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/dap/stor/a b€", "ok"),
        ("//dap///stor/a b€", "ok"),
        ("/dap/stor/empty", "empty"),
        ("/bob/public/p", "ok"),
        ("/", 'ResourceNotFoundError: malformed object name: "/"'),
        ("/dap", 'ResourceNotFoundError: malformed object name: "/dap"'),
        ("dap/stor/a", 'ResourceNotFoundError: malformed object name: "dap/stor/a"'),
        ("/dap/stor", 'ResourceNotFoundError: no such object: "/dap/stor"'),
        ("/dap/stor/none", 'ResourceNotFoundError: no such object: "/dap/stor/none"'),
        ("/dap/stor/none/x", 'ResourceNotFoundError: no such object: "/dap/stor/none/x"'),
        ("/nobody/stor/a", 'ResourceNotFoundError: no such object: "/nobody/stor/a"'),
        ("/dap/stor/a%20b", 'ResourceNotFoundError: no such object: "/dap/stor/a%20b"'),
        ("/dap/stor/../stor/x", 'ResourceNotFoundError: no such object: "/dap/stor/../stor/x"'),
        ("/dap/stor/\0", 'ResourceNotFoundError: no such object: "/dap/stor/\0"'),
        ("/dap/stor/d", 'InvalidArgumentError: objects of type "directory" are not supported: "/dap/stor/d"'),
        ("/bob/stor/private", 'AuthorizationError: permission denied: "/bob/stor/private"'),
    ],
)  # fmt: skip
async def test_what_a_name_is(name: str, said: str) -> None:
    assert await located([name]) == [said]


async def test_many_names_are_answered_in_their_order() -> None:
    assert await located(["/dap/stor/empty", "/dap/stor/a b€", "/dap/stor/empty"] * 50) == ["empty", "ok", "empty"] * 50


@pytest.mark.parametrize(
    ("owner", "may"),
    [
        (Owner(DAP.uuid, "dap"), [True, False, True]),
        (Owner(BOB.uuid, "bob"), [False, True, True]),
        (Owner(ROOT.uuid, "root"), [True, True, True]),
        (Owner(DAP.uuid, "dap", uuid.UUID(int=9)), [False, False, True]),
        (Owner(uuid.UUID(int=99), "gone"), [False, False, True]),
    ],
)
async def test_who_may_compute_on_what(owner: Owner, may: list[bool]) -> None:
    said = await located(["/dap/stor/a b€", "/bob/stor/private", "/bob/public/p"], owner)
    assert [one == "ok" for one in said] == may


async def test_bytes_are_where_their_group_says() -> None:
    metadata = await tier()
    places = RegionPlaces(metadata, Accounts())
    (found,) = await places.locate(job_of(Owner(DAP.uuid, "dap")), 0, [Item(1, "/dap/stor/a b€")])
    assert found == Located("/dap/stor/a b€", Version(ACCOUNT_OF_BYTES, OBJECT, 5, bytes(16), 1, 2))
    assert found.version is not None
    group = next(group for group in await metadata.groups() if group.id == 1)
    assert list(places.hosts(found.version)) == [server.id for server in group.servers[:2]]


async def test_while_nobody_knows_the_accounts_nothing_is_decided() -> None:
    accounts = Accounts()
    accounts.away = True
    with pytest.raises(Unavailable, match="no authcache answers"):
        await RegionPlaces(await tier(), accounts).locate(job_of(Owner(DAP.uuid, "dap")), 0, [Item(1, "/dap/stor/a")])


async def test_what_was_handed_on_is_deleted_unless_it_is_another_object_by_now() -> None:
    metadata = await tier()
    stor = f"/{DAP.uuid}/stor"
    await metadata.put_directory(stor, Entry("a", Kind.DIRECTORY, NOW), parent_is_root=True)
    place = RegionPlaces(metadata, Accounts())
    cleared = [
        Cleared(1, "/dap/stor/a b€", OBJECT), Cleared(2, "/dap/stor/empty", None), Cleared(3, "/dap/stor/d", OBJECT),
        Cleared(4, "/dap/stor/none/x", OBJECT), Cleared(5, "/dap/stor/gone", None),
    ]  # fmt: skip
    other = [
        Cleared(1, "/dap/stor/a b€", uuid.uuid4()),
        Cleared(1, "/dap/stor/a b€", None),
        Cleared(2, "/dap/stor/empty", OBJECT),
    ]
    for each, left in ((other, ["a", "a b€", "d", "empty"]), (cleared, ["a", "d"]), (cleared, ["a", "d"])):
        await place.delete(job_of(Owner(DAP.uuid, "dap")), each)
        assert [e.name for e in (await metadata.list_directory(stor, Page())).entries] == left
    assert [garbage.entry.object_id for garbage in metadata.garbage] == [OBJECT]


async def test_who_overwrites_what_is_being_deleted_wins() -> None:
    metadata = await tier()
    stor, delete = f"/{DAP.uuid}/stor", metadata.delete_object

    async def late(directory: str, name: str, *, precondition: Precondition) -> None:
        fresh = Entry(name, Kind.OBJECT, NOW, etag="fresh")
        await metadata.put_object(stor, fresh, group_epoch=0, precondition=Precondition(), parent_is_root=True)
        await delete(directory, name, precondition=precondition)

    metadata.delete_object = late  # type: ignore[method-assign]
    await RegionPlaces(metadata, Accounts()).delete(
        job_of(Owner(DAP.uuid, "dap")), [Cleared(2, "/dap/stor/empty", None)]
    )
    found = (await metadata.lookup(stor, "empty")).entry
    assert found is not None
    assert found.etag == "fresh"
