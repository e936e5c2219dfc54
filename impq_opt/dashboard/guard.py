"""Who may ask: the token in the address, the names of this machine, and pages of the dashboard itself."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["POLICY", "Guard"]

# The page loads its own files and asks its own server, nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets through what has the token, comes to a name of this machine and, where it asks for work, from the page.

    Parameters
    ----------
    app : ASGI application
    token : str
        The first part of every path.
    hosts : frozenset of str
        What may stand in the header ``Host``: another name is one that somebody else made point here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        await (self.app if refusal is None else refusal)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") not in [[host] for host in self.hosts]:
            return PlainTextResponse("This name is not the dashboard's.\n", 421)
        part = scope["path"].split("/")[1:2]
        if not secrets.compare_digest("".join(part).encode("utf-8", "surrogateescape"), self.token.encode()):
            return PlainTextResponse("Open the address that impq-opt dashboard printed: it has a token.\n", 401)
        if scope["method"] not in ("GET", "HEAD"):
            origins = [f"http://{host}" for host in self.hosts]
            if headers.get("origin") not in origins or headers.get("content-type") != "application/json":
                return PlainTextResponse("Only the dashboard's own page may ask this.\n", 403)
        return None
