"""Small made-up suites in the layouts in which the public ones come; a noisy sine with one bump each."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from training.evaluate.suites import Case
from training.progress import Progress

GOLDEN = Path(__file__).parents[1] / "golden"
ANY = GOLDEN / "tiny-any.onnx"
TSB_NAMES = (
    "001_UCR_id_1_Medical_tr_150_1st_300",
    "002_UCR_id_2_Sensor_tr_150_1st_300",
    "003_WSD_id_1_Web_tr_90_1st_300",
)


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def wave(rows: int = 400, channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    """(rows, channels): a sine with noise, and from row 300 on a bump of 20 rows."""
    values = np.sin(np.arange(rows) / 7)[:, None] + 0.1 * np.random.default_rng(seed).standard_normal((rows, channels))
    values[300:320] += 5
    return values


def labels(rows: int = 400) -> NDArray[np.uint8]:
    told = np.zeros(rows, np.uint8)
    told[300:320] = 1
    return told


def case(name: str = "made-up", values: NDArray[np.float64] | None = None, **changes: object) -> Case:
    """A case of these values, one a second."""
    values = wave() if values is None else values
    told: dict[str, object] = {
        "suite": "tsb-ad-u",
        "family": "UCR",
        "name": name,
        "split": "dev",
        "time_ns": 10**18 + np.arange(len(values)) * 10**9,
        "values": values,
        "labels": labels(len(values)),
        "train": min(150, len(values)),
        "channels": tuple(f"channel_{c}" for c in range(values.shape[1])),
        "period_s": 1.0,
    }
    return Case(**(told | changes))  # type: ignore[arg-type]  # the changes are the test's own


def tsb_ad(folder: Path, names: tuple[str, ...] = TSB_NAMES, channels: int = 1) -> Path:
    """TSB-AD as npz, with a published table of one method beside the folder."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        np.savez(folder / f"{name}.npz", X=wave(channels=channels, seed=seed), y=labels(), train_index=150)
    rows = [f"{name}.csv,0.{seed + 1},400" for seed, name in enumerate(names)]
    letter = "U" if channels == 1 else "M"
    table = "\n".join(["file,Sub-KNN,ts_len", *rows, ""])
    (folder.parent / f"published_vus_pr_{letter}.csv").write_text(table)
    return folder


def tsb_ad_csv(folder: Path, name: str = TSB_NAMES[0]) -> Path:
    """One series in the benchmark's own layout."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{value!r},{told}" for value, told in zip(wave()[:, 0].tolist(), labels().tolist(), strict=True)]
    path = folder / f"{name}.csv"
    path.write_text("\n".join(["Data,Label", *rows, ""]))
    return path


def numenta(folder: Path, files: int = 3) -> Path:
    """NAB's layout: two groups, the first file without a window."""
    windows = {}
    for number in range(files):
        group = folder / "data" / f"group{number % 2}"
        group.mkdir(parents=True, exist_ok=True)
        times = np.datetime64("2014-04-01T00:00:00") + np.arange(400) * np.timedelta64(300, "s")
        rows = [
            f"{str(time).replace('T', ' ')},{value!r}"
            for time, value in zip(times.tolist(), wave(seed=number)[:, 0].tolist(), strict=True)
        ]
        (group / f"f{number}.csv").write_text("\n".join(["timestamp,value", *rows, ""]))
        told = [[f"{times[295]}".replace("T", " ") + ".000000", f"{times[330]}".replace("T", " ") + ".000000"]]
        windows[f"{group.name}/f{number}.csv"] = told if number else []
    (folder / "combined_windows.json").write_text(json.dumps(windows))
    return folder


def ucr(folder: Path) -> Path:
    """UCR: one series as npz, another one as the archive's own text."""
    folder.mkdir(parents=True)
    values, told = wave()[:, 0], labels()
    np.savez(folder / "ECG1.npz", train=values[:200], test=values[200:], test_label=told[200:])
    np.savetxt(folder / "002_UCR_Anomaly_NOISEECG2_200_300_320.txt", values)
    return folder


def skab(folder: Path, files: int = 2) -> Path:
    """SKAB: two sensors, 500 rows, of which 400 are training."""
    for number in range(files):
        group = folder / "valve1"
        group.mkdir(parents=True, exist_ok=True)
        values = wave(500, 2, number)
        values[300:320] -= 5
        values[450:] += 5
        rows = [
            f"2020-03-09 10:{row // 60:02}:{row % 60:02};{a!r};{b!r};{float(row >= 450)};0.0"
            for row, (a, b) in enumerate(values.tolist())
        ]
        (group / f"{number}.csv").write_text("\n".join(["datetime;flow;current;anomaly;changepoint", *rows, ""]))
    return folder


def smap(folder: Path) -> Path:
    """SMAP: telemetry and two commands; the last event touches the end."""
    folder.mkdir(parents=True)
    values = wave(400, 3)
    np.savez(folder / "A-1.npz", train=values[:200], test=values[200:])
    lines = [
        "chan_id,spacecraft,anomaly_sequences,class,num_values",
        'A-1,SMAP,"[[100, 119], [190, 199]]",[point],200',
        "",
    ]
    (folder / "labeled_anomalies.csv").write_text("\n".join(lines))
    return folder
