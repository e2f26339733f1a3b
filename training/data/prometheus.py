"""History from Prometheus, or from what speaks its language (Thanos, Mimir, VictoriaMetrics), by range queries.

Each query gives a channel, and what has the same labels in all queries is a stream:

    queries: {cpu: 'avg by (instance) (...)', memory: 'avg by (instance) (...)'}
    -> stream {instance="a:9100"} with channels cpu and memory

Prometheus answers at most 11,000 points of each series at once, so a long range is asked for in parts. Every time is a
multiple of the step, so that asking again gives the same samples.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np

from detector.errors import ConfigurationError, InputError
from detector.records import Float64, Int64
from training.data.gather import Gathered
from training.data.series import Watch
from training.settings import PrometheusData
from training.settings.sources import seconds, span_of

_MOST_POINTS = 10_000  # of each series in an answer; Prometheus refuses more than 11,000
_LONGEST_ANSWER = 300  # characters of what the other side says that a message repeats

_Parts = dict[str, dict[str, list[tuple[Int64, Float64]]]]
"""By stream and channel: times in seconds and values, part by part."""


def read_prometheus(settings: PrometheusData, gathered: Gathered, now: datetime, watch: Watch = iter) -> None:
    """Ask for the whole range, and gather what is answered.

    Args:
        settings: Where to ask, and what.
        gathered: Takes the samples.
        now: The end of a range that names none.
        watch: Shows progress over the answers.

    Raises:
        ConfigurationError: the variable with the header is not set.
        InputError: nobody answers, the query is refused, or nothing comes of it.
    """
    start, end = span_of(settings.start, settings.end, settings.last, now)
    step = seconds(settings.step)
    ranges = list(_ranges(int(start.timestamp()), int(end.timestamp()), step))
    order = {name: number for number, name in enumerate(settings.queries)}
    for stream, channels in asyncio.run(_ask(settings, ranges, step, watch)).items():
        names = sorted(channels, key=lambda name: (order.get(name, 0), name))
        gathered.add(stream, *_joined({name: channels[name] for name in names}))


def _ranges(start: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """First and last second of each part; multiples of the step."""
    first, last = -(-start // step), end // step
    for at in range(first, last + 1, _MOST_POINTS):
        yield at * step, min(at + _MOST_POINTS - 1, last) * step


async def _ask(settings: PrometheusData, ranges: list[tuple[int, int]], step: int, watch: Watch) -> _Parts:
    found: _Parts = defaultdict(lambda: defaultdict(list))
    trust = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
    timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
    async with aiohttp.ClientSession(headers=_headers(settings), timeout=timeout, trust_env=True) as session:
        for name, (start, end) in watch([(name, each) for name in settings.queries for each in ranges]):
            where = f"data.prometheus.queries.{name}"
            asked = {"query": settings.queries[name], "start": start, "end": end, "step": step}
            result = await _answer(session, settings, asked, trust, where)
            for stream, channel, points in _told(result, settings, name, where):
                found[stream][channel].append(points)
    for name in settings.queries:
        if not any(_is_of(channel, name, settings) for channels in found.values() for channel in channels):
            raise _nothing(settings, name, ranges)
    return found


def _headers(settings: PrometheusData) -> dict[str, str]:
    if settings.authorization is None:
        return {}
    header = os.environ.get(settings.authorization)
    if not header:
        expected = f"an Authorization header in the environment variable {settings.authorization}"
        raise ConfigurationError("data.prometheus", "authorization", expected=expected, got="nothing")
    return {"Authorization": header}


async def _answer(
    session: aiohttp.ClientSession,
    settings: PrometheusData,
    asked: Mapping[str, Any],
    trust: ssl.SSLContext | bool,
    where: str,
) -> list[dict[str, Any]]:
    """The series of one answer."""
    url = f"{settings.url.rstrip('/')}/api/v1/query_range"
    try:
        async with session.post(url, data=asked, ssl=trust) as response:
            status, text = response.status, await response.text(errors="replace")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = str(error) or f"no answer within {settings.timeout_s:g} s"
        hint = "is data.prometheus.url right, and reachable from here?"
        raise InputError(where, "cannot be asked", expected=f"Prometheus at {url}", got=reason, hint=hint) from error
    try:
        answer = json.loads(text)
        if answer["status"] == "success" and answer["data"]["resultType"] == "matrix" and not answer.get("warnings"):
            return list(answer["data"]["result"])
        reason = answer.get("error") or "; ".join(answer.get("warnings") or ()) or "no matrix"
    except (ValueError, LookupError, TypeError, AttributeError):
        reason = " ".join(text.split()) or "nothing"
    hint = {400: "correct the query", 401: "set authorization", 403: "set authorization", 404: "correct the url"}
    raise InputError(
        where,
        "refused",
        expected="a complete answer to a range query",
        got=f"{reason[:_LONGEST_ANSWER]} (HTTP {status})",
        hint=hint.get(status, "ask for less: a longer step, or fewer series"),
    )


def _told(
    result: Iterable[Mapping[str, Any]], settings: PrometheusData, name: str, where: str
) -> Iterator[tuple[str, str, tuple[Int64, Float64]]]:
    """Stream, channel and points of each series of an answer."""
    seen: set[tuple[str, str]] = set()
    for one in result:
        labels = dict(one["metric"])
        value = labels.pop(settings.channel, "") if settings.channel else ""
        labels.pop("__name__", None)
        stream, channel = _key(labels), _channel(name, value, settings)
        if "values" not in one:
            hint = "histogram_quantile or histogram_avg makes numbers of them"
            raise InputError(where, f"stream {stream}", expected="numbers", got="native histograms", hint=hint)
        if (stream, channel) in seen:
            raise InputError(
                where,
                f"stream {stream}",
                expected=f"one series for channel {channel}",
                got="two that no label tells apart",
                hint="aggregate, as in avg by (instance) (...), or set data.prometheus.channel",
            )
        seen.add((stream, channel))
        times, texts = zip(*one["values"], strict=True)
        yield stream, channel, (np.rint(np.array(times, np.float64)).astype(np.int64), np.array(texts, np.float64))


def _key(labels: Mapping[str, str]) -> str:
    """A stream's key as Prometheus writes labels."""
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(labels.items())) + "}"


