"""Mounts that are nowhere: made, changed and handed over as descriptors, so that nothing of a sandbox stands in the host's mount table.

Linux' newer mount calls (open_tree, fsopen, mount_setattr: 5.12 for idmapped mounts), which Python's standard library doesn't have.
"""

from __future__ import annotations

import ctypes
import enum
import os
import struct
from collections.abc import Mapping

_libc = ctypes.CDLL(None, use_errno=True)
# The same numbers on all architectures.
_OPEN_TREE, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 430, 431, 432, 442
_OPEN_TREE_CLONE, _FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1, 1
_FSCONFIG_SET_STRING, _FSCONFIG_CREATE = 1, 6
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000


class Attribute(enum.IntFlag):
    """Of a mount (MOUNT_ATTR_...)."""

    READ_ONLY = 1
    NO_SETUID = 2
    NO_DEVICES = 4
    IDMAPPED = 0x100000


def _call(what: str, number: int, *args: int | bytes | None) -> int:
    given = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = _libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def detached(path: str | os.PathLike[str], attributes: Attribute, user_namespace: int | None = None) -> int:
    """A descriptor of a mount of its own of that folder or file; `user_namespace` (a descriptor): with owners as they are in there.

    Raises:
        OSError: there is no such path; EINVAL: its file system can't map owners (zfs-fuse).
    """
    fd = _call(f"open {path}", _OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        if user_namespace is not None:
            attributes |= Attribute.IDMAPPED
        wanted = struct.pack("QQQQ", attributes, 0, 0, user_namespace or 0)
        _call(f"change the mount of {path}", _MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, wanted, len(wanted))
    except OSError:
        os.close(fd)
        raise
    return fd


def filesystem(kind: str, options: Mapping[str, str]) -> int:
    """A descriptor of a new mount of that kind of file system. Raises OSError, with what the kernel says of it."""
    context = _call(f"make a {kind}", _FSOPEN, kind.encode(), _FSOPEN_CLOEXEC)
    try:
        for name, value in options.items():
            _call(
                f"{kind} with {name}={value}",
                _FSCONFIG,
                context,
                _FSCONFIG_SET_STRING,
                name.encode(),
                os.fsencode(value),
                0,
            )
        _call(f"make a {kind}", _FSCONFIG, context, _FSCONFIG_CREATE, None, None, 0)
        return _call(f"mount a {kind}", _FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({_said(context)})") from error
    finally:
        os.close(context)


def _said(context: int) -> str:
    """The kernel's last word on a file system that is being made."""
    try:
        return os.read(context, 500).decode(errors="replace").strip()
    except OSError:
        return "the kernel says no more"
