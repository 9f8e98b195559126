"""The kernel's records of processes that have ended (acct(5), version 3): which of them dumped core."""

from __future__ import annotations

RECORD_BYTES = 64
_FLAGS_AT, _NAME_AT = 0, 48
_DUMPED_CORE = 0x08


def cores(records: bytes) -> list[str]:
    """Names of the programs that dumped core, as they ended. A record that is cut off is left out. Pure."""
    whole = len(records) - len(records) % RECORD_BYTES
    return [
        records[at + _NAME_AT : at + RECORD_BYTES].rstrip(b"\0").decode(errors="replace")
        for at in range(0, whole, RECORD_BYTES)
        if records[at + _FLAGS_AT] & _DUMPED_CORE
    ]
