"""Every error the API can answer: code, status, and its usual message. Source: the HTTP contract, section "Error format".

A handler raises ``ApiError.of("DirectoryDoesNotExist", path=...)``; one place turns it into a response.
"""

from __future__ import annotations

from collections.abc import Mapping

# code: (status, message; fields in braces are filled in)
ERRORS: Mapping[str, tuple[int, str]] = {
    "BadRequestError": (400, "{why}"),
    "BadDigest": (400, "Content-MD5 of the body does not match"),
    "ContentMD5Mismatch": (400, "Content-MD5 expected to be {wanted}, but was {found}"),
    "DirectoryNotEmpty": (400, "{path} is not empty"),
    "InvalidArgumentError": (400, "{why}"),
    "InvalidContent": (400, "{why}"),
    "InvalidDurabilityLevel": (400, "durability-level must be between 1 and {most}"),
    "InvalidHeader": (400, "{why}"),
    "RequestExpired": (400, "Date header {found} is too old"),
    "InvalidJob": (400, "{why}"),
    "InvalidLink": (400, "{path} is an invalid link"),
    "InvalidMaxContentLength": (400, "max-content-length {found} is invalid"),
    "InvalidParameter": (400, "{name} is invalid: {found}"),
    "InvalidResource": (400, '"{path}" is invalid'),
    "InvalidUpdate": (400, "overwrite of {name} forbidden"),
    "LinkNotObject": (400, "{path} is not an object"),
    "LocationRequired": (400, "An HTTP Location header must be specified"),
    "OperationNotAllowedOnDirectory": (400, "this operation is not allowed on directory {path}"),
    "OperationNotAllowedOnRootDirectory": (400, "{path} is a root directory; this operation is not allowed"),
    "ParentNotDirectory": (400, "{path} is not a directory"),
    "AuthorizationRequired": (401, "authorization is required"),
    "InvalidAlgorithm": (401, "{found} is not a supported signing algorithm"),
    "AccountBlocked": (403, "{login} is not an active account"),
    "AccountDoesNotExist": (403, "{login} does not exist"),
    "AuthorizationFailed": (403, "{who} is not allowed to access {path}"),
    "AuthorizationSchemeNotAllowed": (403, "{found} is not a supported authorization scheme"),
    "InvalidAuthenticationToken": (403, "the authentication token you provided is malformed or expired"),
    "InvalidHttpAuthenticationToken": (403, "X-Auth-Token is not supported"),
    "InvalidKeyId": (403, "the KeyId token you provided is invalid"),
    "InvalidQueryStringAuthentication": (403, "{why}"),
    "InvalidSignature": (403, "the signature we calculated does not match the one you sent"),
    "KeyDoesNotExist": (403, "/{login}/keys/{fingerprint} does not exist"),
    "QueryParameterForbidden": (403, "use of query parameter {name} is not allowed"),
    "SecureTransportRequired": (403, "this operation requires a secure channel"),
    "UserDoesNotExist": (403, "{login} does not exist"),
    "DirectoryDoesNotExist": (404, "{path} does not exist"),
    "ResourceNotFound": (404, "{path} was not found"),
    "SourceObjectNotFound": (404, "{path} was not found"),
    "MethodNotAllowedError": (405, "{method} is not allowed on {path}"),
    "NotAcceptable": (406, "{type} is not acceptable"),
    "UploadTimeout": (408, "no data received for {seconds} s"),
    "ConcurrentRequest": (409, "{path} was being concurrently updated"),
    "DirectoryLimitExceeded": (409, "{path} has too many entries"),
    "InvalidJobState": (409, "job {job} is in state '{state}'"),
    "EntityAlreadyExists": (409, "{path} already exists"),
    "ObjectLost": (410, "{path} is lost: the storage that held its bytes is gone; delete it or write it again"),
    "ContentLengthRequired": (411, "Content-Length must be >= 0"),
    "PreconditionFailed": (412, "{why}"),
    "MaxContentLengthExceeded": (413, "request has exceeded {most} bytes"),
    "RequestEntityTooLargeError": (413, "the body is larger than {most} bytes"),
    "UnsupportedMediaTypeError": (415, "{found} is not supported"),
    "RequestedRangeNotSatisfiable": (416, "{found} is an invalid range"),
    "InternalError": (500, "an unexpected error occurred"),
    "NotImplemented": (501, "{what} is not supported"),
    "ServiceUnavailable": (503, "{why}"),
    "NotEnoughSpace": (507, "not enough free space for {megabytes} MB"),
}


class ApiError(Exception):
    """An answer that is an error; `headers` go out with it."""

    def __init__(self, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.status = ERRORS[code][0]
        self.message = message
        self.headers = headers

    @classmethod
    def of(cls, code: str, /, *, headers: tuple[tuple[str, str], ...] = (), **fields: object) -> ApiError:
        """The error of that code, its usual message filled in."""
        return cls(code, ERRORS[code][1].format(**fields), headers)


def unavailable(why: str, retry_after_s: int = 1) -> ApiError:
    """503: nothing is known to have happened; try again."""
    return ApiError("ServiceUnavailable", why, (("Retry-After", str(retry_after_s)),))
