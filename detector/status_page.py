"""The status page: one HTML document, no script, renewed by the browser, light or dark, readable on a phone.

Given the snapshot that `/status.json` shows; gives back the document. Whatever came from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

_RENEW_S = 5  # seconds; often enough to watch, seldom enough to read

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #59636e; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --soft: #9198a1; --good: #3fb950; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .5rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; }
.cards div { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .7rem; }
.cards b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th, small, footer { color: var(--soft); font-weight: normal; }
.good { color: var(--good); } .bad { color: var(--bad); }
footer { margin-top: 2rem; }
"""


def page(status: Mapping[str, Any]) -> str:
    """The whole document."""
    title = f"Tidewarden {status['version']}"
    body = "".join(
        [
            f"<h1>{escape(title)} {_readiness(status)}</h1>",
            _cards(status),
            "<h2>Latest alerts</h2>",
            _alerts(status["alerts"]),
            "<h2>Shards</h2>",
            _shards(status["shards"], status["now"]),
            "<h2>Detectors</h2>",
            _bundles(status["bundles"]),
            "<h2>Rejected</h2>",
            _table(("reason", "records"), sorted(status["rejects"].items())),
            '<footer><a href="/metrics">metrics</a> · <a href="/status.json">status.json</a> · ',
            f"started {_time(status['started'])}, python {escape(status['python'])}</footer>",
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{_RENEW_S}"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _readiness(status: Mapping[str, Any]) -> str:
    if status["ready"]:
        return '<small class="good">ready</small>'
    return f'<small class="bad">not ready: {escape("; ".join(status["unready"]))}</small>'


def _cards(status: Mapping[str, Any]) -> str:
    shown = {
        "records / s": f"{status['records_per_second']:,.0f}",
        "streams": f"{status['streams']:,}",
        "open anomalies": f"{status['open_anomalies']:,}",
        "samples scored": f"{status['samples']:,}",
        "up": str(timedelta(seconds=int(status["now"] - status["started"]))),
    }
    return (
        '<div class="cards">' + "".join(f"<div><b>{v}</b><small>{k}</small></div>" for k, v in shown.items()) + "</div>"
    )


def _alerts(alerts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            alert["time"][:19].replace("T", " "),
            f"{alert['event']} ({alert['reason']})",
            alert["stream"],
            f"{alert['score']:.1f}",
            _blamed(alert),
        )
        for alert in alerts
    ]
    return _table(("time", "event", "stream", "score", "channel to blame"), rows)


def _blamed(alert: Mapping[str, Any]) -> str:
    if alert["channel"] is None:
        return "-"
    observed = "missing" if alert["observed"] is None else f"{alert['observed']:.6g}"
    return f"{alert['channel']} ({alert['blame']:.0%}): {observed}, expected {alert['expected']:.6g}"


def _shards(shards: Sequence[Mapping[str, Any]], now: float) -> str:
    rows = [
        (
            f"{shard['topic']}-{shard['partition']}",
            _number(shard["next_position"]) if shard["is_restored"] else "restoring",
            _number(shard["lag"]),
            _number(shard["streams"]),
            _number(shard["open_anomalies"]),
            _time(shard["last_event"]),
            "none yet" if shard["checkpoint"] is None else f"{max(0.0, now - shard['checkpoint']):.0f} s ago",
        )
        for shard in shards
    ]
    return _table(("shard", "position", "lag", "streams", "open", "event time", "checkpoint"), rows)


def _bundles(bundles: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            bundle["detector"],
            bundle["bundle"],
            bundle["sha256"][:12],
            "any" if bundle["channels"] is None else ", ".join(bundle["channels"]),
            _rate(bundle["budget_per_day"]),
            _rate(bundle["realised_per_day"]),
        )
        for bundle in bundles
    ]
    heads = ("detector", "bundle", "sha256", "channels", "alarms per stream and day: promised", "realised")
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "<small>none</small>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _time(unix_s: float | None) -> str:
    return "-" if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
