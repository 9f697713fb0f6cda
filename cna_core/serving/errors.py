"""What went wrong, in the shape of OpenAI's errors. A client never hears the text of an error that is none of ours."""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cna_core.errors import CnaError, StrengthError
from cna_core.serving.named_models import UnknownModelError


class BusyError(CnaError):
    """More answers are under way than may be."""

    code = "too_many_requests"


class SlowError(CnaError):
    """A request took longer than it may."""

    code = "timeout"


class BodyTooLargeError(CnaError):
    """More came than a request may have."""

    code = "too_large"


_STATUS: tuple[tuple[type[CnaError], int, str | None], ...] = (
    (UnknownModelError, 404, "model"),
    (StrengthError, 403, "model"),
    (BusyError, 429, None),
    (SlowError, 504, None),
    (BodyTooLargeError, 413, None),
    (CnaError, 400, None),
)
"""Kinds of errors with their HTTP status and the field to which they belong; the first that fits holds."""


def error_response(status: int, message: str, code: str, parameter: str | None = None) -> JSONResponse:
    """An error as a response."""
    return JSONResponse({"error": _shaped(status, message, code, parameter)}, status_code=status)


def error_event(error: Exception) -> dict[str, Any]:
    """An error as the last piece of a stream, whose status has been sent already."""
    return {"error": _shaped(500, told(error), error.code if isinstance(error, CnaError) else "failed", None)}


def told(error: Exception) -> str:
    """What clients hear of an error."""
    return str(error) if isinstance(error, CnaError) else f"The model failed ({type(error).__name__})."


def with_errors_told(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The route, which answers whatever goes wrong in it with an error."""

    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or None
            return error_response(400, f"{place or 'The body'}: {first['msg']}.", "invalid_value", place)
        except CnaError as error:
            status, field = next((status, field) for kind, status, field in _STATUS if isinstance(error, kind))
            return error_response(status, str(error), error.code, field)
        except Exception as error:  # noqa: BLE001  its text may hold what was asked, so it is neither logged nor told
            return error_response(500, told(error), "failed")

    return answered


async def no_such_route(_request: Request, error: Exception) -> Response:
    """The answer where there is no such address, or not for this method."""
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "method_not_allowed"
    return error_response(error.status_code, f"{error.detail}: see /v1/models for what is served here.", code)


def _shaped(status: int, message: str, code: str, parameter: str | None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": parameter, "code": code}
