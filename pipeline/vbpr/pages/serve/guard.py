"""What stands before the routes: it counts requests, and turns bad ones away with a 4xx and a sentence."""

import asyncio
import time
import traceback
from collections import Counter

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .schemas import MAX_ID

BODY_SECONDS = 30.0  # after which a body that is not complete is given up, and its connection with it
LONGEST_DETAIL = 1000  # characters of a sentence about a request, which may quote it
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)  # seconds
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Counts:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.buckets: Counter[tuple[str, float]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.started = time.time()

    def add(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]
        for bucket in BUCKETS:
            if seconds <= bucket:
                self.buckets[route, bucket] += 1

    def text(self) -> str:
        """All of it, in Prometheus's text format."""
        lines = ["# TYPE vbpr_requests_total counter"]
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'vbpr_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE vbpr_request_seconds histogram")
        for route in sorted(self.seconds):
            total = sum(count for (r, _), count in self.requests.items() if r == route)
            for bucket in BUCKETS:
                lines.append(
                    f'vbpr_request_seconds_bucket{{route="{route}",le="{bucket}"}} {self.buckets[route, bucket]}'
                )
            lines.append(f'vbpr_request_seconds_bucket{{route="{route}",le="+Inf"}} {total}')
            lines.append(f'vbpr_request_seconds_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            lines.append(f'vbpr_request_seconds_count{{route="{route}"}} {total}')
        lines += ["# TYPE vbpr_start_time_seconds gauge", f"vbpr_start_time_seconds {self.started:.0f}"]
        return "\n".join(lines) + "\n"


class Guard:
    """ASGI middleware: counts requests, refuses bodies that are too large or too slow, and answers an unexpected error
    with a plain 500.

    Args:
        limit: of a body, in bytes.
    """

    def __init__(self, app: ASGIApp, counts: Counts, limit: int) -> None:
        self.app, self.counts, self.limit = app, counts, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status, received = time.perf_counter(), 0, 0
        too_large = f"the body is larger than {self.limit:,} bytes"
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS  # for all parts together

        async def limited_receive() -> Message:
            nonlocal received
            if status:  # the answer has begun: all that can still come is a disconnect
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                detail = f"the body did not arrive within {BODY_SECONDS:.0f} seconds"
                raise HTTPException(408, detail, {"Connection": "close"}) from error
            received += len(message.get("body", b""))
            if received > self.limit:
                raise HTTPException(413, too_large, {"Connection": "close"})
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        async def refuse(code: int, detail: str) -> None:
            if not status:
                response = JSONResponse({"detail": detail}, code, headers={"Connection": "close"})
                await response(scope, receive, send_with_headers)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if declared.isdigit() and (len(declared) > 18 or int(declared) > self.limit):
                await refuse(413, too_large)
            else:
                await self.app(scope, limited_receive, send_with_headers)
        except Exception as error:
            print(f"internal failure: {scope['method']} {scope['path'][:MAX_ID]!r}", flush=True)
            traceback.print_exception(error)
            await refuse(500, "internal failure; the server's log says more")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.counts.add(route, status, time.perf_counter() - started)


async def only_declared_parameters(request: Request) -> None:
    """Refuse parameters that a route lacks, and those given twice that take one value: a filter whose name is mistyped
    must not answer as if there were none."""
    route = request.scope["route"]
    declared = [parameter.alias for parameter in route.dependant.query_params]
    given = Counter(name for name, _ in request.query_params.multi_items())
    unknown = next((name for name in given if name not in declared), None)
    if unknown is not None and route.include_in_schema:
        raise HTTPException(422, f"no parameter {unknown[:MAX_ID]!r}; there is {', '.join(declared) or 'none'}")
    lists = [p.alias for p in route.dependant.query_params if isinstance(p.field_info.default, list)]
    twice = next((name for name, times in given.items() if times > 1 and name not in lists), None)
    if twice is not None:
        raise HTTPException(422, f"the parameter {twice[:MAX_ID]!r} is given {given[twice]} times; give it once")


async def refused(request: Request, error: Exception) -> JSONResponse:
    """A `VbprError` as an answer."""
    return JSONResponse({"detail": str(error)}, 400)


async def malformed(request: Request, error: Exception) -> JSONResponse:
    """What FastAPI has to say of a request that fits no schema, in one sentence."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
    return JSONResponse({"detail": "; ".join(faults)[:LONGEST_DETAIL]}, 422)


__all__ = ["Counts", "Guard", "malformed", "only_declared_parameters", "refused"]
