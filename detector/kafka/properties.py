"""Which properties of the Kafka client may be set from outside, and why others may not.

`client` in the settings is a map of aiokafka's own constructor arguments. Most tune it: time-outs, sizes, compression.
The others below guard a promise of ours, or have a setting of their own; whoever sets one is told which.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from detector.errors import ConfigurationError

_LATE_COMMIT = "offsets are committed after the checkpoint that they belong to, never before"
_NO_JUMP = "a position that is gone must not be skipped silently; see start and on_data_loss"
_BYTES = "records are taken and given as bytes: an error in between would pin a partition"
_ACKNOWLEDGED = "a checkpoint may pass only what all replicas have, once and in order"
_NO_TRANSACTIONS = "results are acknowledged before a checkpoint, not held back until one"
_PLACED = "all results of a shard lie in one partition, so that a restart finds them"
_OURS = "it follows from other settings"
_NO_KERBEROS = "GSSAPI is not among the mechanisms"

GUARDED = {
    "acks": _ACKNOWLEDGED,
    "api_version": "the client negotiates it",
    "auto_commit_interval_ms": _LATE_COMMIT,
    "auto_offset_reset": _NO_JUMP,
    "bootstrap_servers": "it has a setting of its own",
    "check_crcs": "a damaged record would pass for a whole one",
    "client_id": "it has a setting of its own",
    "consumer_timeout_ms": _OURS,
    "enable_auto_commit": _LATE_COMMIT,
    "enable_idempotence": _ACKNOWLEDGED,
    "exclude_internal_topics": "the broker's own topics hold no samples",
    "group_id": "its setting is group",
    "heartbeat_interval_ms": "it follows from session_timeout_s",
    "isolation_level": "what a transaction took back is no sample",
    "key_deserializer": _BYTES,
    "key_serializer": _BYTES,
    "linger_ms": "it has a setting of its own",
    "loop": _OURS,
    "max_poll_interval_ms": "backpressure may last long without a loss of membership",
    "max_poll_records": "its setting is poll_records",
    "max_request_size": "it follows from the topic's max.message.bytes",
    "partition_assignment_strategy": "one assignor only, and a sticky one: each more costs a round of joins",
    "partitioner": _PLACED,
    "rebalance_timeout_ms": "a last checkpoint must fit into it",
    "sasl_kerberos_domain_name": _NO_KERBEROS,
    "sasl_kerberos_service_name": _NO_KERBEROS,
    "sasl_mechanism": "it has a setting of its own",
    "sasl_oauth_token_provider": "its setting is token_command",
    "sasl_plain_password": "its setting is password_file",
    "sasl_plain_username": "its setting is username",
    "security_protocol": "it has a setting of its own",
    "session_timeout_ms": "its setting is session_timeout_s",
    "ssl_context": "its settings are ca_file, certificate_file and key_file",
    "transaction_timeout_ms": _NO_TRANSACTIONS,
    "transactional_id": _NO_TRANSACTIONS,
    "value_deserializer": _BYTES,
    "value_serializer": _BYTES,
}
"""What may not be set, and why."""


def check_properties(given: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    """See that every property is one of the client's, of its type, and not one of ours.

    Args:
        given: The properties.
        defaults: What the client knows, with its default.

    Raises:
        ConfigurationError: One is not; names the nearest.
    """
    for name, value in given.items():
        where = f"client.{name}"
        if name in GUARDED:
            raise ConfigurationError(where, "may not be set", hint=GUARDED[name])
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults.keys() - GUARDED.keys(), 1)
            hint = f"did you mean {near[0]}?" if near else "properties are named as aiokafka names them"
            raise ConfigurationError(where, "is no property of the client", hint=hint)
        wanted = type(defaults[name])
        if isinstance(defaults[name], int | str) and type(value) is not wanted:
            raise ConfigurationError(where, "is of the wrong type", expected=wanted.__name__, got=repr(value))
