"""What pages of other origins may do in a browser: nothing, unless http.cors_origins names them."""

import pytest

from server import Server

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PAGE = "https://chat.example"
PROMPT = {"prompt": "x", "max_tokens": 1}
KEY = "mk-alice-0123456789abcdef"


def cors(headers):
    return {name.lower() for name in headers if name.lower().startswith("access-control-")}


def preflight(server, origin=PAGE, path=CHAT, headers="authorization,content-type,x-stainless-os"):
    """What a browser asks before a page's POST; (status, headers)."""
    status, answer, _ = server.request(
        "OPTIONS", path, None,
        {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        },
    )
    return status, answer


@pytest.fixture(scope="module")
def shared(checkpoint, tmp_path_factory):
    running = Server(
        tmp_path_factory.mktemp("cors"),
        checkpoint,
        environment={"MOBIUS_SECURITY_API_KEYS": KEY},
        http__cors_origins=f"{PAGE}, http://localhost:3000",
    )
    yield running
    assert running.stop() == 0


def test_by_default_no_other_origin_may(server):
    status, headers = preflight(server)
    assert status == 405 and not cors(headers)
    status, headers, _ = server.post_for_headers(COMPLETIONS, PROMPT, {"Origin": PAGE})
    assert status == 403 and not cors(headers)
    status, headers, _ = server.request("GET", "/v1/models", headers={"Origin": PAGE})
    assert status == 200 and not cors(headers), "answered, and no page may read it"


@pytest.mark.parametrize(
    "origin", ["null", "http://127.0.0.1:1", "http://evil.example", "127.0.0.1", "://"]
)
def test_foreign_pages_cannot_start_work(server, origin):
    """A body without a type needs no preflight: browsers send it for any page."""
    status, _, answer = server.request(
        "POST", COMPLETIONS, b'{"prompt": "x", "max_tokens": 1}', {"Origin": origin}
    )
    assert status == 403
    assert b"http.cors_origins" in answer and b"permission" in answer


def test_our_own_page_may(server):
    host, port = server.http_address
    for scheme in ("http", "https"):
        own = {"Origin": f"{scheme}://{host}:{port}"}
        assert server.post(COMPLETIONS, PROMPT, own)[0] == 200


def test_an_allowed_origin_may_ask_and_read(shared):
    for origin in (PAGE, "http://localhost:3000"):
        status, headers = preflight(shared, origin)
        assert status == 200
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Access-Control-Allow-Headers"] == "authorization,content-type,x-stainless-os"
        assert "POST" in headers["Access-Control-Allow-Methods"]
        own = {"Origin": origin, "Authorization": f"Bearer {KEY}"}
        status, headers, _ = shared.post_for_headers(COMPLETIONS, PROMPT, own)
        assert status == 200
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Vary"] == "Origin"
        assert "x-request-id" in headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in headers


def test_a_page_can_read_errors_and_streams_too(shared):
    status, headers, _ = shared.post_for_headers(COMPLETIONS, PROMPT, {"Origin": PAGE})
    assert status == 401 and headers["Access-Control-Allow-Origin"] == PAGE
    own = {"Origin": PAGE, "Authorization": f"Bearer {KEY}"}
    status, headers, _ = shared.post_for_headers(COMPLETIONS, {"prompt": 1}, own)
    assert status == 400 and headers["Access-Control-Allow-Origin"] == PAGE
    status, headers, _ = shared.request(
        "POST", COMPLETIONS, b'{"prompt": "x", "max_tokens": 1, "stream": true}', own
    )
    assert status == 200 and headers["Access-Control-Allow-Origin"] == PAGE


def test_another_origin_gets_nothing(shared):
    other = "https://chat.example.evil.example"
    status, headers = preflight(shared, other)
    assert status == 401 and not cors(headers)
    status, headers, _ = shared.post_for_headers(
        COMPLETIONS, PROMPT, {"Origin": other, "Authorization": f"Bearer {KEY}"}
    )
    assert status == 403 and not cors(headers)
    assert headers["Vary"] == "Origin"


def test_header_names_are_not_echoed_blindly(shared):
    status, headers = preflight(shared, headers="x-a: b")
    assert status == 200
    assert "Access-Control-Allow-Headers" not in headers


def test_all_origins(start_server):
    server = start_server(http__cors_origins="*")
    assert preflight(server, "https://any.example")[1]["Access-Control-Allow-Origin"] == "*"
    status, headers, _ = server.post_for_headers(COMPLETIONS, PROMPT, {"Origin": "null"})
    assert status == 200 and headers["Access-Control-Allow-Origin"] == "*"
