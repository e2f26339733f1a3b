"""A broker with locks on its doors: certificates made here, users, and tokens that it believes.

SSL        mutual TLS: who has no certificate of our authority stays outside
SASL_SSL   TLS, and a password (PLAIN, SCRAM) or a token (OAUTHBEARER; unsigned ones, as Kafka offers for tests)
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.kafka.broker import Broker, Listener, own_broker

USER, PASSWORD = "reader", "open sesame!"
SESSION_S = 3.0  # after which the broker drops who signed on by token, unless the token ends before
_MODULES = "org.apache.kafka.common.security"
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


@dataclass(frozen=True)
class Locked:
    """A running broker with locks, and the keys to it."""

    broker: Broker
    ca: Path
    """The authority that signed everything."""
    certificate: Path
    """Ours, with its key in the same file."""
    stranger_ca: Path
    """An authority that signed nothing here."""
    stranger_certificate: Path
    """Signed by the stranger."""


@contextlib.contextmanager
def locked_broker(folder: Path) -> Iterator[Locked]:
    """Start it; keys and certificates go into the folder."""
    authority, stranger = trustme.CA(), trustme.CA()
    files = {name: folder / f"{name}.pem" for name in ("ca", "server", "client", "stranger-ca", "stranger")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    stranger.cert_pem.write_to_path(str(files["stranger-ca"]))
    _write(authority.issue_cert("localhost"), files["server"])
    _write(authority.issue_cert("reader@example.org"), files["client"])
    _write(stranger.issue_cert("reader@example.org"), files["stranger"])
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": files["server"],
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": files["ca"],
    }
    listeners = [Listener("SSL", tls | {"ssl.client.auth": "required"}), Listener("SASL_SSL", tls | _sasl())]
    scram = [f'SCRAM-SHA-{bits}=[name={USER},password="{PASSWORD}"]' for bits in (256, 512)]
    with own_broker(listeners, scram) as broker:
        yield Locked(broker, files["ca"], files["client"], files["stranger-ca"], files["stranger"])


def _write(certificate: trustme.LeafCert, path: Path) -> None:
    """Key and chain in one file; the key as PKCS #8, which is the only form that Java reads."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for each in certificate.cert_chain_pems:
        each.write_to_path(str(path), append=True)


def _sasl() -> dict[str, object]:
    logins = {
        "plain": f'plain.PlainLoginModule required user_{USER}="{PASSWORD}"',
        "scram-sha-256": "scram.ScramLoginModule required",
        "scram-sha-512": "scram.ScramLoginModule required",
        "oauthbearer": 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
    }
    settings: dict[str, object] = {f"{name}.sasl.jaas.config": f"{_MODULES}.{it};" for name, it in logins.items()}
    settings["sasl.enabled.mechanisms"] = ",".join(_MECHANISMS)
    settings["oauthbearer.connections.max.reauth.ms"] = round(SESSION_S * 1000)
    return settings


def token(holds_s: float = 60.0) -> str:
    """A token for the user, unsigned (RFC 7515, appendix A.5)."""
    now = time.time()
    claims = {"sub": USER, "iat": now - 100.0, "exp": now + holds_s}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
    return b".".join([*parts, b""]).decode()
