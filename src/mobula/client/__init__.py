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
    from mobula.client.errors import MobulaError
    from mobula.client.model import Entry, Info, Stored
    from mobula.client.settings import Settings
    from mobula.client.sync import Client
    from mobula.client.tree import Found, Listing

_PLACES = {
    "AsyncClient": "asynchronous",
    "Client": "sync",
    "Entry": "model",
    "Found": "tree",
    "Info": "model",
    "Listing": "tree",
    "MobulaError": "errors",
    "Settings": "settings",
    "Stored": "model",
}

__all__ = ["AsyncClient", "Client", "Entry", "Found", "Info", "Listing", "MobulaError", "Settings", "Stored"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
