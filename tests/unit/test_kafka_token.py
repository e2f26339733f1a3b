"""Tokens that a command prints: understood, kept while they hold, and never repeated."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path

import pytest

from detector.clock import ManualClock
from detector.kafka.token import TokenCommand, TokenError

NOW_NS = 1_700_000_000 * 10**9
SECRET = "s3cret-token"


def jwt(**claims: object) -> str:
    """A token that says of itself."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
    return b".".join([*parts, b"c2ln"]).decode()


def printing(folder: Path, text: str, clock: ManualClock | None = None) -> TokenCommand:
    """A command that prints this, and appends a byte to `runs` each time."""
    code = f"open({str(folder / 'runs')!r}, 'a').write('x'); print({text!r})"
    return TokenCommand([sys.executable, "-c", code], clock or ManualClock(NOW_NS))


def runs(folder: Path) -> int:
    """How often the command was run."""
    return len((folder / "runs").read_text())


@pytest.mark.parametrize(
    ("printed", "token"),
    [
        (SECRET, SECRET),
        (f"  {SECRET}\n\n", SECRET),
        (json.dumps({"access_token": SECRET, "expires_in": 60, "token_type": "Bearer"}), SECRET),
        (json.dumps({"access_token": SECRET, "expires_in": "60"}, indent=2), SECRET),
        (json.dumps({"access_token": SECRET}), SECRET),
    ],
)
async def test_a_token_is_understood(tmp_path: Path, printed: str, token: str) -> None:
    """Raw, or in the JSON that token endpoints answer with (RFC 6749, 5.1)."""
    assert await printing(tmp_path, printed).token() == token


@pytest.mark.parametrize(
    "printed", [json.dumps({"access_token": SECRET, "expires_in": 100}), jwt(sub="x", exp=NOW_NS / 1e9 + 100)]
)
async def test_a_token_is_used_for_four_fifths_of_its_life(tmp_path: Path, printed: str) -> None:
    """Then the command is run again, before the broker finds out."""
    clock = ManualClock(NOW_NS)
    command = printing(tmp_path, printed, clock)
    for seconds, expected in ((0, 1), (79, 1), (2, 2)):
        clock.advance(seconds)
        await command.token()
        assert runs(tmp_path) == expected


async def test_a_token_that_does_not_say_how_long_it_holds_is_not_kept(tmp_path: Path) -> None:
    """A run for each connection is slow and right."""
    command = printing(tmp_path, SECRET)
    await command.token()
    await command.token()
    assert runs(tmp_path) == 2


async def test_clients_that_connect_at_once_share_a_run(tmp_path: Path) -> None:
    """A restart connects half a dozen of them."""
    command = printing(tmp_path, json.dumps({"access_token": SECRET, "expires_in": 100}))
    assert await asyncio.gather(*(command.token() for _ in range(6))) == [SECRET] * 6
    assert runs(tmp_path) == 1


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("", "printed neither a token nor JSON with access_token"),
        (f"{SECRET} and more", "printed neither"),
        ("<html>" + SECRET, "printed neither"),
        ("{" + SECRET, "printed neither"),
        (json.dumps({"error": SECRET}), "printed neither"),
        (json.dumps({"access_token": 5, "x": SECRET}), "printed neither"),
        (json.dumps({"access_token": SECRET, "expires_in": "soon"}), "expires_in that is no number"),
        (json.dumps({"access_token": SECRET, "expires_in": -7}), "a token that ended 7 s ago"),
        (jwt(sub=SECRET, exp=NOW_NS / 1e9 - 35), "a token that ended 35 s ago"),
    ],
)
async def test_what_is_no_token_is_told_and_not_repeated(tmp_path: Path, printed: str, message: str) -> None:
    """The command is named; what it printed may be a secret."""
    with pytest.raises(TokenError, match=message) as caught:
        await printing(tmp_path, printed).token()
    assert sys.executable in str(caught.value)
    assert SECRET not in str(caught.value)
    assert printed[:20] not in str(caught.value) or not printed


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sh", "-c", "echo first >&2; echo no network >&2; exit 3"], "'sh' ended with exit code 3: no network$"),
        (["sh", "-c", "exit 4"], "'sh' ended with exit code 4: nothing on standard error"),
        (["/nowhere/token"], "'/nowhere/token' cannot be run: No such file"),
    ],
)
async def test_a_command_that_fails_is_told(command: list[str], message: str) -> None:
    """With its exit code and its last word."""
    with pytest.raises(TokenError, match=message):
        await TokenCommand(command).token()


async def test_a_command_that_hangs_is_ended_with_its_children() -> None:
    """Within its time, though a child of it keeps the pipe open."""
    began_s = time.monotonic()
    with pytest.raises(TokenError, match=r"did not end within 0\.3 s"):
        await TokenCommand(["sh", "-c", "sleep 60 & wait"], run_s=0.3).token()
    assert time.monotonic() - began_s < 30


async def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    """The next connection asks again."""
    flag = tmp_path / "flag"
    command = TokenCommand(["sh", "-c", f"test -e {flag} && echo {SECRET}"])
    with pytest.raises(TokenError, match="exit code 1"):
        await command.token()
    flag.touch()
    assert await command.token() == SECRET
