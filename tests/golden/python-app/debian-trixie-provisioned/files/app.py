"""The example that stands here until --set source=DIR puts an application in its place."""

BODY = b"Hello from mktemplate's python-app.\n"


def app(environ, start_response):
    """Answer every request (WSGI, PEP 3333)."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
