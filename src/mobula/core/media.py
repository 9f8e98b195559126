"""Headers that are kept with an entry: types, dispositions, m-* and CORS headers. Pure."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, unquote_to_bytes

from mobula.core.errors import ApiError

DEFAULT_TYPE = "application/octet-stream"
CORS = frozenset(
    f"access-control-{name}" for name in ("allow-headers", "allow-origin", "expose-headers", "max-age", "allow-methods")
)
KEPT = CORS | {"cache-control", "surrogate-key", "content-disposition"}
CUSTOM_BYTES_MAX = 4096
_CUSTOM = re.compile(r"m-[\w-]+")
_TYPE = re.compile(r"[^\s/;,]+/[^\s/;,]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DISPOSITION = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:;|$)'
)
_EXTENDED = re.compile(
    r"(utf-8|iso-8859-1)'[0-9A-Za-z-]*'((?:%[0-9A-Fa-f]{2}|[!#$&+.^_`|~0-9A-Za-z-])*)", re.ASCII | re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def content_type(value: str | None) -> str:
    """The type to store: as sent; a file name or an extension is looked up; none or unknown is ``application/octet-stream``."""
    if not value or not value.strip():
        return DEFAULT_TYPE
    value = value.strip()
    if _TYPE.match(value):
        return value
    # the extension alone: from Python 3.13 on guess_type takes a name for a URL, and raises ValueError for some
    extension = re.split(r"[./\\]", value)[-1]
    return mimetypes.guess_type(f"x.{extension}", strict=False)[0] or DEFAULT_TYPE


def is_directory_type(value: str | None) -> bool:
    """``application/json; type=directory``, however it is spaced."""
    return _json_type(value) == "directory"


def is_link_type(value: str | None) -> bool:
    """``application/json; type=link``."""
    return _json_type(value) == "link"


def _json_type(value: str | None) -> str | None:
    media, *parameters = [part.strip().lower() for part in (value or "").split(";")]
    if media != "application/json":
        return None
    for parameter in parameters:
        name, _, found = parameter.partition("=")
        if name.strip() == "type":
            return found.strip().strip('"')
    return None


def disposition(value: str) -> str:
    """A Content-Disposition, parsed and written again: type in lower case, file names cut to their last part.

    Raises:
        ApiError: BadRequestError.
    """
    kind, _, rest = value.partition(";")
    kind = kind.strip().lower()
    refused = ApiError.of("BadRequestError", why=f"Content-Disposition {value!r} can't be parsed")
    if not _TOKEN.fullmatch(kind) or _CONTROL.search(value):
        raise refused
    parameters = []
    position = 0
    while position < len(rest):
        match = _DISPOSITION.match(rest, position)
        if match is None:
            raise refused
        name, found = match[1].lower(), match[2]
        if found.startswith('"'):
            found = re.sub(r"\\(.)", r"\1", found[1:-1])
        written = _extended(name, found) if name.endswith("*") else _quoted(_base(name, found))
        if written is None:
            raise refused
        parameters.append(f"; {name}={written}")
        position = match.end()
    return kind + "".join(parameters)


def _base(name: str, found: str) -> str:
    return re.split(r"[/\\]", found)[-1] if name in {"filename", "filename*"} else found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _extended(name: str, found: str) -> str | None:
    """A value of the form ``charset'language'escapes`` (RFC 8187), which is never quoted; None if it is none."""
    match = _EXTENDED.fullmatch(found)
    if match is None:
        return None
    try:
        text = unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return None
    return "UTF-8''" + quote(_base(name, text), safe="!#$&+-.^_`|~")


def kept_headers(headers: Iterable[tuple[str, str]], *, directory: bool) -> dict[str, str]:
    """Headers of a request that are stored and given back; `m-*` beyond 4 KiB of values are dropped, as clients expect.

    Raises:
        ApiError: BadRequestError (Content-Disposition).
    """
    found: dict[str, str] = {}
    size_bytes = 0
    for raw, value in headers:
        name = raw.lower()
        if _CUSTOM.fullmatch(name):
            size_bytes += len(value)  # a character of a received header is one byte
            if size_bytes <= CUSTOM_BYTES_MAX:
                found[name] = value
        elif name in KEPT and not (directory and name == "content-disposition"):
            found[name] = disposition(value) if name == "content-disposition" else value
    return found


def acceptable(accept: str | None, stored: str) -> bool:
    """The stored type meets an Accept header; a malformed part of the header accepts nothing, none at all everything."""
    if not accept or not accept.strip():
        return True
    kind, _, subtype = stored.split(";", maxsplit=1)[0].strip().lower().partition("/")
    for part in accept.split(","):
        wanted, *parameters = [p.strip().lower() for p in part.split(";")]
        if any(re.fullmatch(r"q=0(\.0*)?", p) for p in parameters):
            continue
        first, _, second = wanted.partition("/")
        if (first in {"*", kind}) and (second in {"*", subtype}):
            return True
    return False


def cors_on_read(stored: Mapping[str, str], origin: str | None, method: str) -> dict[str, str]:
    """Stored CORS headers as a read answers them: as they are without Origin, narrowed to it with one."""
    cors = {name: value for name, value in stored.items() if name in CORS}
    if origin is None or not cors:
        return cors
    allowed = [o.strip() for o in cors.get("access-control-allow-origin", "").split(",")]
    if origin not in allowed and "*" not in allowed:
        return {}
    methods = cors.get("access-control-allow-methods")
    if methods is not None and method not in [m.strip().upper() for m in methods.split(",")]:
        return {}
    answer = {"access-control-allow-origin": origin}
    for name in ("access-control-expose-headers", "access-control-allow-methods"):
        if name in cors:
            answer[name] = cors[name]
    return answer


def _listed(stored: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in stored.get(f"access-control-{name}", "").split(",") if part.strip()]


def cors_on_preflight(stored: Mapping[str, str], header: Callable[[str], str | None]) -> dict[str, str]:
    """Headers that let a browser go on, if what is stored allows what it asks for; none otherwise."""
    origin, method = header("origin"), header("access-control-request-method")
    if not origin or not method:
        return {}
    origins = _listed(stored, "allow-origin")
    allowed = {name.lower() for name in _listed(stored, "allow-headers")}
    wanted = [name.strip().lower() for name in (header("access-control-request-headers") or "").split(",")]
    if not (origin in origins or "*" in origins) or method not in [m.upper() for m in _listed(stored, "allow-methods")]:
        return {}
    if not allowed.issuperset(filter(None, wanted)):
        return {}
    kept = ("allow-methods", "allow-headers", "max-age")
    named = {f"access-control-{name}": stored.get(f"access-control-{name}") for name in kept}
    return {"access-control-allow-origin": origin} | {name: value for name, value in named.items() if value}
