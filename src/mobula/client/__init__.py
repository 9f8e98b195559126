"""The Python SDK: `Client` for threads, `AsyncClient` for coroutines, and the values they give.

    with Client() as client:                      # MANTA_URL, MANTA_USER, MANTA_KEY_ID as the stock clients have them
        client.put("~~/stor/books/one", Path("one.txt"), parents=True)
        for entry in client.list_directory("~~/stor/books"):
            print(entry.name, entry.size_bytes)
        text = b"".join(client.get("~~/stor/books/one"))

What is named here is imported when it is first used: a command that needs no asyncio does not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobula.client.asynchronous import AsyncClient
    from mobula.client.download import Partial
    from mobula.client.errors import AccessRefused, ConditionFailed, Damaged, MobulaError, NotFound, Unavailable
    from mobula.client.jobs import LiveList
    from mobula.client.model import Entry, Info, Stored
    from mobula.client.settings import Settings
    from mobula.client.sync import Client
    from mobula.client.tree import Found, Listing

_PLACES = {
    "AccessRefused": "errors",
    "AsyncClient": "asynchronous",
    "Client": "sync",
    "ConditionFailed": "errors",
    "Damaged": "errors",
    "Entry": "model",
    "Found": "tree",
    "Info": "model",
    "Listing": "tree",
    "LiveList": "jobs",
    "MobulaError": "errors",
    "NotFound": "errors",
    "Partial": "download",
    "Settings": "settings",
    "Stored": "model",
    "Unavailable": "errors",
}

__all__ = [
    "AccessRefused",
    "AsyncClient",
    "Client",
    "ConditionFailed",
    "Damaged",
    "Entry",
    "Found",
    "Info",
    "Listing",
    "LiveList",
    "MobulaError",
    "NotFound",
    "Partial",
    "Settings",
    "Stored",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
