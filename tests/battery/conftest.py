"""The battery's table: what the tests measured of each network, a line each, at the end of the run."""

from __future__ import annotations

from collections import defaultdict

import pytest

COLUMNS = ("parity", "smoke loss", "nodes", "bytes a channel", "us a row")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it; figures come with the reports, from whichever process ran the test."""
    table: dict[str, dict[str, str]] = defaultdict(dict)
    for report in terminalreporter.stats.get("passed", []):
        for key, figure in report.user_properties:
            network, _, column = key.partition(": ")
            if column in COLUMNS:
                table[network][column] = figure
    if table:
        terminalreporter.section("battery")
        terminalreporter.line(f"{'network':22}" + "".join(f"{column:>17}" for column in COLUMNS))
        for network, row in table.items():
            figures = "".join(f"{row.get(column, '-'):>17}" for column in COLUMNS)
            terminalreporter.line(f"{network:22}{figures}")
