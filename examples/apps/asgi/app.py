"""A plain ASGI application: mktemplate up python-app --set source=examples/apps/asgi --set server=uvicorn."""

import getpass
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Say who answers, and which path was asked for."""
    if scope["type"] != "http":
        return
    body = f"asgi, as {getpass.getuser()}: {scope['path']}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
