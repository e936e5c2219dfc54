"""The application: addresses and what answers them."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from impq_opt.dashboard.desk import Desk, Question, Revised, SupersededError, Sweep
from impq_opt.dashboard.folder import Folder, Subject
from impq_opt.dashboard.guard import Guard
from impq_opt.dashboard.views import (
    answer_view,
    compared,
    curve_view,
    groups_view,
    item_view,
    problem_view,
    rounds_view,
)
from impq_opt.documents.numbers import read_whole
from impq_opt.errors import FileError, ImpqError, OptionError
from impq_opt.files.allocation import allocation_bytes
from impq_opt.text import html_text, script_json

__all__ = ["application"]

_HERE = Path(__file__).parent
_REPORT = _HERE.parent / "report"
# The page's own files, by the name that it loads them under.
_FILES = {
    "charts.js": (_REPORT / "charts.js", "text/javascript"),
    "report.css": (_REPORT / "page.css", "text/css"),
    "page.js": (_HERE / "page.js", "text/javascript"),
    "page.css": (_HERE / "page.css", "text/css"),
}
_MOST_BYTES = 1 << 20
_MOST_COMPARED = 8
_MOST_GROUPS = 500

Asked = TypeVar("Asked", bound=msgspec.Struct)
Endpoint = Callable[[Request], Awaitable[Response]]


def application(folder: Folder, token: str, hosts: frozenset[str]) -> Guard:
    """Return the ASGI application that serves ``folder`` under ``/TOKEN/`` to requests for ``hosts``."""
    views = _Views(folder)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        views.desk.stop()

    routes = [
        Route("/", views.page),
        *(Route(f"/{name}", _file(path, kind)) for name, (path, kind) in _FILES.items()),
        Route("/api/items", _told(views.items)),
        Route("/api/subjects/{key}", _told(views.subject)),
        Route("/api/runs/{key}", _told(views.run)),
        Route("/api/compare", _told(views.compare)),
        Route("/api/answers/{key}/groups", _told(views.groups)),
        Route("/api/answers/{key}/file", views.download),
        Route("/api/subjects/{key}/curve", _told(views.curve), methods=["POST"]),
        Route("/api/subjects/{key}/solve", _told(views.solve), methods=["POST"]),
    ]
    bare = Route("/{token}", lambda request: RedirectResponse(f"/{token}/"))
    return Guard(Starlette(routes=[bare, Mount("/{token}", routes=routes)], lifespan=lifespan), token, hosts)


def _told(view: Callable[[Request, bytes], Any]) -> Endpoint:
    """Return the endpoint that tells what ``view`` returns, worked out beside the loop, or its error in a sentence."""

    async def endpoint(request: Request) -> Response:
        try:
            return _json(await run_in_threadpool(view, request, await _body(request)))
        except Exception as error:
            return _refused(error)

    return endpoint


def _json(document: Any, status: int = 200) -> Response:
    return Response(script_json(document), status, media_type="application/json")


def _refused(error: Exception) -> Response:
    if isinstance(error, SupersededError):
        return _json({"error": str(error)}, 409)
    if isinstance(error, FileError):
        return _json({"error": str(error)}, 404)
    if isinstance(error, ImpqError):
        return _json({"error": str(error)}, 400)
    if isinstance(error, MemoryError):
        return _json({"error": "there is not enough memory for this"}, 500)
    if os.environ.get("IMPQ_OPT_DEBUG"):
        traceback.print_exception(error)
    return _json({"error": "this is a fault of impq-opt; please report it with what IMPQ_OPT_DEBUG=1 shows"}, 500)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise OptionError("is longer than a question can be", where="the request", value=len(body))
    return bytes(body)


def _asked(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OptionError(f"is not a question: {error}", where="the request") from None


def _file(path: Path, kind: str) -> Endpoint:
    content = path.read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=kind)

    return endpoint


class _Views:
    """What the addresses show of one folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.desk = folder, Desk()
        self._page = (_HERE / "page.html").read_text(encoding="utf-8").replace("{folder}", html_text(folder.root.name))

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    def items(self, request: Request, body: bytes) -> Any:
        items = [
            item_view(item) | ({"round": True} if self.folder.run_of(item) else {}) for item in self.folder.items()
        ]
        return {"items": items, "leftOut": self.folder.left_out}

    def subject(self, request: Request, body: bytes) -> Any:
        subject = self._subject(request)
        told = problem_view(subject, self.folder)
        if subject.answer is None:
            return told
        work = self.desk.work(subject, Revised())
        kept = self.desk.keep(work, subject.answer)
        return told | {"answer": answer_view(kept, claimed=True)}

    def curve(self, request: Request, body: bytes) -> Any:
        sweep = _asked(body, Sweep)
        ask = self.desk.swept if sweep.hull else self.desk.work
        return curve_view(ask(self._subject(request), sweep))

    def solve(self, request: Request, body: bytes) -> Any:
        question = _asked(body, Question)
        return answer_view(self.desk.solve(self._subject(request), question))

    def groups(self, request: Request, body: bytes) -> Any:
        layer, first = (read_whole(request.query_params.get(name, "0"), name) for name in ("layer", "first"))
        return groups_view(self.desk.answered(request.path_params["key"]), layer, first, _MOST_GROUPS)

    def run(self, request: Request, body: bytes) -> Any:
        return rounds_view([self.folder.records(request.path_params["key"])], self.folder)

    def compare(self, request: Request, body: bytes) -> Any:
        keys = [key for key in request.query_params.get("keys", "").split(",") if key]
        if not 1 <= len(keys) <= _MOST_COMPARED:
            raise OptionError(f"must be 1 to {_MOST_COMPARED} items", where="compare", value=len(keys))
        runs, works = [], []
        for key in keys:
            if self.folder.item(key).kind == "run":
                runs.append(self.folder.records(key))
            else:
                subject = self.folder.subject(key)
                ask = self.desk.swept if subject.answer is None else self.desk.work
                works.append(ask(subject, Revised()))
        return compared(works) | {"rounds": rounds_view(runs, self.folder) if runs else None}

    async def download(self, request: Request) -> Response:
        try:
            kept = self.desk.answered(request.path_params["key"])
            data = await run_in_threadpool(
                allocation_bytes, kept.allocation, base=kept.work.subject.base, revision=kept.work.revision
            )
        except ImpqError as error:
            return _refused(error)
        stem = kept.work.subject.item.path.stem.removesuffix(".problem").removesuffix(".allocation")
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "problem"
        headers = {"Content-Disposition": f'attachment; filename="{name}.allocation.json"'}
        return Response(data, media_type="application/json", headers=headers)

    def _subject(self, request: Request) -> Subject:
        return self.folder.subject(request.path_params["key"])
