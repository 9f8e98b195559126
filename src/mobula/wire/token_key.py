"""The region's key of tokens, as a service's config names it."""

from __future__ import annotations

from pathlib import Path

from mobula.core.tokens import TokenKey


def read_token_key(path: str | None, secret: bytes) -> TokenKey:
    """From a file; without one it is derived from another secret of the region. Raises OSError, ValueError."""
    if path is None:
        return TokenKey.derived(secret)
    return TokenKey.parse(Path(path).read_text(encoding="ascii"))
