"""``loopscope serve`` as a process: what it prints, writes and refuses, and how it ends."""

import signal
import socket
import ssl
import subprocess
import sys

from tests.api.conftest import SECONDS_MAX
from tests.simulated import settled_experiment


def serve(tmp_path, *words):
    command = [sys.executable, "-m", "loopscope", "--state", "state", "serve", *words]
    return subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_it_says_where_it_listens_and_ends_on_a_signal_also_while_watched(tmp_path):
    settled_experiment(tmp_path / "state").state.database.close()
    server = serve(tmp_path, "--port", "0", "--kubeconfig", "config")
    assert server.stdout.readline() == f"KUBECONFIG={tmp_path / 'config'}\n"
    address, said = server.stdout.readline().split(" ", 1)
    assert said.startswith("reads only; the token lies in")
    token = (tmp_path / "state/server/token").read_text()
    trusted = ssl.create_default_context(cafile=str(tmp_path / "state/server/certificate.pem"))
    port = int(address.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        path = "/apis/loopscope.dev/v1alpha1/experiments?watch=1"
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b'"ADDED"' not in answer:
            answer += client.recv(65536)
        taken = serve(tmp_path, "--port", str(port))
        _, wrong = taken.communicate(timeout=SECONDS_MAX)
        assert taken.returncode == 1 and "name another with --port" in wrong
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS_MAX) == 0
        while client.recv(65536):
            pass


def test_it_invents_no_state_folder_and_gives_no_token_over_plain_http(tmp_path):
    for words, said in (
        ((), "no state folder"),
        (("--no-tls", "--kubeconfig", "config"), "--kubeconfig needs TLS"),
    ):
        server = serve(tmp_path, "--port", "0", *words)
        _, wrong = server.communicate(timeout=SECONDS_MAX)
        assert server.returncode == 2 and said in wrong
    assert not (tmp_path / "state").exists() and not (tmp_path / "config").exists()
