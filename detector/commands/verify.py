"""`tidewarden verify`: computes a range of the past again and compares it with what was sent.

tidewarden verify -c prod.yaml --list
tidewarden verify -c prod.yaml --topic sensors --partition 3 \
    --from 2026-11-20T08:00Z --to 2026-11-20T09:00Z
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from detector.app import identity_of, load_detectors
from detector.checkpoint.base import Store
from detector.checkpoint.stores import make_store
from detector.clock import SystemClock
from detector.commands.output import Config, age, print_json, print_table, say, utc
from detector.errors import CannotVerifyError, ConfigurationError, TidewardenError
from detector.records import Shard
from detector.settings import KafkaSourceSettings, Settings, load
from detector.verification.compare import Difference
from detector.verification.ranges import Start, starts
from detector.verification.verify import Edge, Plan, Verdict, carry_out, log_of, plan, shard_of

_TOLD = 10  # differences that are printed; --json has all of them
_SHOWN = 300  # characters of a value


def command(
    config: Config = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the input.", show_default=False)] = None,
    partition: Annotated[int | None, typer.Option(help="Its partition.", show_default=False)] = None,
    source: Annotated[
        str | None, typer.Option(help="Which source of the configuration, if several.", show_default=False)
    ] = None,
    from_time: Annotated[
        str | None, typer.Option("--from", help="Time of the range's first record (its timestamp), UTC unless said.")
    ] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="Time before which the range ends.")] = None,
    from_offset: Annotated[int | None, typer.Option(help="Instead of --from: the first offset.")] = None,
    to_offset: Annotated[int | None, typer.Option(help="Instead of --to: the offset before which it ends.")] = None,
    lists: Annotated[bool, typer.Option("--list", help="Show which ranges can be verified, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute a range of the past again and compare it with what was sent.

    Joins no group, commits nothing, writes nothing: safe beside a daemon that serves. It starts from the last
    checkpoint before the range that checkpoint.keep_history has kept. Exit code 0: all equal; 1: something
    differs, the first difference is named; 2: the range cannot be verified, and why.

    Example: tidewarden verify -c prod.yaml --topic sensors --partition 3 --from 2026-11-20T08:00Z
    --to 2026-11-20T09:00Z
    """
    with _two_unless_compared():
        settings = load(config)
        name, chosen = pick_source(settings, source, topic)
        if lists:
            print_ranges(asyncio.run(ranges(settings, chosen, topic, partition)), as_json=as_json)
            return
        edges = edge("--from", from_time, from_offset), edge("--to", to_time, to_offset)
        if topic is None or partition is None:
            raise ConfigurationError("verify", "which shard", expected="--topic and --partition, or --list")
        verdict = asyncio.run(_verify(settings, name, chosen, (topic, partition), edges))
    tell(verdict, as_json=as_json)
    raise typer.Exit(1 if verdict.differences else 0)


@contextmanager
def _two_unless_compared() -> Iterator[None]:
    """Exit code 1 is kept for a difference: what goes wrong on the way leaves the question open."""
    try:
        yield
    except TidewardenError as error:
        if error.exit_code == 2:
            raise
        raise CannotVerifyError(
            error.where, error.what, expected=error.expected, got=error.got, hint=error.hint
        ) from error


def pick_source(settings: Settings, name: str | None, topic: str | None) -> tuple[str, KafkaSourceSettings]:
    """The Kafka source that is named, that reads the topic, or that is the only one."""
    kafka = {key: each for key, each in settings.sources.items() if isinstance(each, KafkaSourceSettings)}
    fitting = {key: each for key, each in kafka.items() if name in (None, key)}
    if topic is not None and len(fitting) > 1:
        fitting = {key: each for key, each in fitting.items() if topic in each.topics}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    expected = f"--source with one of: {', '.join(kafka)}" if kafka else "a Kafka source in the configuration"
    raise ConfigurationError("verify", "which source", expected=expected, got=name)


def edge(option: str, time: str | None, offset: int | None) -> Edge:
    """One end of the range, out of two options of which one must be given."""
    if (time is None) == (offset is None):
        got = "neither" if time is None else "both"
        raise ConfigurationError("verify", option, expected=f"{option} or {option}-offset", got=got)
    return Edge(offset=offset) if time is None else Edge(time_ms=milliseconds(option, time))


def milliseconds(option: str, text: str) -> int:
    """A time such as 2026-11-20T08:00Z; one without a zone is UTC, for so are all times that we print."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError("verify", option, expected="a time such as 2026-11-20T08:00Z", got=text) from error
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)


@asynccontextmanager
async def _started(settings: Settings) -> AsyncIterator[Store]:
    store = make_store(settings.checkpoint)
    try:
        await store.start()
        yield store
    finally:
        await store.stop()


# A range --------------------------------------------------------------------------------------------------------------


async def _verify(
    settings: Settings, name: str, source: KafkaSourceSettings, of: tuple[str, int], edges: tuple[Edge, Edge]
) -> Verdict:
    detectors, numerics = await asyncio.to_thread(load_detectors, settings)
    identity = identity_of(settings, detectors, numerics)
    async with _started(settings) as store:
        shard = await shard_of(source, *of)
        planned = await plan(source, store, shard, *edges, identity)
        with _bars(planned) as (progress, on_output):
            return await carry_out(
                planned, settings, source, store, detectors, identity, progress=progress, on_output=on_output
            )


@contextmanager
def _bars(planned: Plan) -> Iterator[Any]:
    """How far the replay is, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        begin = planned.begin.position
        replayed = bars.add_task("replay", total=planned.end - begin)
        yield (
            lambda position: bars.update(replayed, completed=position - begin),
            lambda output: bars.update(replayed, description=f"compare {output.kind} {output.name}"),
        )


