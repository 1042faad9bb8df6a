"""Who may ask: hosts, origins, tokens, bodies, and clients that take their time."""

import asyncio
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.folder import open_state

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from loopscope.server.guard import Guard
from loopscope.server.identity import identity_in, kubeconfig, write_kubeconfig
from loopscope.server.process import TLS_READ_BYTES, bound_socket
from loopscope.state.failures import TerminalFailure
from tests.served import HERE, KINDS, TOKEN, served

DAY = 86_400.0
EXPERIMENTS = f"{HERE}/experiments"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    limits = {"body_bytes_max": 1000, "body_seconds_max": 0.5, "head_seconds_max": 0.5}
    with served(
        open_state(folder / "state"), folder, lambda: 2.0, writable=True, **limits
    ) as running:
        yield running


def raw(api, *pieces):
    """Send bytes as they are; return all that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as client:
        for piece in pieces:
            client.sendall(piece)
        answer = b""
        try:
            while received := client.recv(65536):
                answer += received
        except ConnectionResetError:
            pass
    return answer


def head(method="GET", path=KINDS, **headers):
    given = {"Host": "127.0.0.1", "Authorization": f"Bearer {TOKEN}", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def told(*parts):
    """Return what a client hears of an answer that says ``parts``, then is cut off by the end."""
    heard = []

    async def app(scope, receive, send):
        for part in parts:
            await send(part)
        await asyncio.Event().wait()

    async def hear(message):
        heard.append(message)

    async def ended():
        headers = [(b"host", b"127.0.0.1")]
        scope = {"type": "http", "scheme": "http", "path": "/", "method": "GET", "headers": headers}
        running = asyncio.create_task(Guard(app, None)(scope, None, hear))
        await asyncio.sleep(0)
        running.cancel()
        await running

    asyncio.run(ended())
    return heard


def test_what_the_end_of_the_server_cuts_off_is_told_so():
    begin, body = told()
    assert begin["status"] == 503
    assert b"ask again once it is back" in body["body"]
    start = {"type": "http.response.start", "status": 200, "headers": []}
    assert told(start) == [start], "an answer that has begun is not begun again"


# -- hosts, origins, tokens ----------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8471", "evil.example:127", ""]
)
def test_a_name_that_leads_here_by_rebinding_is_refused(api, host):
    assert raw(api, head(Host=host, Connection="close")).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "LOCALHOST", "[::1]:80", "[::1]"])
def test_the_names_of_loopback_are_let_in(api, host):
    assert raw(api, head(Host=host, Connection="close")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
)
def test_without_the_token_nothing_is_said(api, given):
    for path in (KINDS, EXPERIMENTS, "/nothing", f"{EXPERIMENTS}?watch=1", "/version"):
        answer = api(path, Authorization=given)
        assert (answer.code, answer.body["reason"]) == (401, "Unauthorized")
    assert api("/healthz", Authorization=given).body == b"ok"


def test_a_page_of_another_site_may_not_ask(api):
    own = f"http://127.0.0.1:{api.port}"
    assert api(KINDS, Origin=own).code == 200
    for origin in ("https://evil.example", "null", own.replace("http", "https"), own + "0"):
        assert api(KINDS, Origin=origin).code == 403
    assert api(KINDS, Sec_Fetch_Site="same-origin").code == 200
    for site in ("cross-site", "same-site"):
        assert api(KINDS, Sec_Fetch_Site=site).code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded;a=b"]
)
def test_what_a_form_can_send_is_refused(api, kind):
    answer = api(EXPERIMENTS, "POST", {}, kind=kind)
    assert (answer.code, answer.body["reason"]) == (415, "UnsupportedMediaType")


# -- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "//evil.example/apis",
        "/apis/%2e%2e/%2e%2e/etc/passwd",
        f"{HERE}/experiments/..%2f..%2fstate.db",
        f"{HERE}/experiments/%00",
        f"{HERE}/experiments/x%27%20or%201=1",
        f"{KINDS}/namespaces/%ff/experiments/x",
        f"{HERE}/experiments/{'x' * 5000}",
    ],
)
def test_a_path_leads_to_objects_or_nowhere(api, path):
    answer = api(path)
    assert (answer.code, answer.body["reason"]) == (404, "NotFound")
    assert "passwd" not in str(answer.headers)


# -- bodies ------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_before_it_is_read(api):
    answer = api(EXPERIMENTS, "POST", b"x" * 1001)
    assert (answer.code, answer.body["reason"]) == (413, "RequestEntityTooLarge")
    claimed = head("POST", EXPERIMENTS, Content_Length=10**12, Content_Type="application/json")
    assert raw(api, claimed).startswith(b"HTTP/1.1 413 ")


def test_a_body_in_pieces_is_bounded_as_well(api):
    start = head("POST", EXPERIMENTS, Transfer_Encoding="chunked", Content_Type="application/json")
    answer = raw(api, start, *[b"64\r\n" + b"x" * 100 + b"\r\n"] * 11)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for(api):
    start = head("POST", EXPERIMENTS, Content_Length=100, Content_Type="application/json")
    assert raw(api, start, b"{").startswith(b"HTTP/1.1 408 ")


def test_a_head_that_does_not_come_is_not_waited_for(api):
    assert raw(api) == b""
    assert raw(api, b"GET /apis HTTP/1.1\r\nHost: local") == b""
    whole = head()
    assert raw(api, whole, whole[:20]).count(b"HTTP/1.1 200 ") == 1


def test_a_head_without_an_end_is_refused(api):
    answer = raw(api, b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 200_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_watcher_that_takes_nothing_is_cut(tmp_path):
    from tests.unit.test_server_watching import put

    state = open_state(tmp_path / "state")
    start = put(state, "a", 1)
    fat = {"note": "x" * 60}
    with (
        served(state, tmp_path, lambda: 2.0, poll_seconds=0.01, send_seconds_max=0.3) as api,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", api.port))
        client.sendall(head(path=f"{HERE}/mappings?watch=1&resourceVersion={start}"))
        client.recv(100)
        other = api.watch(f"{HERE}/mappings?watch=1&resourceVersion={start}")
        for number in range(400):
            put(state, f"m{number}", 1, {f"l{n}{number}": "x" * 60 for n in range(100)} | fat)
            other.next()
        received = 0
        with pytest.raises((ConnectionResetError, EOFError)):
            while piece := client.recv(65536):
                received += len(piece)
            raise EOFError
        assert put(state, "last", 1) and other.next()["object"]["metadata"]["name"] == "last"
        other.close()


def test_a_list_that_nobody_takes_is_cut_while_others_are_served(tmp_path):
    state = open_state(tmp_path / "state")
    fat = {f"l{number}": "x" * 60 for number in range(100)}
    with state.database.write() as connection:
        for number in range(1500):
            key = Key("Mapping", "default", f"m{number}")
            objects.apply(connection, key, {"topK": 1}, labels=fat, now=1.0)
    with (
        served(state, tmp_path, lambda: 2.0, send_seconds_max=0.3) as api,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", api.port))
        client.sendall(head(path=f"{HERE}/mappings"))
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(OSError):  # once nobody is there who takes it
            for _ in range(10_000):
                client.sendall(b" ")
                assert api("/version").code == 200


def test_more_connections_than_allowed_are_told_to_come_later(tmp_path):
    state = open_state(tmp_path / "state")
    with served(state, tmp_path, lambda: 2.0, connections_max=4) as api:
        held = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(4)]
        while (answer := api("/version")).code == 200:
            pass  # until the server has taken all of them
        assert answer.code == 503
        for one in held:
            one.close()
        while (answer := api("/version")).code == 503:
            pass
        assert answer.code == 200


# -- identity ----------------------------------------------------------------------------------


def test_token_and_certificate_stay_and_are_the_users_alone(tmp_path):
    first = identity_in(tmp_path / "server", now=0.0)
    texts = [first.certificate.read_bytes(), first.key.read_bytes()]
    assert identity_in(tmp_path / "server", now=300 * DAY) == first
    assert [first.certificate.read_bytes(), first.key.read_bytes()] == texts
    assert len(first.token) >= 32
    for path in (tmp_path / "server", *(tmp_path / "server").iterdir()):
        assert path.stat().st_mode & 0o077 == 0


def test_a_certificate_is_renewed_before_it_ends_and_when_it_fits_no_key(tmp_path):
    first = identity_in(tmp_path, now=0.0)
    before = first.certificate.read_bytes()
    again = identity_in(tmp_path, now=336 * DAY)
    assert again.token == first.token and again.certificate.read_bytes() != before
    before = again.certificate.read_bytes()
    other = identity_in(tmp_path / "other", now=336 * DAY)
    again.key.write_bytes(other.key.read_bytes())
    assert identity_in(tmp_path, now=336 * DAY).certificate.read_bytes() != before


def test_a_token_that_is_none_is_not_used(tmp_path):
    identity_in(tmp_path, now=0.0)
    (tmp_path / "token").write_text("")
    with pytest.raises(TerminalFailure, match="remove it"):
        identity_in(tmp_path, now=0.0)


def test_a_client_that_trusts_the_certificate_accepts_loopback_and_nothing_else(tmp_path):
    made = identity_in(tmp_path, now=__import__("time").time())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    client = ssl.create_default_context(cafile=str(made.certificate))
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    def agree(name):
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            client.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(3):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue

    agree("127.0.0.1")
    agree("localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        agree("evil.example")


def test_a_connection_over_tls_keeps_a_small_buffer(api):
    async def connection():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        loop = asyncio.get_running_loop()
        return SSLProtocol(loop, asyncio.Protocol(), context, None, server_side=True)

    made = asyncio.run(connection())
    assert len(made._ssl_buffer) == TLS_READ_BYTES


def test_a_kubeconfig_replaces_no_other_file(tmp_path):
    made = identity_in(tmp_path / "server", now=0.0)
    file = tmp_path / "config"
    write_kubeconfig(file, made, "https://127.0.0.1:1")
    write_kubeconfig(file, made, "https://127.0.0.1:2")
    assert file.read_text() == kubeconfig(made, "https://127.0.0.1:2")
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("apiVersion: v1\nkind: Config\n")
    with pytest.raises(TerminalFailure, match="left alone"):
        write_kubeconfig(file, made, "https://127.0.0.1:3")
    assert file.read_text() == "apiVersion: v1\nkind: Config\n"


def test_a_kubeconfig_is_written_through_no_link_that_somebody_put_there(tmp_path, monkeypatch):
    made = identity_in(tmp_path / "server", now=0.0)
    (tmp_path / ".config.new").symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # put there just after that
    with pytest.raises(TerminalFailure, match="cannot be written"):
        write_kubeconfig(tmp_path / "config", made, "https://127.0.0.1:1")
    assert not (tmp_path / "theirs").exists()


def test_a_port_that_is_taken_is_said(tmp_path):
    with bound_socket(0) as taken, pytest.raises(TerminalFailure, match="--port"):
        bound_socket(taken.getsockname()[1])
