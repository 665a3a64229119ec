"""A mirror can be slow, short, endless or elsewhere; none of it is waited for, and none of it is taken."""

from __future__ import annotations

import hashlib
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from provisioner.connect import failure
from provisioner.errors import DownloadFailed, ProvisionError
from provisioner.fetch import HttpFetch, Limits, Missing
from provisioner.url import check_url
from tests.provisioner.web import Speak, Web, answer, drip, in_turn, ranged, served_web, silent

BODY = hashlib.shake_128(b"body").digest(300_000)
QUICK = Limits(
    connect=2, headers=0.4, stall=0.3, document=0.6, rate=1000, window=0.2, pauses=(0.01, 0.01)
)
ONCE = Limits(connect=2, headers=0.4, stall=0.3, document=0.6, rate=10**6, pauses=())


Get = Callable[[str, int, Limits], bytes]


@pytest.fixture
def web() -> Iterator[Web]:
    with served_web() as web:
        yield web


@pytest.fixture
def fetch() -> Iterator[HttpFetch]:
    with HttpFetch({}, QUICK) as fetch:
        yield fetch


@pytest.fixture(params=["document", "download"])
def get(request: pytest.FixtureRequest) -> Get:
    """Both ways to fetch, behind one signature."""

    def document(url: str, size: int, limits: Limits) -> bytes:
        with HttpFetch({}, limits) as fetch:
            return fetch.document(url, size)

    def download(url: str, size: int, limits: Limits) -> bytes:
        out = io.BytesIO()
        with HttpFetch({}, limits) as fetch:
            fetch.download(url, out, offset=0, size=size, advance=lambda count: None)
        return out.getvalue()

    return document if request.param == "document" else download


def test_a_file_comes_whole(web: Web, get: Get) -> None:
    web.answers["/f"] = answer(BODY)

    assert get(web.url("/f"), len(BODY), QUICK) == BODY


