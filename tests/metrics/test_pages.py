"""The pages of the metrics endpoint, over HTTP: does the server run, does it serve?"""

from __future__ import annotations

import asyncio
import gzip
import http.client
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.rpc.peers import until
from tests.servers import busy, make_config
from trimtab_server import __version__
from trimtab_server.app import App

PATHS = ("/", "/metrics", "/healthz", "/readyz")


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


async def ask(app: App, path: str, method: str = "GET", **headers: str) -> Answer:
    def call() -> Answer:
        connection = http.client.HTTPConnection(str(app.metrics_address), timeout=60)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), named)
        finally:
            connection.close()

    return await asyncio.to_thread(call)


async def test_each_page_has_its_path_and_there_are_no_others():
    async with App(make_config(metrics_listen="127.0.0.1:0")) as app:
        metrics = await ask(app, "/metrics")
        assert b"trimtab_build_info" in metrics.body
        assert metrics.headers["content-type"].startswith("text/plain")
        assert (await ask(app, "/healthz"))[:2] == (200, b"ok\n")
        assert (await ask(app, "/readyz"))[:2] == (200, b"ready\n")

        landing = await ask(app, "/")
        assert landing.headers["content-type"] == "text/html; charset=utf-8"
        assert f"Trimtab {__version__}".encode() in landing.body
        for path in PATHS[1:]:
            assert f'<a href="{path}">'.encode() in landing.body
            assert (await ask(app, f"{path}?a=b")).status == 200

        for path in ("/metric", "/metrics/", "/favicon.ico", "/healthz/x"):
            answer = await ask(app, path)
            assert answer[:2] == (404, b"there are /, /metrics, /healthz, /readyz\n")

        for path in PATHS:
            got, head = await ask(app, path), await ask(app, path, "HEAD")
            assert (head.status, head.body) == (200, b"")
            assert int(head.headers["content-length"]) > 0
            assert head.headers["content-type"] == got.headers["content-type"]
            assert int(got.headers["content-length"]) == len(got.body)
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                answer = await ask(app, path, method)
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_prometheus_chooses_the_format_of_the_metrics():
    async with App(make_config(metrics_listen="127.0.0.1:0")) as app:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        chosen = await ask(app, "/metrics", **accept)
        assert chosen.headers["content-type"].startswith("application/openmetrics-text")
        assert chosen.body.endswith(b"# EOF\n")
        packed = await ask(app, "/metrics", **{"Accept-Encoding": "gzip"})
        assert b"trimtab_build_info" in gzip.decompress(packed.body)
        one = await ask(app, "/metrics?name[]=trimtab_build_info")
        assert b"trimtab_build_info" in one.body
        assert b"trimtab_queue_depth" not in one.body


async def test_a_server_is_ready_once_it_is_warm_and_until_it_drains():
    app = App(make_config(metrics_listen="127.0.0.1:0"))
    async with AsyncExitStack() as stack:
        release = await stack.enter_async_context(busy(app.queue))
        entering = asyncio.create_task(app.__aenter__())
        await until(lambda: app.metrics_address)
        assert (await ask(app, "/readyz"))[:2] == (503, b"the server is warming up\n")
        assert (await ask(app, "/healthz")).status == 200
        release.set()
        await entering
    assert (await ask(app, "/readyz")).status == 200
    async with busy(app.queue) as release:
        stopping = asyncio.create_task(app.stop())
        await asyncio.sleep(0)
        assert (await ask(app, "/readyz"))[:2] == (503, b"the server is shutting down\n")
        assert (await ask(app, "/healthz")).status == 200
        release.set()
        await stopping
