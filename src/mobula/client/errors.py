"""The exceptions of the SDK.

    MobulaError
    +-- NotFound         404: no such object, or no directory for it
    +-- AccessRefused    401, 403: the key is not known, or its owner may not do this
    +-- ConditionFailed  412: If-Match and the like; a download that goes on, of an object that was replaced
    +-- Unavailable      503, or no answer at all: the same call may succeed later
    +-- Damaged          what came, or what was stored, is not what was sent

`MobulaError(...)` makes the one that its code or its status says, so that nobody has to choose.
"""

from __future__ import annotations

from typing import Self


class MobulaError(Exception):
    """A request that the service refused, or that got no answer; the message is one sentence.

    `status` is the HTTP status, 0 if there was no answer. `code` is the service's (``ResourceNotFound``) or one of ours:
    ConnectionFailed, NotTrusted (its certificate), InvalidAnswer (not what the contract says), BodyDamaged (length or MD5),
    BodyChanged (a file that grew while it was sent), NotDirectory, NotObject, InvalidPath, InvalidSetting.
    """

    def __new__(cls, code: str, message: str, *, status: int = 0, request_id: str = "") -> Self:  # noqa: ARG004
        kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or cls
        return super().__new__(kind if issubclass(kind, cls) else cls)

    def __init__(self, code: str, message: str, *, status: int = 0, request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.code!r}, {self.message!r}, status={self.status}, request_id={self.request_id!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Between processes an exception is its class and its positional arguments; the others come with its state."""
        return type(self), (self.code, self.message), {"status": self.status, "request_id": self.request_id}


class NotFound(MobulaError):
    """No such object, or no directory for it."""


class AccessRefused(MobulaError):
    """The key is not known, or its owner may not do this."""


class ConditionFailed(MobulaError):
    """A condition of the request does not hold."""


class Unavailable(MobulaError):
    """The service can't now, or could not be reached: the same call may succeed later."""


class Damaged(MobulaError):
    """Bytes changed on their way."""


_BY_CODE: dict[str, type[MobulaError]] = {
    "ConnectionFailed": Unavailable,
    "BodyDamaged": Damaged,
    "ContentMD5Mismatch": Damaged,
}
_BY_STATUS: dict[int, type[MobulaError]] = {
    401: AccessRefused,
    403: AccessRefused,
    404: NotFound,
    412: ConditionFailed,
    503: Unavailable,
}
