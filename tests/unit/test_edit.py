"""Rows taken out, put in, copied, and carried in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoint.edit import Held, at_rest, names, pick, put, renamed
from detector.checkpoint.export import Exported, decode_export, encode_export, read_export, write_export
from detector.checkpoint.format import Manifest
from detector.errors import InputError
from detector.records import ArenaRows
from detector.stages.decide import OPEN, new_rows
from tests.unit.test_protocol import manifest

SHA256 = "ab" * 32
LEARNED = ("elapsed_mean_s", "elapsed_count", "exceedances", "clusters", "correction", "alarms")


def rows(streams: Sequence[str], *, channels: tuple[str, ...] = ("flow",), seed: int = 1) -> ArenaRows:
    """Rows full of numbers; every second stream has an open anomaly."""
    random, count = np.random.default_rng(seed), len(streams)
    decide = new_rows(count, 10.0)
    for name in decide.dtype.names:
        decide[name] = random.integers(1, 100, count)
    decide["phase"] = [OPEN if number % 2 == 0 else 1 for number in range(count)]
    arrays = {
        "state": random.normal(size=(count, 4)).astype(np.float32),
        "decide": decide,
        "band": random.normal(size=(count, 2, len(channels))),
        "last_ns": random.integers(0, 10**18, count),
    }
    return ArenaRows("pumps", SHA256, channels, list(streams), [{"site": name} for name in streams], arrays)


def held(warm: Sequence[ArenaRows], cold: Sequence[ArenaRows] = ()) -> Held:
    """A checkpoint with these."""
    return Held(manifest(1, 1), list(warm), list(cold))


def content(arenas: Sequence[ArenaRows]) -> dict[str, tuple[object, ...]]:
    """Per stream all that its row holds, as bytes."""
    return {
        stream: (
            part.detector,
            part.channels,
            part.labels[row],
            *(part.arrays[name][row].tobytes() for name in part.arrays),
        )
        for part in arenas
        for row, stream in enumerate(part.streams)
    }


def test_picked_rows_are_as_they_were() -> None:
    """Other streams are left out, bit for bit the rest stays."""
    some = [rows(["a", "b", "c"]), rows(["d"], channels=("flow", "heat"))]
    picked = pick(some, lambda stream: stream in "bd")
    assert content(picked) == {stream: row for stream, row in content(some).items() if stream in "bd"}
    assert pick(some, lambda _: False) == []


def test_what_is_put_in_takes_the_place_of_what_was_there() -> None:
    """One row a stream, whichever arena it was in; the others stay as they were."""
    before = held([rows(["a", "b"]), rows(["c"], channels=("flow", "heat"))])
    coming = rows(["c", "new"], seed=2)
    after = put(before, [coming], replaces=True, where="x.rows")
    assert sorted(names(after)) == ["a", "b", "c", "new"]
    assert content(after) == content([*before.warm, coming])


@pytest.mark.parametrize("is_cold", [False, True])
def test_memory_is_replaced_only_when_said(is_cold: bool) -> None:
    """An evicted stream has memory too."""
    there = [rows(["a", "b"])]
    before = held([], there) if is_cold else held(there)
    with pytest.raises(InputError, match=r"x\.rows: streams: expected without memory, got 1 that have: b \(--replace"):
        put(before, [rows(["b", "c"])], replaces=False, where="x.rows")
    assert "b" in names(put(before, [rows(["b", "c"])], replaces=True, where="x.rows"))


def test_a_copy_has_no_open_anomaly_and_all_else() -> None:
    """The anomaly belongs to the stream that it was found in; what decide learned of the rate stays."""
    one = pick([rows(["a", "b"])], lambda stream: stream == "a")[0]
    copy = renamed(one, "z")
    assert copy.streams == ["z"]
    assert copy.labels == one.labels
    for name in ("state", "last_ns"):
        assert copy.arrays[name].tobytes() == one.arrays[name].tobytes()
    decide, fresh = copy.arrays["decide"], new_rows(1, None)
    for name in decide.dtype.names:
        expected = one.arrays["decide"] if name in LEARNED else fresh
        assert decide[name].tobytes() == expected[name].tobytes(), name
    assert not copy.arrays["band"].any()
    assert one.arrays["band"].any()  # the source is untouched


def test_a_stream_at_rest_is_copied_bit_for_bit() -> None:
    """Also a run that has not fired yet."""
    some = rows(["a", "b"])
    rested = at_rest(some)
    assert content([rested])["b"] == content([some])["b"]
    assert content([rested])["a"] != content([some])["a"]


_KEYS = st.lists(
    st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()), min_size=1, max_size=6, unique=True
)


@given(st.lists(_KEYS, min_size=0, max_size=3), st.integers(0, 99))
def test_an_export_gives_back_what_was_put_in(shards: list[list[str]], seed: int) -> None:
    """Rows and where they come from; the segments of the checkpoint are not named."""
    parts = [
        Exported(manifest(3, 10 + number), [rows(keys, seed=seed), rows([*keys, "x"], channels=("p", "q"))])
        for number, keys in enumerate(shards)
    ]
    read = decode_export(b"".join(map(bytes, encode_export(parts))), "x.rows")
    assert [each.manifest for each in read] == [each.manifest for each in parts]
    for given_, back in zip(parts, read, strict=True):
        assert [content([part]) for part in back.arenas] == [content([part]) for part in given_.arenas]


@given(st.data())
def test_a_damaged_export_is_refused(data: st.DataObject) -> None:
    """One bit anywhere, or a cut: never rows that were not exported."""
    whole = b"".join(map(bytes, encode_export([Exported(manifest(1, 1), [rows(["a", "b"])])])))
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])
    for damaged in (whole[:at] + flipped + whole[at + 1 :], whole[:at]):
        with pytest.raises(InputError):
            decode_export(damaged, "x.rows")


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """What stood under its name stays until the new one is complete."""
    path = tmp_path / "x.rows"
    parts = [Exported(manifest(1, 1), [rows(["a"])])]
    assert write_export(path, parts) == path.stat().st_size
    assert content(read_export(path)[0].arenas) == content(parts[0].arenas)
    assert [each.name for each in tmp_path.iterdir()] == ["x.rows"]
    with pytest.raises(InputError, match="cannot be written"):
        write_export(tmp_path / "nowhere" / "x.rows", parts)
    with pytest.raises(InputError, match="cannot be read"):
        read_export(tmp_path / "none.rows")


def test_an_export_names_its_shard_position_and_bundles() -> None:
    """So that it can be a beginning elsewhere."""
    origin = msgspec.structs.replace(manifest(2, 7), anchor="crc32:1", alert_marks={"out": 5})
    (part,) = decode_export(b"".join(map(bytes, encode_export([Exported(origin, [rows(["a"])])]))), "x.rows")
    assert isinstance(part.manifest, Manifest)
    assert part.manifest == origin
