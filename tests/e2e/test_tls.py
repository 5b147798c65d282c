"""TLS on both ports: what is spoken, certificates that are replaced while connections go on, clients' certificates."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time

import grpc
import pytest

from server import MOBIUS, START_SECONDS, WAIT_SECONDS

COMPLETIONS = "/v1/completions"
PROMPT = {"prompt": "x", "max_tokens": 1}


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Signs certificates, for servers and clients."""

    def __init__(self, folder, name):
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.key = folder / "ca.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", self.key, "-out", self.certificate, "-days", 2, "-subj", f"/CN={name}",
        )

    def issue(self, name):
        """(certificate, key), for 127.0.0.1 and localhost."""
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", f"/CN={name}",
        )
        extensions = self.folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
            "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", certificate,
        )
        return certificate, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "authority", "Test")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "stranger", "Stranger")


class Files:
    """The files that a server reads; replacing them is what an operator does."""

    def __init__(self, folder, authority):
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.put(authority.issue("first"))

    def put(self, pair):
        for source, target in zip(pair, (self.certificate, self.key)):
            self.replace(source, target)

    @staticmethod
    def replace(source, target):
        new = target.with_suffix(".new")
        shutil.copy(source, new)
        os.replace(new, target)


@pytest.fixture
def files(tmp_path, authority):
    return Files(tmp_path, authority)


def trust(server, authority, pair=None):
    """Makes the server's helpers speak TLS."""
    server.tls = ssl.create_default_context(cafile=authority.certificate)
    certificate = key = None
    if pair is not None:
        server.tls.load_cert_chain(*pair)
        certificate, key = (file.read_bytes() for file in pair)
    server.grpc_credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), key, certificate
    )
    return server


@pytest.fixture
def secure(start_server, files, authority):
    server = start_server(tls__certificate=files.certificate, tls__key=files.key)
    return trust(server, authority)


def name_of_http(server):
    """The common name that the HTTP port shows."""
    with socket.create_connection(server.http_address, timeout=20) as plain:
        with server.tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            return dict(entry[0] for entry in connection.getpeercert()["subject"])["commonName"]


def name_of_grpc(server, authority):
    host, port = server.grpc_address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            assert connection.selected_alpn_protocol() == "h2"
            return dict(entry[0] for entry in connection.getpeercert()["subject"])["commonName"]


def test_both_ports_answer(secure):
    status, answer = secure.complete("Once", max_tokens=8, seed=1)
    assert status == 200
    client = secure.grpc_client()
    messages = list(client.generate(text="Once", options={"max_tokens": 8, "seed": 1}))
    text = "".join(m.token.text or m.finished.text for m in messages)
    assert text == answer["choices"][0]["text"]
    client.close()
    secure.output.seek(0)
    assert "https://127.0.0.1" in secure.output.read()


def test_many_requests_over_one_connection(secure):
    connection = secure.connect()
    connection.connect()
    first = connection.sock
    for length in (1, 5, 100_000, 1_000_000):
        # From a part of a record to many of them.
        connection.request("POST", "/tokenize", json.dumps({"prompt": "word " * length}))
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["count"] >= length
        connection.request("GET", "/health")
        assert connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_streams_are_whole_and_vanishing_clients_are_noticed(secure):
    events = secure.stream(COMPLETIONS, {"prompt": "x", "max_tokens": 200, "ignore_eos": True})
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    with secure.open_stream(
        COMPLETIONS, {"prompt": "x", "max_tokens": 8000, "ignore_eos": True}
    ) as response:
        response.readline()
    line = secure.wait_for_log("generation", lambda entry: entry["outcome"] == "cancelled")
    assert line["completion_tokens"] < 8000


def test_an_answer_ends_with_a_farewell(secure):
    """close_notify: a client can tell an answer's end from a connection that was cut."""
    with socket.create_connection(secure.http_address, timeout=20) as plain:
        with secure.tls.wrap_socket(
            plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        ) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    assert answer.startswith(b"HTTP/1.1 200")