def test_one_connection_serves_several_files(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = answer(BODY)
    for _ in range(3):
        fetch.download(
            web.url("/f"), io.BytesIO(), offset=0, size=len(BODY), advance=lambda n: None
        )

    assert sum(map(len, fetch._idle.values())) == 1


def test_what_is_expected_is_asked_for_at_once_and_only_once(web: Web, fetch: HttpFetch) -> None:
    begun = threading.Event()

    def speak(peer: socket.socket, request: str) -> None:
        begun.set()
        answer(BODY)(peer, request)

    web.answers["/f"] = speak
    fetch.expect(web.url("/f"), len(BODY))

    assert begun.wait(30)
    assert fetch.document(web.url("/f"), len(BODY)) == BODY
    assert len(web.requests) == 1


def test_what_is_expected_is_asked_for_anew_the_second_time(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = in_turn(answer(b"old"), answer(b"new"))
    fetch.expect(web.url("/f"), 10)

    assert [fetch.document(web.url("/f"), 10) for _ in range(2)] == [b"old", b"new"]


def test_what_went_wrong_is_raised_where_it_was_needed(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = answer(b"", status="404 Not Found")
    fetch.expect(web.url("/f"), 10)

    with pytest.raises(Missing):
        fetch.document(web.url("/f"), 10)


@pytest.mark.parametrize(
    ("speak", "code"),
    [
        (answer(BODY[:1000], length=300_000), "E_NET_TRUNCATED"),
        (answer(b"", status="404 Not Found"), "E_NET_HTTP"),
        (answer(b"", status="503 Busy"), "E_NET_HTTP"),
        (answer(BODY + b"x", length=-1), "E_NET_TOOBIG"),
        (silent, "E_NET_TIMEOUT"),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05), "E_NET_TIMEOUT"),
        (drip(b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.05), "E_NET_TIMEOUT"),
        (drip(b"HTTP/1.1 200 OK\r\n\r\n", b"y", 0.05), "E_NET_TIMEOUT"),
        (drip(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 65536, 0), "E_NET_TOOBIG"),
        (answer(b"", headers="X: " + "y" * 70_000 + "\r\n"), "E_NET_HTTP"),
        (lambda peer, request: peer.sendall(b"SSH-2.0-hello\r\n\r\n"), "E_NET_HTTP"),
        (lambda peer, request: peer.close(), "E_NET_TRUNCATED"),
    ],
    ids=[
        *("cut off", "missing", "busy", "longer", "silent", "slow headers", "slow header"),
        *("slow body", "endless", "large header", "another protocol", "hangs up"),
    ],
)
def test_what_goes_wrong_has_a_code_and_an_end(web: Web, get: Get, speak: Speak, code: str) -> None:
    web.answers["/f"] = speak
    begin = time.monotonic()

    with pytest.raises(DownloadFailed) as failed:
        get(web.url("/f"), len(BODY), ONCE)

    assert failed.value.code == code
    assert web.url("/f") in failed.value.subject
    assert time.monotonic() - begin < 3


def test_fewer_bytes_than_a_minimum_are_too_slow(web: Web, get: Get) -> None:
    web.answers["/f"] = drip(b"HTTP/1.1 200 OK\r\n\r\n", b"y", 0.02)
    limits = Limits(stall=1, document=5, rate=1000, window=0.2, pauses=())

    with pytest.raises(DownloadFailed) as failed:
        get(web.url("/f"), len(BODY), limits)

    assert failed.value.code == "E_NET_SLOW"


def test_a_server_that_was_busy_is_asked_again(web: Web, get: Get) -> None:
    web.answers["/f"] = in_turn(answer(b"", status="503 Busy"), answer(BODY))

    assert get(web.url("/f"), len(BODY), QUICK) == BODY
    assert len(web.requests) == 2


def test_a_missing_file_is_not_asked_for_again(web: Web, get: Get) -> None:
    with pytest.raises(Missing):
        get(web.url("/f"), 10, QUICK)

    assert len(web.requests) == 1


def test_a_broken_download_is_resumed_where_it_broke(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = ranged(BODY, cut=100_000)
    out = io.BytesIO()
    told: list[int] = []

    fetch.download(web.url("/f"), out, offset=0, size=len(BODY), advance=told.append)

    assert out.getvalue() == BODY
    assert sum(told) == len(BODY)
    assert "range: bytes=100000-" in web.requests[1].lower()


def test_a_download_goes_on_at_an_offset(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = ranged(BODY)
    out = io.BytesIO(BODY[:1234])
    out.seek(1234)

    fetch.download(web.url("/f"), out, offset=1234, size=len(BODY), advance=lambda n: None)

    assert out.getvalue() == BODY


def test_a_server_that_ignores_ranges_makes_it_begin_anew(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = answer(BODY)
    out = io.BytesIO(b"x" * 1234)
    told: list[int] = []
    out.seek(1234)

    fetch.download(web.url("/f"), out, offset=1234, size=len(BODY), advance=told.append)

    assert out.getvalue() == BODY
    assert told[0] == -1234


def test_another_range_than_asked_is_refused(web: Web, fetch: HttpFetch) -> None:
    web.answers["/f"] = answer(
        BODY[5:], status="206 Partial Content", headers=f"Content-Range: bytes 5-9/{len(BODY)}\r\n"
    )
    out = io.BytesIO(b"x" * 10)
    out.seek(10)

    with pytest.raises(DownloadFailed, match="another range"):
        fetch.download(web.url("/f"), out, offset=10, size=len(BODY), advance=lambda n: None)


def _to(location: str) -> Speak:
    return answer(b"", status="302 Found", headers=f"Location: {location}\r\n")


def test_redirects_are_followed(web: Web, get: Get) -> None:
    web.answers |= {"/a": _to("/b"), "/b": _to(web.url("/f")), "/f": answer(BODY)}

    assert get(web.url("/a"), len(BODY), QUICK) == BODY


def test_a_redirect_may_carry_a_query_and_it_is_asked_for(web: Web, get: Get) -> None:
    web.answers |= {"/a": _to("/f?sig=a%2Fb&x=1"), "/f?sig=a%2Fb&x=1": answer(BODY)}

    assert get(web.url("/a"), len(BODY), QUICK) == BODY


def test_the_size_of_a_file_is_what_its_server_says(web: Web) -> None:
    web.answers |= {"/a": _to("/f"), "/f": answer(BODY), "/n": answer(BODY, length=-1)}

    with HttpFetch({}, QUICK) as fetch:
        assert fetch.size(web.url("/a")) == len(BODY)
        with pytest.raises(DownloadFailed, match="does not say how long"):
            fetch.size(web.url("/n"))


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://127.0.0.1/f", "http://user:pass@127.0.0.1/f"),
        *("/b?x=<1>", "/a", "http://h%0aX: y/"),
    ],
    ids=["file", "ftp", "credentials", "query", "in circles", "header"],
)
def test_a_redirect_to_a_bad_place_is_refused(web: Web, get: Get, location: str) -> None:
    web.answers["/a"] = _to(location)

    with pytest.raises(DownloadFailed) as failed:
        get(web.url("/a"), 10, QUICK)

    assert failed.value.code == "E_NET_REDIRECT"
    assert "pass" not in failed.value.detail.replace("passwd", "")


def test_a_public_mirror_may_not_lead_to_a_private_address(fetch: HttpFetch) -> None:
    fetch._resolver._known[("public.example", 80)] = ((2, ("198.51.100.7", 80)),)

    for target in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:10.0.0.1]"):
        with pytest.raises(DownloadFailed) as failed:
            fetch._next_place(
                "http://public.example/f", "http://public.example/f", f"http://{target}/f"
            )

        assert failed.value.code == "E_NET_REDIRECT"


def test_a_redirect_from_https_to_http_is_refused(fetch: HttpFetch) -> None:
    with pytest.raises(DownloadFailed) as failed:
        fetch._next_place("https://h/f", "https://h/f", "http://h/f")

    assert failed.value.code == "E_NET_REDIRECT"


def test_a_proxy_of_the_environment_is_used(web: Web) -> None:
    web.answers["http://mirror.example/f"] = answer(BODY)
    out = io.BytesIO()

    with HttpFetch({"http_proxy": web.url("")}, QUICK) as fetch:
        fetch.download(
            "http://mirror.example/f", out, offset=0, size=len(BODY), advance=lambda n: None
        )
        text = fetch.document("http://mirror.example/f", len(BODY))

    assert text == out.getvalue() == BODY


@pytest.mark.parametrize(
    ("environ", "proxied"),
    [
        ({"http_proxy": "http://p:3128"}, True),
        ({"http_proxy": "p:3128"}, True),
        ({"HTTP_PROXY": "http://p:3128"}, False),
        ({"http_proxy": "http://p:3128", "no_proxy": "x, .example.org"}, False),
        ({"http_proxy": "http://p:3128", "NO_PROXY": "*"}, False),
        ({"http_proxy": "http://p:3128", "no_proxy": "ample.org"}, True),
        ({"https_proxy": "http://p:3128"}, False),
    ],
    ids=str,
)
def test_the_environment_says_what_goes_through_a_proxy(
    environ: dict[str, str], proxied: bool
) -> None:
    proxy = HttpFetch(environ)._proxy("http://deb.example.org/f")

    assert proxy == ("http://p:3128" if proxied else "")


@pytest.mark.parametrize("proxy", ["socks5://p:1", "http://u:p@p:1", "http://p:1/\r\nX: y"])
def test_a_proxy_that_cannot_be_meant_is_refused(proxy: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        HttpFetch({"http_proxy": proxy})._proxy("http://h/f")

    assert refused.value.code == "E_URL"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a b/",
            "http://u:p@h/",
            "ftp://h/",
            "file:///etc",
            "http://h/\n\rX: y",
            "http://",
        ),
        *("http://h:99999/", "http://h:0/", "http://h/../x", "http://h/?x", "http://h/#x", "//h/x"),
        *(
            "http://h/\u00e9",
            "http://-h/",
            "http://h/a\\b",
            "HTTP//h",
            "http://[::1/",
            "http://h:8o/",
        ),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        check_url(url)

    assert refused.value.code == "E_URL"
    assert "u:p" not in refused.value.subject
    assert refused.value.subject.isprintable()


@pytest.mark.parametrize(
    "url", ["http://h/debian/", "https://h:8443/a/b", "http://[::1]:80/x", "http://10.0.0.1"]
)
def test_an_address_of_a_mirror_is_accepted(url: str) -> None:
    assert check_url(url) == url.rstrip("/")


def test_names_that_do_not_resolve_are_named(get: Get) -> None:
    with pytest.raises(DownloadFailed) as failed:
        get("http://no-such-host.invalid/f", 10, QUICK)

    assert (failed.value.code, failed.value.subject) == ("E_NET_RESOLVE", "no-such-host.invalid")


def test_a_closed_port_is_told_at_once(get: Get) -> None:
    with served_web() as web:
        url = web.url("/f")

    with pytest.raises(DownloadFailed) as failed:
        get(url, 10, QUICK)

    assert failed.value.code == "E_NET_CONNECT"


def test_a_wrong_certificate_is_a_failure_of_tls() -> None:
    problem = ssl.SSLCertVerificationError(1, "certificate is for another name")

    assert failure("https://h/f", problem).code == "E_NET_TLS"
