"""Who we are to a broker, and how we know that it is the right one: TLS, passwords, tokens.

Given `KafkaClientSettings`, gives the client's arguments for them. That settings need each other is checked when they
are read; here is what only files and the broker can tell.
"""

from __future__ import annotations

import ssl
from typing import Any

from detector.errors import ConfigurationError
from detector.kafka.token import tokens_of
from detector.settings import KafkaClientSettings


def security(settings: KafkaClientSettings) -> dict[str, Any]:
    """The keyword arguments for security that every client takes.

    Raises:
        ConfigurationError: A password or certificate file cannot be used.
    """
    arguments: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.has_tls:
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.has_sasl:
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.token_command is not None:
            arguments["sasl_oauth_token_provider"] = tokens_of(tuple(settings.token_command))
        else:
            arguments["sasl_plain_username"] = settings.username
            arguments["sasl_plain_password"] = _password(settings)
    return arguments


def _password(settings: KafkaClientSettings) -> str:
    if settings.password_file is None:
        return settings.password.get_secret_value() if settings.password else ""
    try:
        return settings.password_file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(settings.password_file, "cannot be read", got=error) from error


def _ssl_context(settings: KafkaClientSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:  # also ssl.SSLError; which of the files it was, OpenSSL does not say
        files = settings.certificate_file or settings.ca_file
        raise ConfigurationError(files, "is not usable", expected="PEM, and a key that fits", got=error) from error
    return context


def tls_refusal(where: str, settings: KafkaClientSettings, cause: ssl.SSLError) -> ConfigurationError:
    """Why there is no TLS with this broker, in words that name the setting to look at."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        signed_by = settings.ca_file or "an authority that this system trusts"
        return ConfigurationError(
            where,
            "the broker's certificate is not to be trusted",
            expected=f"one for its name in bootstrap_servers, signed by {signed_by}",
            got=cause.verify_message,
            hint="ca_file names the authority to trust",
        )
    reason = cause.reason or str(cause)
    if "ALERT" not in reason:
        hint = f"does this listener speak TLS? security_protocol is {settings.security_protocol}"
    elif settings.certificate_file is None:
        hint = "it may want a certificate of ours: certificate_file and key_file"
    else:
        hint = f"does the broker trust the authority of {settings.certificate_file}?"
    return ConfigurationError(where, "no TLS with the broker", got=reason, hint=hint)


def sign_on_refusal(where: str, settings: KafkaClientSettings, cause: Exception) -> ConfigurationError:
    """Why a broker does not take us for who we say we are."""
    if settings.token_command is not None:
        who, hint = f"the token of {settings.token_command[0]!r}", "has it ended, or is it meant for somebody else?"
    else:
        who, hint = f"user {settings.username!r}", "check username and password, and that the broker has the user"
    if not settings.has_sasl:
        who, hint = "us without SASL", "check security_protocol"
    said = "; ".join(str(arg) for arg in cause.args if arg) or type(cause).__name__
    expected = f"{settings.sasl_mechanism} on {settings.security_protocol}"
    return ConfigurationError(where, f"the broker refuses {who}", expected=expected, got=said, hint=hint)
