"""The one exception of the SDK."""

from __future__ import annotations


class MobulaError(Exception):
    """A request that the service refused, or that got no answer; the message is one sentence.

    `status` is the HTTP status, 0 if there was no answer. `code` is the service's (``ResourceNotFound``) or one of ours:
    ConnectionFailed, NotTrusted (its certificate), InvalidAnswer (not what the contract says), BodyDamaged (length or MD5),
    BodyChanged (a file that grew while it was sent), NotDirectory, NotObject, InvalidPath, InvalidSetting.
    """

    def __init__(self, code: str, message: str, *, status: int = 0, request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id

    def __repr__(self) -> str:
        return f"MobulaError({self.code!r}, {self.message!r}, status={self.status}, request_id={self.request_id!r})"