def tell(verdict: Verdict, *, as_json: bool) -> None:
    """Say what was compared, and the verdict last."""
    if as_json:
        print_json(document(verdict))
        return
    planned = verdict.plan
    say(f"{planned.shard}: offsets {planned.start} to {planned.end - 1}")
    if planned.cut_from is not None:
        say(f"  asked up to {planned.cut_from - 1}; the daemon has made no checkpoint behind {planned.end - 1} yet")
    say(f"  from the checkpoint at offset {planned.begin.position}, made {planned.begin.created}")
    say(f"  computed {len(verdict.computed.scores):,} scores, {len(verdict.computed.alerts):,} alerts")
    for comparison in verdict.comparisons:
        later = f", {comparison.told_later:,} silences told later left out" if comparison.told_later else ""
        say(f"  {comparison.output}")
        say(
            f"    {comparison.compared:,} {comparison.kind} compared, {comparison.copies:,} copies, "
            f"{len(comparison.differences):,} differences{later}"
        )
    for output in verdict.unread:
        say(f"  {output}: cannot be read back")
    if verdict.other_numerics is not None:
        say(f"  other numerics then: {verdict.other_numerics}")
        say("  numbers compared within the bundle's tolerance; what follows from a limit may still differ")
    for difference in verdict.differences[:_TOLD]:
        say(told(difference))
    if more := len(verdict.differences[_TOLD:]):
        say(f"and {more:,} more")
    say(_in_a_word(verdict))


def _in_a_word(verdict: Verdict) -> str:
    if verdict.differences:
        return "DIFFERENT"
    return "all equal" if verdict.other_numerics is None else "all equal within the tolerance"


def told(difference: Difference) -> str:
    """A difference for people: where, what, then what was computed and what stands there."""
    kind = difference.kind.removesuffix("s")
    named = "" if difference.field is None else f", field {difference.field}"
    return "\n".join(
        [
            f"{difference.what} {kind}: stream {difference.stream!r}, offset {difference.offset}{named}",
            f"  in {difference.where}",
            f"  expected {_short(difference.expected)}",
            f"  got      {_short(difference.got)}",
        ]
    )


def document(verdict: Verdict) -> dict[str, Any]:
    """The same for programs, with every difference."""
    planned = verdict.plan
    return {
        "verdict": _in_a_word(verdict),
        "topic": planned.shard.topic,
        "partition": planned.shard.partition,
        "from_offset": planned.start,
        "to_offset": planned.end,
        "checkpoint": {"position": planned.begin.position, "created": planned.begin.created},
        "scores": len(verdict.computed.scores),
        "alerts": len(verdict.computed.alerts),
        "other_numerics": verdict.other_numerics,
        "outputs": [
            {
                "output": each.output,
                "compared": each.compared,
                "copies": each.copies,
                "told_later": each.told_later,
                "differences": len(each.differences),
            }
            for each in verdict.comparisons
        ],
        "unread": verdict.unread,
        "differences": [msgspec.to_builtins(each) for each in verdict.differences],
    }


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


# The list -------------------------------------------------------------------------------------------------------------


async def ranges(
    settings: Settings, source: KafkaSourceSettings, topic: str | None, partition: int | None
) -> list[tuple[Shard, list[tuple[Start, bool]]]]:
    """Per shard its checkpoints, and whether the log still has what follows each."""
    async with _started(settings) as store:
        shards = [
            shard
            for shard in await store.shards()
            if topic in (None, shard.topic) and partition in (None, shard.partition)
        ]
        listed = []
        for shard in shards:
            now = await shard_of(source, shard.topic, shard.partition)
            bounds = await log_of(source, shard)
            found = await starts(store, shard)
            listed.append((shard, [(each, now == shard and each.can_replay(bounds)) for each in found]))
        return listed


def print_ranges(listed: Sequence[tuple[Shard, list[tuple[Start, bool]]]], *, as_json: bool) -> None:
    """A line per checkpoint that a range can begin at."""
    now_ns = SystemClock().now_ns()
    rows = [
        {
            "topic": shard.topic,
            "partition": shard.partition,
            "from_offset": start.manifest.position,
            "to_offset": found[-1][0].manifest.position,
            "event_time": utc(start.manifest.highest_event_ns),
            "made": start.manifest.created,
            "kept": "history" if start.is_history else "live",
            "log": "there" if is_there else "deleted",
        }
        for shard, found in listed
        for start, is_there in found
    ]
    if as_json:
        print_json(rows)
        return
    heads = ("shard", "from offset", "to offset", "made", "kept", "log")
    print_table(
        "ranges",
        heads,
        (
            (
                f"{row['topic']}-{row['partition']}",
                row["from_offset"],
                row["to_offset"],
                age(str(row["made"]), now_ns),
                row["kept"],
                row["log"],
            )
            for row in rows
        ),
    )
