"""The daemon over HTTP, read-only: metrics, health, and a plain page for people.

/metrics                  Prometheus text, or OpenMetrics where the client asks for it
/-/healthy, /livez        200 while the event loop turns; knows nothing of brokers
/-/ready, /readyz         200 when assigned, restored and self-tested, else 503 with the reasons
/, /status.json           what is going on, for people and for programs
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import exposition

from detector.errors import ConfigurationError
from detector.settings import HttpSettings
from detector.status_page import page
from detector.telemetry import Telemetry

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_STOP_S = 2.0  # how long open requests may take when we stop


class Server:
    """A running server; `await stop()` ends it."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner, self.port = runner, port

    async def stop(self) -> None:
        """Close the port and the open requests; safe to call twice."""
        await self._runner.cleanup()


async def serve(settings: HttpSettings, telemetry: Telemetry) -> Server:
    """Listen, and answer from `telemetry` until stopped.

    Raises:
        ConfigurationError: The address cannot be taken.
    """
    runner = web.AppRunner(_application(telemetry), access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        await runner.cleanup()
        address = f"{settings.host}:{settings.port}"
        raise ConfigurationError("http", address, expected="a free address", got=error.strerror) from error
    return Server(runner, runner.addresses[0][1])


def _application(telemetry: Telemetry) -> web.Application:
    application = web.Application()
    routes: dict[str, Callable[[Telemetry, web.Request], web.Response]] = {
        "/": _page,
        "/status.json": _status,
        "/metrics": _metrics,
        "/-/healthy": _healthy,
        "/livez": _healthy,
        "/-/ready": _ready,
        "/readyz": _ready,
    }
    for path, answer in routes.items():
        application.router.add_get(path, _handler(answer, telemetry))
    return application


def _handler(answer: Callable[[Telemetry, web.Request], web.Response], telemetry: Telemetry) -> _Handler:
    @functools.wraps(answer)
    async def handle(request: web.Request) -> web.StreamResponse:
        response = answer(telemetry, request)
        response.headers.update(_HEADERS)
        return response

    return handle


def _page(telemetry: Telemetry, _: web.Request) -> web.Response:
    clock = telemetry.clock
    html = page(telemetry.status.snapshot(clock.now_ns(), clock.monotonic_s()))
    return web.Response(text=html, content_type="text/html")


def _status(telemetry: Telemetry, _: web.Request) -> web.Response:
    clock = telemetry.clock
    return web.json_response(telemetry.status.snapshot(clock.now_ns(), clock.monotonic_s()))


def _metrics(telemetry: Telemetry, request: web.Request) -> web.Response:
    encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(telemetry.registry), headers={"Content-Type": content_type})


def _healthy(_: Telemetry, __: web.Request) -> web.Response:
    return web.json_response({"healthy": True})


def _ready(telemetry: Telemetry, _: web.Request) -> web.Response:
    reasons = telemetry.status.unready()
    return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)
