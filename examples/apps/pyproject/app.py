"""A WSGI application that pyproject.toml describes: mktemplate up python-app --set source=examples/apps/pyproject."""

import getpass
from importlib.metadata import version
from wsgiref.types import StartResponse, WSGIEnvironment

from itsdangerous import Signer


def app(_: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Say who answers, signed."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    who = f"signer {version('signer')}, as {getpass.getuser()}"
    return [Signer("known to all").sign(who) + b"\n"]
