"""Tokens for OAUTHBEARER, printed by a command of the operator's choice.

The command prints a token, or JSON with `access_token` and `expires_in`. How long a token holds is read from there or,
where it is a JWT, from its own `exp` (RFC 7519, 4.1.4). It is used again until four fifths of its life are over; one
that does not say is fetched anew for every connection. Neither tokens nor what the command prints are ever logged.

The client cannot sign on again over a live connection (KIP-368). Brokers that limit a connection to the life of its
token drop it in the end; the client connects again, asks here, and no record is lost by that.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import re
import signal
from collections.abc import Sequence
from typing import Any

from detector.clock import Clock, SystemClock

_RUN_S = 10.0  # the client's own patience with a connection is longer
_USED_SHARE = 0.8  # of a token's life; the rest is for a provider that is slow today
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1


class TokenError(OSError):
    """The command gave no token. An OSError, which the client takes for a broker that it cannot reach yet."""


class TokenCommand:
    """What the client asks for a token each time it connects."""

    def __init__(self, command: Sequence[str], clock: Clock | None = None, run_s: float = _RUN_S) -> None:
        self._command, self._clock, self._run_s = list(command), clock or SystemClock(), run_s
        self._token, self._renew_ns = "", 0
        self._fetching = asyncio.Lock()

    async def token(self) -> str:
        """A token that holds for a while; clients that connect at once share one run of the command.

        Raises:
            TokenError: There is none; names the command, and how it ended.
        """
        async with self._fetching:
            if self._clock.now_ns() >= self._renew_ns:
                self._token, self._renew_ns = await self._fetch()
            return self._token

    async def _fetch(self) -> tuple[str, int]:
        """A new token, and from when on it is not to be used any more."""
        token, holds_s = self._understood(await self._printed())
        now_ns = self._clock.now_ns()
        ends_s = _end_of(token) if holds_s is None else now_ns / 1e9 + holds_s
        if ends_s is None:
            return token, now_ns
        left_s = ends_s - now_ns / 1e9
        if left_s <= 0:
            raise self._error(f"printed a token that ended {-left_s:.0f} s ago")
        return token, now_ns + round(left_s * _USED_SHARE * 1e9)

    async def _printed(self) -> str:
        process = await self._started()
        try:
            out, err = await asyncio.wait_for(process.communicate(), self._run_s)
        except TimeoutError as late:
            raise self._error(f"did not end within {self._run_s:g} s") from late
        finally:
            with contextlib.suppress(ProcessLookupError):  # with its children: a shell's would keep our pipe open
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()  # to the end of its pipes, which are closed then
        if process.returncode:
            last = (err.decode(errors="replace").strip().splitlines() or ["nothing on standard error"])[-1]
            raise self._error(f"ended with exit code {process.returncode}: {last[:200]}")
        return out.decode(errors="replace").strip()

    async def _started(self) -> asyncio.subprocess.Process:
        null, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                *self._command, stdin=null, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            raise self._error(f"cannot be run: {error.strerror or error}") from error

    def _understood(self, printed: str) -> tuple[str, float | None]:
        """The token, and for how many seconds it holds where that was said."""
        answer: Any = {"access_token": printed}
        if printed.startswith("{"):
            with contextlib.suppress(ValueError):
                answer = json.loads(printed)
        token, holds_s = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
            raise self._error("printed neither a token nor JSON with access_token")
        try:
            return token, None if holds_s is None else float(holds_s)
        except (TypeError, ValueError) as error:
            raise self._error("printed an expires_in that is no number of seconds") from error

    def _error(self, what: str) -> TokenError:
        return TokenError(f"the token command {self._command[0]!r} {what}")


@functools.cache
def tokens_of(command: tuple[str, ...]) -> TokenCommand:
    """The one that runs this command: all clients of the process share its tokens."""
    return TokenCommand(command)


def _end_of(token: str) -> float | None:
    """When a JWT ends, Unix time; None where it does not say, or is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, TypeError, KeyError):
        return None
