"""How a broker is reached: the part that Kafka sources, Kafka sinks and the store in a topic have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from detector.settings.base import Section
from detector.settings.checks import SECRETS, ReadableFile, check_secrets


class KafkaClientSettings(Section):
    """How a broker is reached; shared by Kafka sources and sinks."""

    bootstrap_servers: str = "localhost:9092"
    """Brokers to start from, host:port, separated by commas."""
    client_id: str = "tidewarden"
    """Name by which the broker's own logs and quotas know us."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the connection is secured."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """How we sign on with SASL."""
    username: str | None = None
    """User for SASL."""
    password: SecretStr | None = None
    """Password for SASL; better from `password_file` or the environment than from the YAML file."""
    password_file: ReadableFile | None = None
    """File that holds the password; one trailing newline is dropped."""
    ca_file: ReadableFile | None = None
    """Certificate authority to trust, PEM."""
    certificate_file: ReadableFile | None = None
    """Own certificate for mutual TLS, PEM."""
    key_file: ReadableFile | None = None
    """Key of the own certificate, PEM."""
    token_command: Annotated[list[str], Field(min_length=1)] | None = None
    """OAUTHBEARER: program and arguments that print a token, or JSON with `access_token` and `expires_in`."""
    client: dict[str, str | int | float | bool] = {}
    """Further properties of the client, as aiokafka names them; what guards our promises cannot be changed."""

    @property
    def has_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        """Whether we sign on."""
        return self.security_protocol.startswith("SASL")

    @model_validator(mode="after")
    def _secrets_fit_together(self) -> KafkaClientSettings:
        given = {name for name in SECRETS if getattr(self, name) is not None}
        check_secrets(given, self.security_protocol, self.sasl_mechanism)
        return self
