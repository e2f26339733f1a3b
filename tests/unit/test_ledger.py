"""The records of a state topic: what was put together comes apart again, and any index is as good as the whole log."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoint.stores.kafka_ledger import (
    Ledger,
    Record,
    birth,
    claim,
    count,
    cut,
    is_index,
    ledger_of,
    packed,
    partitions_at_birth,
    tombstones,
    understood,
    unpacked,
)
from detector.records import Shard

SHARD, OTHER = Shard("cluster", "sensors", 3), Shard("cluster", 'a "topic"', 53)


def chunks_of(shard: Shard, name: str, write: str, blocks: list[bytes], size: int) -> list[Record]:
    """A blob's records."""
    of = count(blocks, size)
    return [packed(shard, name, number, write, of, chunk) for number, chunk in enumerate(cut(blocks, size))]


def replay(log: list[Record], ledger: Ledger | None = None) -> Ledger:
    """What the log says, from the ledger's offset on."""
    ledger = ledger or Ledger()
    for offset, record in enumerate(log):
        entry = understood(record.key, record.value, record.headers)
        if entry is not None and offset >= ledger.until:
            ledger.apply(offset, entry)
    ledger.until = len(log)
    return ledger


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 50))
def test_blocks_are_cut_into_chunks_of_one_size(blocks: list[bytes], size: int) -> None:
    """All but the last are full, none is missing, and their number is known beforehand."""
    chunks = [b"".join(chunk) for chunk in cut(blocks, size)]
    assert b"".join(chunks) == b"".join(blocks)
    assert len(chunks) == count(blocks, size)
    assert all(len(chunk) == size for chunk in chunks[:-1])


@given(st.binary(max_size=500), st.booleans())
def test_a_packed_chunk_is_unpacked(content: bytes, repeats: bool) -> None:
    """Whether packing was worth it or not."""
    content = content * 50 if repeats else content
    record = packed(SHARD, "segment-1", 0, "w", 1, [content])
    entry = understood(record.key, record.value, record.headers)
    assert (entry.shard, entry.name, entry.chunk) == (SHARD, "segment-1", 0)
    assert bytes(unpacked(entry.header, record.value)) == content
    assert len(record.value) <= max(len(content), 40)


def test_what_does_not_pack_is_kept_as_it_is() -> None:
    """Rows of numbers without a pattern are not packed for nothing; names and zeros are."""
    noise = random.Random(1).randbytes(10_000)
    raw, zstd = (packed(SHARD, "s", 0, "w", 1, [data]) for data in (noise, b"pump" * 2500))
    assert raw.value == noise
    assert len(zstd.value) < 100


@pytest.mark.parametrize("value", [b"", b"other", b"x" * 9999])
def test_a_damaged_chunk_is_no_chunk(value: bytes) -> None:
    """Its length and packing are in the header."""
    for content in (b"pump" * 2500, random.Random(1).randbytes(10_000)):
        record = packed(SHARD, "s", 0, "w", 1, [content])
        header = understood(record.key, record.value, record.headers).header
        with pytest.raises(ValueError, match="expected"):
            unpacked(header, value)


def test_a_blob_is_there_with_its_last_chunk_and_gone_with_its_last_tombstone() -> None:
    """In between it shows as unfinished."""
    log = chunks_of(SHARD, "segment-1", "w", [b"x" * 10], 3)
    for end in range(1, 4):
        assert replay(log[:end]).names(SHARD) == ["segment-1.tmp"]
    whole = replay(log)
    assert whole.names(SHARD) == ["segment-1"]
    graves = list(tombstones(SHARD, "segment-1", whole.blob(SHARD, "segment-1")))
    for end in range(1, 4):
        assert replay(log + graves[:end]).names(SHARD) == ["segment-1.tmp"]
    assert replay(log + graves) == Ledger(8, {})


def test_of_two_attempts_the_later_counts() -> None:
    """What the first left behind does not complete the second."""
    first, second = (chunks_of(SHARD, "segment-1", write, [b"x" * 9], 3) for write in "ab")
    assert replay([*first[:2], second[0], second[1]]).names(SHARD) == ["segment-1.tmp"]
    assert replay([*first[:2], *second]).names(SHARD) == ["segment-1"]


def test_the_first_claim_in_the_log_is_the_claim() -> None:
    """And after it was deleted, the next."""
    log = [claim(SHARD, "fence-1", write) for write in "abc"]
    assert replay(log).blob(SHARD, "fence-1").write == "a"
    log += tombstones(SHARD, "fence-1", replay(log).blob(SHARD, "fence-1"))
    assert replay(log).blob(SHARD, "fence-1") is None
    assert replay([*log, claim(SHARD, "fence-1", "d")]).blob(SHARD, "fence-1").write == "d"


@given(st.integers(0, 2**32))
def test_any_index_and_what_follows_it_say_what_the_whole_log_says(seed: int) -> None:
    """Wherever it was written, by whomever, whatever was half done then; also where more is read again than needed."""
    rng = random.Random(seed)
    log = some_log(rng)
    whole = replay(log)
    indices = [record.value for record in log if is_index(record.key)]
    for index in indices:
        ledger = ledger_of(index)
        assert replay(log, ledger) == whole
        again = ledger_of(index)
        start = rng.randint(0, again.until)
        for offset, record in enumerate(log):
            entry = understood(record.key, record.value, record.headers)
            if entry is not None and offset >= start:
                again.apply(offset, entry)
        assert {shard: again.names(shard) for shard in again.blobs} == {s: whole.names(s) for s in whole.blobs}


def some_log(rng: random.Random) -> list[Record]:
    """Writes of several shards in between each other, cut off now and then, deletions, claims, and indices."""
    log: list[Record] = []
    running: list[list[Record]] = []
    number = 0
    for _ in range(60):
        shard = rng.choice([SHARD, OTHER])
        match rng.randrange(6):
            case 0:
                number += 1
                running.append(chunks_of(shard, f"segment-{number}", f"w{number}", [b"x" * rng.randint(0, 30)], 4))
            case 1 | 2 if running:
                records = rng.choice(running)
                some = rng.randint(1, 4)
                log += records[:some]
                del records[:some]
                running = [each for each in running if each and rng.random() > 0.1]
            case 3:
                known = replay(log)
                names = known.blobs.get(shard, {})
                if names:
                    name = rng.choice(sorted(names))
                    running = [each for each in running if each[0].entry.name != name]
                    log += tombstones(shard, name, names[name])
            case 4:
                number += 1
                log += [claim(shard, f"fence-{number}", write) for write in ("a", "b")]
            case _:
                log.append(replay(log).index())
    return log


def test_what_is_not_ours_is_not_understood() -> None:
    """Whatever key or header it has."""
    record = packed(SHARD, "s", 0, "w", 1, [b"x"])
    assert understood(record.key, record.value, []) is None
    assert understood(record.key, record.value, [("tidewarden", b"{}")]) is None
    for key in (None, b"", b"[1]", b'["a","b","c","d",0]', b"\xff"):
        assert understood(key, record.value, record.headers) is None


def test_the_topic_remembers_how_many_partitions_it_had() -> None:
    """The first birth counts, whatever lies before it."""
    one, other = birth(50, "a"), birth(60, "b")
    assert partitions_at_birth([(b"x", b"y"), (None, None), (one.key, one.value), (other.key, other.value)]) == 50
    assert partitions_at_birth([(b"x", b"y")]) is None
    assert one.key != other.key
