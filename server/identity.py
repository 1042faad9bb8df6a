"""The server's identity: its token, its certificate, and the file that gives both to ``kubectl``.

Both lie in the state folder, open to its user alone, so that a client goes on when the server is
started again. ``kubectl`` sends no token over plain HTTP; so the server makes its own certificate.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace

VALID_DAYS = 365
RENEWED_DAYS_BEFORE = 30
TOKEN_BYTES = 32
_NAME = "loopscope"


@dataclass(frozen=True)
class Identity:
    """Where the server's secrets lie, and the token."""

    token: str
    certificate: Path
    key: Path


def identity_in(folder: Path, now: float) -> Identity:
    """Return the identity that lies in a folder; what is missing or ends soon is made.

    Raises TerminalFailure where the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        token = folder / "token"
        if not token.exists():
            _write(token, secrets.token_urlsafe(TOKEN_BYTES).encode())
        found = Identity(
            token.read_text(encoding="ascii").strip(),
            folder / "certificate.pem",
            folder / "key.pem",
        )
        if not _is_valid(found, now):
            key, certificate = _made(now)
            _write(found.key, key)
            _write(found.certificate, certificate)
    except OSError as error:
        raise TerminalFailure(
            "StateNotWritable",
            f"{folder}, where the server keeps its token, cannot be used ({error.strerror})",
        ) from None
    if len(found.token) < TOKEN_BYTES:
        raise TerminalFailure(
            "TokenUnusable", f"{token} holds no token; remove it, and another is made"
        )
    return found


def kubeconfig(identity: Identity, address: str) -> str:
    """Return a kubeconfig (YAML) with this server as its only cluster."""
    authority = base64.b64encode(identity.certificate.read_bytes()).decode()
    return f"""{_FIRST_LINE}
apiVersion: v1
kind: Config
clusters:
- name: {_NAME}
  cluster:
    server: {address}
    certificate-authority-data: {authority}
users:
- name: {_NAME}
  user:
    token: {identity.token}
contexts:
- name: {_NAME}
  context: {{cluster: {_NAME}, user: {_NAME}, namespace: default}}
current-context: {_NAME}
"""


_FIRST_LINE = "# Written by `loopscope serve --kubeconfig`, and written again at its next start."


def write_kubeconfig(file: Path, identity: Identity, address: str) -> None:
    """Write a kubeconfig, open to its user alone. Refuses a file that something else wrote."""
    try:
        if file.exists() and not file.read_text(encoding="utf-8").startswith(_FIRST_LINE):
            raise TerminalFailure(
                "KubeconfigInUse",
                f"{file} was not written by `loopscope serve` and is left alone; name another "
                "file, and set KUBECONFIG to it",
            )
        _write(file, kubeconfig(identity, address).encode())
    except (OSError, UnicodeDecodeError) as error:
        raise TerminalFailure(
            "KubeconfigNotWritable", f"{file} cannot be written ({error}); name another file"
        ) from None


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600, exist_ok=False)  # never through a link
    temporary.write_bytes(content)
    durable_replace(temporary, file)


def _is_valid(identity: Identity, now: float) -> bool:
    """Whether key and certificate are there, belong together and do not end soon."""
    try:
        certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
        key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return False
    left = certificate.not_valid_after_utc.timestamp() - now
    begun = certificate.not_valid_before_utc.timestamp() <= now
    same = certificate.public_key() == key.public_key()
    return begun and same and left > RENEWED_DAYS_BEFORE * 86_400


def _made(now: float) -> tuple[bytes, bytes]:
    """Return a new private key and its certificate, which it signed itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{_NAME} on this machine")])
    today = datetime.datetime.fromtimestamp(now, datetime.UTC)
    addresses: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
