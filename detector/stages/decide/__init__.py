"""`decide`: from scores to anomalies, and what is to be said of them. The last stage; docs/contract.md has the rules.

The engine keeps two arrays per arena, `rows` (slots,) of dtype DECIDE, made by `initial_decide`, and `band`
(slots, 2, C) float64, zeros, and calls per wave

    decision = decide(rows, band, wave, policy)      # changes rows[wave.slots] and band[wave.slots] in place
    alerts = [to_alert(message, ...) for message in decision.messages]      # detector.alerts, which knows no slots

It keeps the set of slots with an open anomaly, which spares the notice of silence a walk over every row:
`open_slots(rows)` after a restore; after each wave take `decision.closed` out, then put `decision.opened` in. At the
first record at or past each multiple of 1,000 positions:

    messages = silence(rows, slots_with_open_anomaly, highest_event_ns, policy)      # their rows are dirty then

Messages of a wave come in order of position, a close by gap before what its sample opens; over waves the engine sorts
them, stably, by `message.position` (those of silence speak of an older sample: append them as they come).

    columns      the row
    policy       settings resolved, and the threshold
    transitions  fire, update, close; silence
"""

from __future__ import annotations

from detector.stages.decide.columns import DECIDE, DECIDE_VERSION, KNOWN_VERSIONS, OPEN, new_rows, taken_over
from detector.stages.decide.policy import Policy, initial_decide
from detector.stages.decide.transitions import DecideWave, Decision, decide, open_slots, silence

__all__ = [
    "DECIDE",
    "DECIDE_VERSION",
    "KNOWN_VERSIONS",
    "OPEN",
    "DecideWave",
    "Decision",
    "Policy",
    "decide",
    "initial_decide",
    "new_rows",
    "open_slots",
    "silence",
    "taken_over",
]