def test_versions_and_protocols(secure):
    def connect(version, alpn=None):
        context = ssl.create_default_context(cafile=secure_ca)
        # Otherwise the client's own policy would refuse old versions before the server does.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        if alpn:
            context.set_alpn_protocols(alpn)
        with socket.create_connection(secure.http_address, timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                return connection.version(), connection.selected_alpn_protocol()

    secure_ca = secure.folder / "ca.pem"
    secure_ca.write_bytes(
        ssl.DER_cert_to_PEM_cert(secure.tls.get_ca_certs(binary_form=True)[0]).encode()
    )
    assert connect(ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", None)
    assert connect(ssl.TLSVersion.TLSv1_3) == ("TLSv1.3", None)
    assert connect(ssl.TLSVersion.TLSv1_3, ["h2", "http/1.1"])[1] == "http/1.1"
    assert connect(ssl.TLSVersion.TLSv1_3, ["spdy/1"])[1] is None
    with pytest.raises((ssl.SSLError, OSError)):
        connect(ssl.TLSVersion.TLSv1_1)


def test_who_does_not_speak_tls_gets_nothing(secure):
    with secure.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not connection.recv(4096).startswith(b"HTTP/")
    secure.wait_for_log("tls_handshake_failed")
    with pytest.raises(grpc.RpcError):
        channel = grpc.insecure_channel(secure.grpc_address)
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        call(b"", timeout=10)
    assert secure.get("/health")[0] == 200


def test_a_slow_handshake_has_an_end(start_server, files):
    server = start_server(
        tls__certificate=files.certificate, tls__key=files.key, http__header_timeout_seconds=1
    )
    with server.raw(timeout=WAIT_SECONDS) as connection:
        connection.sendall(b"\x16\x03\x01")
        assert connection.recv(4096) == b""


def wait_for_name(name, ask):
    end = time.monotonic() + WAIT_SECONDS
    while ask() != name:
        assert time.monotonic() < end, f"still {ask()}"
        time.sleep(0.05)


def test_a_new_certificate_drops_no_connection(secure, files, authority):
    assert name_of_http(secure) == "first"
    assert name_of_grpc(secure, authority) == "first"
    kept = secure.connect()
    kept.request("GET", "/health")
    assert kept.getresponse().read()
    socket_before = kept.sock
    client = secure.grpc_client()
    options = {"max_tokens": 8000, "ignore_eos": True}
    call = client.generate(text="x", options=options)
    next(call)
    with secure.open_stream(COMPLETIONS, {"prompt": "x", **options}) as response:
        response.readline()
        files.put(authority.issue("second"))
        wait_for_name("second", lambda: name_of_http(secure))
        wait_for_name("second", lambda: name_of_grpc(secure, authority))
        assert response.readline() is not None and next(call).token.id >= 0
        call.cancel()
    kept.request("GET", "/health")
    assert kept.getresponse().read() and kept.sock is socket_before
    kept.close()
    # The gRPC connection was not dropped either: it takes another call.
    assert len(list(client.generate(text="x", options={"max_tokens": 1}))) >= 1
    client.close()


def test_half_a_pair_is_not_used(secure, files, authority):
    certificate, key = authority.issue("second")
    files.replace(certificate, files.certificate)
    line = secure.wait_for_log("certificate_not_loaded")
    assert "tls.key" in line["error"] and "does not belong" in line["error"]
    assert name_of_http(secure) == "first"
    assert name_of_grpc(secure, authority) == "first"
    files.replace(key, files.key)
    wait_for_name("second", lambda: name_of_http(secure))
    assert name_of_grpc(secure, authority) == "second"
    assert "GMT" in secure.wait_for_log("certificate_loaded")["expires"]


def test_pipes_in_their_place_hold_nothing_up(secure, files, authority):
    for file in (files.certificate, files.key):
        os.remove(file)
        os.mkfifo(file)
    secure.wait_for_log("certificate_not_loaded", lambda line: "not a regular file" in line["error"])
    assert name_of_http(secure) == "first" and name_of_grpc(secure, authority) == "first"
    files.put(authority.issue("second"))
    wait_for_name("second", lambda: name_of_http(secure))


def test_sighup_reads_certificates(secure):
    secure.process.send_signal(signal.SIGHUP)
    secure.wait_for_log("certificate_loaded")
    assert secure.get("/health")[0] == 200


# ---- clients' certificates -----------------------------------------------------------------------


@pytest.fixture
def mutual(start_server, files, authority):
    return start_server(
        tls__certificate=files.certificate, tls__key=files.key, tls__client_ca=authority.certificate
    )


def test_clients_with_a_certificate_are_served(mutual, authority):
    trust(mutual, authority, authority.issue("client"))
    assert mutual.complete("x", max_tokens=1)[0] == 200
    client = mutual.grpc_client()
    assert len(list(client.generate(text="x", options={"max_tokens": 1}))) >= 1
    client.close()


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_clients_without_one_are_not(mutual, authority, stranger, who):
    trust(mutual, authority, None if who == "nobody" else stranger.issue("client"))
    with pytest.raises((ssl.SSLError, ConnectionError, OSError)):
        mutual.get("/health")
    channel = grpc.secure_channel(mutual.grpc_address, mutual.grpc_credentials)
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    channel.close()
    mutual.wait_for_log("tls_handshake_failed")


def test_the_clients_authority_can_be_replaced(start_server, tmp_path, files, authority, stranger):
    accepted = tmp_path / "clients.pem"
    shutil.copy(authority.certificate, accepted)
    server = start_server(
        tls__certificate=files.certificate, tls__key=files.key, tls__client_ca=accepted
    )
    Files.replace(stranger.certificate, accepted)
    server.wait_for_log("certificate_loaded")
    trust(server, authority, stranger.issue("client"))
    assert server.get("/health")[0] == 200
    client = server.grpc_client()
    assert len(list(client.generate(text="x", options={"max_tokens": 1}))) >= 1
    client.close()
    trust(server, authority, authority.issue("client"))
    with pytest.raises((ssl.SSLError, ConnectionError, OSError)):
        server.get("/health")


@pytest.mark.parametrize("with_client_ca", [False, True])
def test_the_probe_speaks_tls(start_server, files, authority, with_client_ca):
    settings = {"tls__certificate": files.certificate, "tls__key": files.key}
    if with_client_ca:
        settings["tls__client_ca"] = authority.certificate
    server = start_server(**settings)
    host, port = server.http_address
    arguments = ["--http.address", host, "--http.port", str(port)]
    for name, value in settings.items():
        arguments += ["--" + name.replace("__", "."), str(value)]

    def probe(path, *more):
        return subprocess.run(
            [MOBIUS, "--probe", path, *arguments, *more],
            capture_output=True, text=True, timeout=START_SECONDS,
        )

    assert (probe("/ready").returncode, probe("/ready").stderr) == (0, "")
    assert "404" in probe("/nothing").stderr
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = probe("/ready", "--http.port", str(silent.getsockname()[1]))
    assert result.returncode == 1 and "TLS failed" in result.stderr


# ---- refusing to start ---------------------------------------------------------------------------


def test_files_that_cannot_be_used(checkpoint, tmp_path, files, authority):
    other_certificate, other_key = authority.issue("other")
    garbage = tmp_path / "garbage"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", other_key, "-aes256", "-passout", "pass:x", "-out", locked)
    good = {"tls.certificate": files.certificate, "tls.key": files.key}
    for change, words in (
        ({"tls.key": None}, ["tls.key", "not set"]),
        ({"tls.certificate": None}, ["tls.certificate", "not set"]),
        ({"tls.certificate": "/nonexistent"}, ["tls.certificate", "No such file"]),
        ({"tls.certificate": tmp_path}, ["tls.certificate", "directory"]),
        ({"tls.certificate": garbage}, ["tls.certificate", "PEM"]),
        ({"tls.certificate": files.key}, ["tls.certificate", "PEM"]),
        ({"tls.key": garbage}, ["tls.key", "PEM"]),
        ({"tls.key": locked}, ["tls.key", "password"]),
        ({"tls.key": other_key}, ["tls.key", "does not belong"]),
        ({"tls.client_ca": files.key}, ["tls.client_ca", "no certificates"]),
        ({"tls.client_ca": garbage}, ["tls.client_ca"]),
    ):
        arguments = [MOBIUS, "--model.path", checkpoint, "--check"]
        for key, value in {**good, **change}.items():
            if value is not None:
                arguments += [f"--{key}", value]
        result = subprocess.run(
            list(map(str, arguments)), capture_output=True, text=True, timeout=START_SECONDS
        )
        assert result.returncode == 1, change
        assert result.stderr.count("\n") == 1, result.stderr
        for word in words:
            assert word in result.stderr, (change, result.stderr)


def test_a_stream_over_tls_is_the_same_as_without(secure, server):
    body = {"prompt": "Once", "max_tokens": 50, "seed": 5, "ignore_eos": True}
    texts = [
        "".join(event["choices"][0]["text"] for event in one.stream(COMPLETIONS, body))
        for one in (secure, server)
    ]
    assert texts[0] == texts[1]
