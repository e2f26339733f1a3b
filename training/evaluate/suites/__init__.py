"""Labelled public suites as cases; `Case` is the unit. Each loader takes the user's own copy of the data.

    suite = SUITES["tsb-ad-u"]
    cases, refused = suite.load(Path("data"), on_case)      # the folder of the suite, or the one that holds them all

A file that cannot be used is left out with its reason and costs no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from detector.errors import InputError
from training.evaluate.suites import archive, machines, numenta, tsb_ad
from training.evaluate.suites.case import Case, Pooled, Split

__all__ = ["SUITES", "Case", "Pooled", "Split", "Suite"]


@dataclass(frozen=True, slots=True)
class Suite:
    """Where a suite's files lie, how one is read, and how its results are told."""

    name: str
    folders: tuple[str, ...]
    """Where it may lie below the folder that the user names; that folder itself is tried last."""
    files: Callable[[Path], list[Path]]
    read: Callable[[Path], Case]
    pooled: Pooled | None = None

    def folder(self, data: Path) -> Path:
        """Find the suite. Raises InputError saying where it was looked for."""
        tried = [data / name for name in self.folders] + [data]
        for folder in tried:
            if self.files(folder):
                return folder
        expected = f"files in one of {', '.join(map(str, tried))}"
        raise InputError(data, f"no series of {self.name}", expected=expected, got="none", hint="docs/evaluate.md")

    def is_below(self, data: Path) -> bool:
        """Whether it lies in one of its folders below the one that holds all."""
        return any(self.files(data / name) for name in self.folders)

    def load(
        self, data: Path, only: str = "*", split: Split | None = None
    ) -> tuple[list[Case], list[tuple[str, InputError]]]:
        """Read the suite.

        Args:
            data: The suite's own folder, or the one that holds all suites.
            only: Pattern of the names wanted, such as `*UCR*`.
            split: Which side; None takes both.

        Returns:
            The cases, and the files that could not be used with what is wrong with them.
        """
        cases, refused = [], []
        for path in self.files(self.folder(data)):
            try:
                case = self.read(path)
                if not len(case):
                    raise InputError(path, "rows", expected="at least one", got="none")
            except InputError as error:
                refused.append((path.name, error))
                continue
            if fnmatch(case.name, only) and split in (None, case.split):
                cases.append(case)
        return cases, refused


SUITES = {
    suite.name: suite
    for suite in (
        Suite("tsb-ad-u", ("tsb_ad/U", "U", "TSB-AD-U"), tsb_ad.files, tsb_ad.read_univariate),
        Suite("tsb-ad-m", ("tsb_ad/M", "M", "TSB-AD-M"), tsb_ad.files, tsb_ad.read_multivariate),
        Suite("nab", ("nab", "NAB"), numenta.files, numenta.read, "nab"),
        Suite("ucr", ("ucr", "UCR_Anomaly_FullData"), archive.ucr_files, archive.read_ucr, "hits"),
        Suite("mgab", ("mgab", "MGAB"), archive.mgab_files, archive.read_mgab),
        Suite("skab", ("skab", "SKAB/data"), machines.skab_files, machines.read_skab, "points"),
        Suite("smap", ("smap", "telemanom/data"), machines.smap_files, machines.read_smap, "events"),
        Suite("smd", ("smd", "ServerMachineDataset"), machines.smd_files, machines.read_smd),
        Suite("wsd", ("wsd",), archive.npz_files, archive.read_wsd),
        Suite("kpi", ("kpi",), archive.npz_files, archive.read_kpi),
    )
}
"""By name, in the order of `--suite all`."""
