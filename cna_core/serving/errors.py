"""Errors in OpenAI's format. Clients receive the text of this project's errors only, never that of other errors."""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cna_core.errors import CnaError, StrengthError
from cna_core.serving.named_models import UnknownModelError


class BusyError(CnaError):
    """More answers are running than the limit allows."""

    code = "too_many_requests"


class SlowError(CnaError):
    """A request took longer than the limit."""

    code = "timeout"


class BodyTooLargeError(CnaError):
    """A request is larger than the limit."""

    code = "too_large"


_STATUS: tuple[tuple[type[CnaError], int, str | None], ...] = (
    (UnknownModelError, 404, "model"),
    (StrengthError, 403, "model"),
    (BusyError, 429, None),
    (SlowError, 504, None),
    (BodyTooLargeError, 413, None),
    (CnaError, 400, None),
)
"""Kinds of errors with their HTTP status and field; the first that matches is used."""


def error_response(status: int, message: str, code: str, parameter: str | None = None) -> JSONResponse:
    """An error as a response."""
    return JSONResponse({"error": _shaped(status, message, code, parameter)}, status_code=status)


def error_event(error: Exception) -> dict[str, Any]:
    """An error as the last piece of a stream, whose status was already sent."""
    return {"error": _shaped(500, told(error), error.code if isinstance(error, CnaError) else "failed", None)}


def told(error: Exception) -> str:
    """The message of an error for clients."""
    return str(error) if isinstance(error, CnaError) else f"The model failed ({type(error).__name__})."


def with_errors_told(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The route, wrapped so that every exception becomes an error response."""

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
    """The response to an unknown address or a method that it does not support."""
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "method_not_allowed"
    return error_response(error.status_code, f"{error.detail}: see /v1/models for the models of this endpoint.", code)


def _shaped(status: int, message: str, code: str, parameter: str | None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": parameter, "code": code}
