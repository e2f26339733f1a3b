"""Suites: every layout gives the same case, and a broken file is told of and costs no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.errors import InputError
from tests.evaluate import made_up
from tests.shared_data import benchmark_data
from training.evaluate.suites import SUITES, Case
from training.evaluate.suites.split import PATH, split_of
from training.evaluate.suites.tsb_ad import published


def only(suite: str, data: Path) -> Case:
    (found,), refused = SUITES[suite].load(data)
    assert not refused
    return found


def assert_same(one: Case, other: Case) -> None:
    for name in ("time_ns", "values", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    facts = ("family", "name", "train", "period_s", "begin", "events", "split")
    assert [getattr(one, fact) for fact in facts] == [getattr(other, fact) for fact in facts]


def test_the_benchmarks_own_csv_and_npz_give_the_same_case(tmp_path: Path) -> None:
    """TSB-AD's CSV (`Data,Label`) and an npz of the same series are one case: source and training rows by the name."""
    made_up.tsb_ad(tmp_path / "npz", made_up.TSB_NAMES[:1])
    made_up.tsb_ad_csv(tmp_path / "csv")
    one, other = only("tsb-ad-u", tmp_path / "npz"), only("tsb-ad-u", tmp_path / "csv")
    assert_same(one, other)
    assert (one.family, one.train, one.begin, one.events) == ("UCR", 150, 0, ((300, 320),))


def test_the_ucr_archives_text_and_npz_agree(tmp_path: Path) -> None:
    """Training rows and the anomaly's ends stand in a text file's name; the measured part begins after training."""
    cases, refused = SUITES["ucr"].load(made_up.ucr(tmp_path / "ucr"))
    assert not refused
    text, npz = cases
    np.testing.assert_allclose(text.values, npz.values)
    np.testing.assert_array_equal(text.labels, npz.labels)
    assert [(one.name, one.family, one.train, one.begin) for one in cases] == [
        ("NOISEECG2", "NOISE", 200, 200),
        ("ECG1", "plain", 200, 200),
    ]


def test_smap_reads_ranges_as_inclusive_rows_of_the_test_part(tmp_path: Path) -> None:
    """A range [100, 119] is 20 rows of the test part; folders of npy give the same as npz."""
    one = only("smap", made_up.smap(tmp_path / "smap"))
    assert one.events == ((300, 320), (390, 400))
    assert (one.target, one.channels[0], one.begin) == (0, "telemetry", 200)
    original = tmp_path / "telemanom" / "data"
    for part, rows in (("train", slice(0, 200)), ("test", slice(200, None))):
        (original / part).mkdir(parents=True)
        np.save(original / part / "A-1.npy", one.values[rows])
    (tmp_path / "smap" / "labeled_anomalies.csv").rename(original / "labeled_anomalies.csv")
    assert_same(only("smap", original), one)


def test_smd_folders_of_text_and_npz_agree(tmp_path: Path) -> None:
    """A server's three text files are the npz with `train`, `test` and `label`."""
    values, told = made_up.wave(400, 3), made_up.labels()
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "machine-1-1.npz", train=values[:200], test=values[200:], label=told[200:])
    for part, cells in (("train", values[:200]), ("test", values[200:]), ("test_label", told[200:])):
        (tmp_path / "txt" / part).mkdir(parents=True)
        np.savetxt(tmp_path / "txt" / part / "machine-1-1.txt", cells, delimiter=",")
    assert_same(only("smd", tmp_path / "txt"), only("smd", tmp_path / "npz"))


def test_a_nab_window_holds_both_of_its_ends(tmp_path: Path) -> None:
    """Windows are given by the times of their first and last row; a file may have none."""
    cases, refused = SUITES["nab"].load(made_up.numenta(tmp_path / "nab"))
    assert not refused
    assert {one.name: one.events for one in cases} == {
        "group0/f0.csv": (),
        "group0/f2.csv": ((295, 331),),
        "group1/f1.csv": ((295, 331),),
    }
    assert {one.period_s for one in cases} == {300.0}
    assert all(one.labels.sum() == sum(end - first for first, end in one.events) for one in cases)


def test_skab_takes_the_first_400_rows_as_training(tmp_path: Path) -> None:
    """Sensors are what is neither time nor truth; labels count from row 400 on."""
    cases, refused = SUITES["skab"].load(made_up.skab(tmp_path / "skab"))
    assert not refused
    assert [(one.name, one.train, one.begin, one.events) for one in cases] == [
        ("valve1/0", 400, 400, ((450, 500),)),
        ("valve1/1", 400, 400, ((450, 500),)),
    ]
    assert cases[0].channels == ("flow", "current")


