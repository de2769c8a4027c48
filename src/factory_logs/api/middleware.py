"""ASGI middleware that changes what the application sees of a request. Pure ASGI, as it surrounds streams too."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from factory_logs.errors import TooLargeError


class BodyLimit:
    """Refuses a body over `max_bytes` before it is read whole: by its Content-Length, else as it arrives (SPEC 7).

    The error is raised where the body is read, so it is answered like any other.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"0")
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if announced.isdigit() and int(announced) > self._max_bytes:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_within_limit, send)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"The body is over the limit of {self._max_bytes} bytes")


class HeadAsGet:
    """Answers HEAD as GET without the body, as every HTTP server should and the legacy API did.

    The application is told that the caller is gone once the head is out, so a long answer is not made for nobody.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        answered = False

        async def receive_until_answered() -> Message:
            return {"type": "http.disconnect"} if answered else await receive()

        async def send_head(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                answered = True

        scope["method"] = "GET"
        try:
            await self._app(scope, receive_until_answered, send_head)
        finally:
            scope["method"] = "HEAD"
