"""One request on its way through the handlers: what has been found out about it so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from mobula.core.accounts import Account
from mobula.core.paths import Path
from mobula.wire.http_exchange import Request, Response


@dataclass(slots=True)
class Context:
    """`caller` None: nobody has signed. `owner`: the account that the path names."""

    request: Request
    response: Response
    path: Path
    owner: Account
    caller: Account | None
    query: Mapping[str, str]

    @property
    def directory(self) -> str:
        """The parent, as the metadata tier knows it."""
        return self.path.parent.stored(self.owner.uuid)

    @property
    def stored(self) -> str:
        """The path, as the metadata tier knows it."""
        return self.path.stored(self.owner.uuid)

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        return self.request.headers.get(name)


def read_query(query: str) -> dict[str, str]:
    """Parameters of a query; of one that comes twice the last counts."""
    return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=100))