def test_mgab_and_the_indicators_keep_what_they_ignore_out_of_the_measure(tmp_path: Path) -> None:
    """MGAB's ignored start and an indicator's first half are scored, and not measured."""
    values, told = made_up.wave()[:, 0], made_up.labels()
    (tmp_path / "mgab").mkdir()
    np.savez(tmp_path / "mgab" / "1.npz", value=values, is_anomaly=told, is_ignored=np.arange(400) < 57)
    assert only("mgab", tmp_path).begin == 57
    (tmp_path / "wsd").mkdir()
    seconds = 1.5e9 + 60.0 * np.arange(400)
    halves = {"train": values[:200], "test": values[200:], "train_label": told[:200], "test_label": told[200:]}
    times = {"train_timestamp": seconds[:200], "test_timestamp": seconds[200:]}
    np.savez(tmp_path / "wsd" / "7.npz", **halves, **times)
    one = only("wsd", tmp_path)
    assert (one.begin, one.period_s, int(one.time_ns[1])) == (200, 60.0, 1_500_000_060 * 10**9)


def test_the_folder_of_a_suite_or_of_all_will_do(tmp_path: Path) -> None:
    """`--data` may name either; where nothing is found the message says where it was looked for."""
    folder = made_up.tsb_ad(tmp_path / "tsb_ad" / "U")
    for data in (tmp_path, tmp_path / "tsb_ad", folder):
        assert len(SUITES["tsb-ad-u"].load(data)[0]) == 3
    with pytest.raises(InputError, match=r"no series of nab: expected files in one of .*nab"):
        SUITES["nab"].load(tmp_path)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("Data", "n/a", r"line 8, column 'Data': expected a number, got 'n/a'"),
        ("Label", "2", r"label of row 6: expected 0 or 1, got 2"),
        ("row", "1.0,0,7", r"line 8: expected 2 cells, got 3"),
    ],
)
def test_a_broken_cell_is_named_and_costs_no_other_file(tmp_path: Path, column: str, cell: str, message: str) -> None:
    """The message has file, line and column, what was expected and what stands there; the other files load."""
    folder = made_up.tsb_ad(tmp_path / "U", made_up.TSB_NAMES[1:])
    path = made_up.tsb_ad_csv(folder)
    lines = path.read_text().splitlines()
    value, told = lines[7].split(",")
    lines[7] = {"Data": f"{cell},{told}", "Label": f"{value},{cell}", "row": cell}[column]
    path.write_text("\n".join(lines) + "\n")
    cases, refused = SUITES["tsb-ad-u"].load(folder)
    assert [one.name for one in cases] == list(made_up.TSB_NAMES[1:])
    ((name, error),) = refused
    assert name == path.name
    with pytest.raises(InputError, match=message):
        raise error


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((9, 1))}, r"arrays: expected X, y, got X"),
        ({"X": np.array([["a"], ["b"]]), "y": np.zeros(2)}, r"array 'X': expected numbers"),
        ({"X": np.zeros((9, 1)), "y": np.zeros(8)}, r"labels: expected 9, one per row, got 8"),
        ({"X": np.zeros((0, 1)), "y": np.zeros(0)}, r"array 'X': expected at least one row, got none"),
        ({"X": np.zeros((9, 2)), "y": np.zeros(9)}, r"channels: expected 1, got 2"),
        (None, r"cannot be read: expected an npz file"),
    ],
)
def test_a_broken_npz_is_refused_with_its_reason(
    tmp_path: Path, arrays: dict[str, np.ndarray] | None, message: str
) -> None:
    """Missing, misshapen, textual and torn files are refused, each with its own reason."""
    path = tmp_path / f"{made_up.TSB_NAMES[0]}.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 torn")
    else:
        np.savez(path, **arrays)
    cases, ((_, error),) = SUITES["tsb-ad-u"].load(tmp_path)
    assert not cases
    with pytest.raises(InputError, match=message):
        raise error


def test_a_file_of_a_header_alone_is_refused(tmp_path: Path) -> None:
    """No rows, no case; the message says so."""
    made_up.tsb_ad_csv(tmp_path).write_text("Data,Label\n")
    cases, ((_, error),) = SUITES["tsb-ad-u"].load(tmp_path)
    assert not cases
    assert "rows: expected at least one, got none" in str(error)


