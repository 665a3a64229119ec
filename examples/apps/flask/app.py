"""A Flask application: mktemplate up python-app --set source=examples/apps/flask."""

import getpass

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> str:
    """Say who answers."""
    return f"flask, as {getpass.getuser()}\n"
