"""The pages of the metrics endpoint, as a WSGI application: metrics, health, and what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any, NamedTuple
from wsgiref.types import StartResponse, WSGIApplication

from prometheus_client import CollectorRegistry, make_wsgi_app

from trimtab_server import __version__

Readiness = Callable[[], str | None]
"""Returns why the server does not serve now; None if it does. Any thread may call it."""

_ALLOWED = "GET, HEAD"
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"

_ABOUT = {
    "/metrics": "metrics, for Prometheus",
    "/healthz": "200 while the process runs",
    "/readyz": "200 if the server serves, else 503 with the reason",
}


class _Page(NamedTuple):
    status: str
    body: str
    kind: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


def pages(registry: CollectorRegistry, readiness: Readiness) -> WSGIApplication:
    """The application that serves `registry` at /metrics, and tells whether the server is ready."""
    metrics: WSGIApplication = make_wsgi_app(registry)
    others: Mapping[str, Callable[[], _Page]] = {
        "/": _landing,
        "/healthz": lambda: _Page("200 OK", "ok\n"),
        "/readyz": lambda: _ready(readiness()),
    }

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if path != "/metrics" and path not in others:
            page = _Page("404 Not Found", f"there are {', '.join(['/', *_ABOUT])}\n")
        elif method not in ("GET", "HEAD"):
            text = f"{method} is not allowed here: use {_ALLOWED}\n"
            page = _Page("405 Method Not Allowed", text, headers=(("Allow", _ALLOWED),))
        elif path == "/metrics":
            # It serves GET only. The body of a HEAD is left out by the caller.
            return metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        else:
            page = others[path]()
        headers = [("Content-Type", page.kind), *page.headers]
        start_response(page.status, headers)
        return [page.body.encode()]

    return _without_bodies_of_heads(application)


def _without_bodies_of_heads(application: WSGIApplication) -> WSGIApplication:
    """The same, but a HEAD gets only the headers, with the length that a GET would have."""

    def headed(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
            started[:] = status, headers

        body = b"".join(application(environ, start))
        status, headers = started
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return headed


def _ready(reason: str | None) -> _Page:
    if reason is None:
        return _Page("200 OK", "ready\n")
    return _Page("503 Service Unavailable", f"{reason}\n")


def _landing() -> _Page:
    items = "".join(
        f'<li><a href="{path}">{path}</a>: {escape(about)}</li>' for path, about in _ABOUT.items()
    )
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Trimtab</title></head>'
        f"<body><h1>Trimtab {escape(__version__)}</h1><ul>{items}</ul></body></html>\n"
    )
    return _Page("200 OK", body, _HTML)