def test_empty_cells_are_missing_and_refused_rows_are_found(tmp_path: Path) -> None:
    """An empty cell is NaN; the daemon would refuse a row with nothing in it, one infinite, one of a time again."""
    path = made_up.tsb_ad_csv(tmp_path)
    lines = path.read_text().splitlines()
    lines[11] = ",0"
    lines[12] = "inf,0"
    path.write_text("\n".join(lines) + "\n")
    one = only("tsb-ad-u", tmp_path)
    assert np.flatnonzero(~one.accepted).tolist() == [10, 11]
    times = one.time_ns.copy()
    times[20] = times[19]
    assert not made_up.case(values=one.values, time_ns=times).accepted[20]


def test_only_and_split_choose_by_name_and_side(tmp_path: Path) -> None:
    """A pattern picks names; a side picks what the lists say."""
    folder = made_up.tsb_ad(tmp_path / "U")
    suite = SUITES["tsb-ad-u"]
    assert [one.family for one in suite.load(folder, "*WSD*")[0]] == ["WSD"]
    assert suite.load(folder, split="dev")[0] == []
    assert len(suite.load(folder, split="validation")[0]) == 3


# The split


def test_what_no_list_names_is_validation() -> None:
    """A series that the lists do not know was never tuned on."""
    assert split_of("ucr", "ECG3") == "dev"
    assert split_of("ucr", "of_a_user") == split_of("of_a_user", "x") == "validation"


def test_no_series_is_on_both_sides() -> None:
    """Lists are disjoint, variants of one UCR base share a side, and all of TSB-AD is validation."""
    import yaml

    lists = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    sides = {
        side: {(suite, base(suite, name)) for suite in lists[side] for name in lists[side][suite]} for side in lists
    }
    assert set(sides) == {"dev", "validation"}
    assert not sides["dev"] & sides["validation"]
    assert not {suite for suite, _ in sides["dev"]} & {"tsb-ad-u", "tsb-ad-m"}


def base(suite: str, name: object) -> str:
    return str(name).removeprefix("DISTORTED").removeprefix("NOISE") if suite == "ucr" else str(name)


# On the data itself


@pytest.mark.parametrize("name", list(SUITES))
def test_every_file_of_the_public_copy_loads_and_is_listed(name: str) -> None:
    """No file of ours is refused, and each stands in one of the lists."""
    import yaml

    lists = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    suite = SUITES[name]
    cases, refused = suite.load(benchmark_data("."))
    assert not refused
    listed = {str(one) for side in lists.values() for one in side.get(name, ())}
    assert {one.name for one in cases} == listed


def test_names_and_published_figures_fit_the_public_series() -> None:
    """Training rows in the name are those of the file, the first label is where it says, all are published."""
    folder = benchmark_data("tsb_ad") / "U"
    cases, _ = SUITES["tsb-ad-u"].load(folder)
    for one in cases:
        with np.load(folder / f"{one.name}.npz") as stored:
            assert one.train == int(stored["train_index"])
        assert one.events[0][0] == pytest.approx(int(one.name.rsplit("_", 1)[1]), abs=60)
    figures = published(folder, "tsb-ad-u")
    assert len(figures) == 32
    assert all(figures["LSTMAD"].keys() >= {one.name for one in cases} for _ in figures)


def test_no_dev_series_is_one_of_tsb_ad() -> None:
    """What may be tuned on shares no values with what must not; the control: series that were put aside do."""
    held = [one for name in ("tsb-ad-u", "tsb-ad-m") for one in SUITES[name].load(benchmark_data("."))[0]]
    marks = {fingerprint(one.values[:, 0]) for one in held}
    sides: dict[str, int] = {"dev": 0, "validation": 0}
    for name in ("ucr", "wsd", "kpi", "smap"):
        for one in SUITES[name].load(benchmark_data("."))[0]:
            mark = fingerprint(one.values[one.begin :, 0])
            sides[one.split] += mark in marks and len(set(mark)) > 4  # series of two values are all alike
    assert sides["dev"] == 0
    assert sides["validation"] > 10


def fingerprint(values: np.ndarray) -> tuple[float, ...]:
    """The last eight steps that are not 0, rounded: a copy may differ in its last digits and by rows at its start."""
    steps = np.diff(values.astype(np.float32))
    return tuple(np.round(steps[steps != 0][-8:], 4).tolist())
