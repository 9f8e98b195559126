from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

import mobula
from mobula.core.errors import ERRORS, ApiError, unavailable

# Section 6 of the HTTP contract, the codes that are answered so far; ObjectLost is promise CL-102.
CONTRACT = {
    400: """BadRequestError BadDigest ContentMD5Mismatch DirectoryNotEmpty InvalidArgumentError InvalidContent
        InvalidDurabilityLevel InvalidHeader RequestExpired InvalidJob InvalidLink InvalidMaxContentLength InvalidParameter
        InvalidResource InvalidUpdate LinkNotObject LocationRequired OperationNotAllowedOnDirectory
        OperationNotAllowedOnRootDirectory ParentNotDirectory""",
    401: "AuthorizationRequired InvalidAlgorithm",
    403: """AccountBlocked AccountDoesNotExist AuthorizationFailed AuthorizationSchemeNotAllowed
        InvalidAuthenticationToken InvalidHttpAuthenticationToken InvalidKeyId InvalidQueryStringAuthentication
        InvalidSignature KeyDoesNotExist QueryParameterForbidden SecureTransportRequired UserDoesNotExist""",
    404: "DirectoryDoesNotExist ResourceNotFound SourceObjectNotFound",
    405: "MethodNotAllowedError",
    406: "NotAcceptable",
    408: "UploadTimeout",
    409: "ConcurrentRequest DirectoryLimitExceeded EntityAlreadyExists InvalidJobState",
    410: "ObjectLost",
    411: "ContentLengthRequired",
    412: "PreconditionFailed",
    413: "MaxContentLengthExceeded RequestEntityTooLargeError",
    415: "UnsupportedMediaTypeError",
    416: "RequestedRangeNotSatisfiable",
    500: "InternalError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
    507: "NotEnoughSpace",
}
SOURCES = Path(mobula.__file__).parent


def fields_of(code: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(ERRORS[code][1]) if field}


def test_codes_and_statuses_are_the_contracts() -> None:
    """Section 6."""
    wanted = {code: status for status, codes in CONTRACT.items() for code in codes.split()}
    assert {code: status for code, (status, _) in ERRORS.items()} == wanted


@pytest.mark.parametrize(
    ("code", "fields", "message"),
    [
        ("InvalidResource", {"path": "/demo/%"}, '"/demo/%" is invalid'),
        ("DirectoryNotEmpty", {"path": "/demo/stor/a"}, "/demo/stor/a is not empty"),
        ("DirectoryDoesNotExist", {"path": "/demo/stor/a"}, "/demo/stor/a does not exist"),
        ("ResourceNotFound", {"path": "/demo/stor/a"}, "/demo/stor/a was not found"),
        ("InvalidDurabilityLevel", {"most": 6}, "durability-level must be between 1 and 6"),
        ("NotEnoughSpace", {"megabytes": 7}, "not enough free space for 7 MB"),
        ("AuthorizationFailed", {"who": "anonymous", "path": "/a"}, "anonymous is not allowed to access /a"),
    ],
)
def test_messages_have_the_contracts_shape(code: str, fields: dict[str, object], message: str) -> None:
    """Sections 3 and 6."""
    error = ApiError.of(code, **fields)
    assert (error.code, error.status, error.message, str(error)) == (code, ERRORS[code][0], message, message)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_what_a_client_sent_is_never_a_format(code: str) -> None:
    hostile = "{0} {x.__class__} %s } {"
    fields = dict.fromkeys(fields_of(code), hostile)
    assert ApiError.of(code, **fields).message.count(hostile) == len(fields)


def raised_anywhere() -> list[tuple[str, str, set[str]]]:
    """Each ``ApiError.of("Code", field=...)`` of the services: where it stands, its code and its fields."""
    found = []
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "ApiError.of"
                and isinstance(node.args[0], ast.Constant)
            ):
                fields = {str(keyword.arg) for keyword in node.keywords} - {"headers"}
                found.append((f"{file.relative_to(SOURCES)}:{node.lineno}", str(node.args[0].value), fields))
    return found


def test_every_error_that_is_raised_is_known_and_has_all_its_fields() -> None:
    """Else the answer would be a KeyError, and 500."""
    raised = raised_anywhere()
    assert len(raised) > 20
    assert [(where, code) for where, code, fields in raised if code not in ERRORS or fields != fields_of(code)] == []


def test_unavailable_says_when_to_come_back() -> None:
    error = unavailable("no storage servers", 30)
    assert (error.status, error.code, error.message) == (503, "ServiceUnavailable", "no storage servers")
    assert error.headers == (("Retry-After", "30"),)
