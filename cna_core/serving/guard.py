"""Access control of the endpoint, before a request is read.

Without a key, the endpoint serves only programs on this machine. It recognises web pages of other sites by their
`Origin`, and by the name under which they reached this address (`Host`). Log lines contain only sizes.
"""

import ipaddress
import json
import logging
import secrets
import time
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cna_core.serving.errors import BodyTooLargeError, error_response

_log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether a host, from a URL or as a listening address, is the loopback of this machine."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Passes a request to `app`, or answers it with an error.

    Args:
        app: the guarded application.
        key: the key that clients must send as `Authorization: Bearer KEY`; None: only loopback names and origins.
        most_bytes: the largest body.
    """

    def __init__(self, app: ASGIApp, key: str | None, most_bytes: int) -> None:
        self.app, self.key, self.most_bytes = app, key, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        read_bytes, sent_bytes, status, began = 0, 0, 0, time.monotonic()

        async def counted_receive() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self.most_bytes:
                raise BodyTooLargeError(self._too_large)
            return message

        async def counted_send(message: Message) -> None:
            nonlocal sent_bytes, status
            status = message.get("status", status)
            sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, counted_receive, counted_send)
        finally:
            facts = {"status": status, "read_bytes": read_bytes, "sent_bytes": sent_bytes}
            _log.info(json.dumps(facts | {"seconds": round(time.monotonic() - began, 3)}))

    def _refusal(self, headers: dict[str, str]) -> JSONResponse | None:
        if self.key is not None:
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not secrets.compare_digest(given.encode(), self.key.encode()):
                return error_response(401, "Send the key as 'Authorization: Bearer KEY'.", "invalid_api_key")
        else:
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
            origin = headers.get("origin")
            if not is_loopback(host):
                return error_response(
                    403, "Without an API key, the endpoint serves only this machine.", "host_not_allowed"
                )
            if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
                return error_response(
                    403, "The endpoint does not serve web pages of other sites.", "origin_not_allowed"
                )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.most_bytes:
            return error_response(413, self._too_large, BodyTooLargeError.code)
        return None

    @property
    def _too_large(self) -> str:
        return f"A request may have at most {self.most_bytes:,} bytes; send a shorter one."
