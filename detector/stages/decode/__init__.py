"""Decode: bytes into samples, columnar; what cannot be read becomes a `Reject` with its reason.

    samples, rejects = Decoder(settings.record).decode(records)
    samples, more = screen(samples, settings.record.future_s)

JSON and MessagePack are read by the same struct, hence to the same samples and the same reasons. A wide record holds
all of a stream's channels, a narrow one a single channel's value, which `join` makes samples of.

    decoder   the struct, and columns out of what it read
    times     numbers and texts as nanoseconds
    faults    why a record could not be read
    screen    what no stream could use
"""

from __future__ import annotations

from detector.stages.decode.decoder import Decoder
from detector.stages.decode.screen import screen
from detector.stages.decode.times import iso_to_ns, number_to_ns

__all__ = ["Decoder", "iso_to_ns", "number_to_ns", "screen"]