def _channel(name: str, value: str, settings: PrometheusData) -> str:
    if not value:  # no label was asked for, or this series does not have it
        return name
    return value if len(settings.queries) == 1 else f"{name}.{value}"


def _is_of(channel: str, name: str, settings: PrometheusData) -> bool:
    return len(settings.queries) == 1 or channel == name or channel.startswith(f"{name}.")


def _nothing(settings: PrometheusData, name: str, ranges: list[tuple[int, int]]) -> InputError:
    between = " to ".join(
        f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%MZ}" for at in (ranges[0][0], ranges[-1][1])
    ) if ranges else "an empty range"  # fmt: skip
    return InputError(
        f"data.prometheus.queries.{name}",
        "returned nothing",
        expected=f"series from {between}",
        got=f"none for {settings.queries[name]}",
        hint=f"try it in {settings.url.rstrip('/')}/graph; does Prometheus keep data for so long?",
    )


def _joined(channels: Mapping[str, list[tuple[Int64, Float64]]]) -> tuple[tuple[str, ...], Int64, Float64]:
    """Channels side by side: names, (n,) nanoseconds and (n, C) values, NaN where one has no point."""
    columns = [tuple(map(np.concatenate, zip(*parts, strict=True))) for parts in channels.values()]
    times = np.unique(np.concatenate([when for when, _ in columns]))
    values = np.full((len(times), len(columns)), np.nan)
    for column, (when, cells) in enumerate(columns):
        values[np.searchsorted(times, when), column] = cells
    return tuple(channels), times * 1_000_000_000, values
