"""Published figures to set beside ours, where they were measured by the same rule; per series where authors give them.

TSB-AD publishes VUS-PR per series (`tsb_ad.published`), so those are averaged over exactly the series at hand. The
figures below are for whole suites: a run over a part of one is not comparable to the digit, and the table says so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from training.evaluate.measures.bootstrap import Interval


class Published(NamedTuple):
    """Figures of one method, by measure; as the source gives them."""

    method: str
    figures: dict[str, float]


_NAB = ("NAB", "NAB low FP", "NAB low FN")
_SKAB = ("F1", "FAR %", "MAR %")


def _all(names: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> tuple[Published, ...]:
    return tuple(Published(method, dict(zip(names, figures, strict=True))) for method, figures in rows.items())


SOURCES = {
    "nab": "numenta/NAB README, results on all 58 files, each with the threshold that suits it best",
    "ucr": "KDD Cup 2021 readme, TimeVQVAE-AD results page, window-size-selection: all 250 series; offline methods",
    "skab": "waico/SKAB README: all 34 files, first 400 rows training",
    "smap": "telemanom README (SMAP): all 54 streams, event level",
}

WHOLE_SUITE: dict[str, tuple[Published, ...]] = {
    "nab": _all(
        _NAB,
        {
            "ARTime": (74.9, 65.2, 80.4),
            "Numenta HTM": (70.1, 63.1, 74.3),
            "CAD OSE": (69.9, 67.0, 73.2),
            "KNN-CAD": (58.0, 43.4, 64.8),
            "random cut forest": (51.7, 38.4, 59.7),
            "windowed Gaussian": (39.6, 20.9, 47.4),
        },
    ),
    "ucr": _all(
        ("hit rate",),
        {
            "KDD Cup 2021, third place": (0.872,),
            "TimeVQVAE-AD": (0.708,),
            "matrix profile, ACF window": (0.540,),
            "MDI": (0.470,),
            "LSTM-VAE": (0.198,),
        },
    ),
    "skab": _all(
        _SKAB,
        {
            "Conv-AE": (0.78, 13.6, 28.0),
            "MSET": (0.78, 39.7, 14.1),
            "T2+Q (PCA)": (0.76, 26.6, 24.9),
            "LSTM-AE": (0.74, 30.0, 25.9),
            "vanilla LSTM": (0.54, 12.5, 59.5),
            "isolation forest": (0.29, 2.6, 82.9),
        },
    ),
    "smap": _all(("event precision", "event recall"), {"telemanom": (0.855, 0.855)}),
}


def as_interval(figure: float) -> Interval:
    """A published figure, whose doubt nobody states."""
    return Interval(figure, math.nan, math.nan, 0)
