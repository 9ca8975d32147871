"""A check: what was looked at, how it is, and what to do. Each is bounded in time; none ends the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import anyio
import msgspec

from streamjournal.core.errors import StreamjournalError, ThrottledError, UnavailableError

Result = Literal["ok", "warning", "failed", "skipped"]

NETWORK: Final = "look at the network: DNS, proxy, VPC endpoint, security group, AWS_ENDPOINT_URL"


class Check(msgspec.Struct, frozen=True):
    """One line of a diagnosis.

    Args:
        name: what was looked at; of a permission its IAM action.
        found: what is there, for a person.
        remedy: what to do; empty where nothing is to be done.
        facts: the same for a program.
    """

    name: str
    result: Result
    found: str
    remedy: str = ""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


def ok(name: str, found: str, **facts: Any) -> Check:
    """It is as it should be."""
    return Check(name, "ok", found, "", facts)


def warning(name: str, found: str, remedy: str, **facts: Any) -> Check:
    """It works, and somebody should look at it."""
    return Check(name, "warning", found, remedy, facts)


def failed(name: str, found: str, remedy: str, **facts: Any) -> Check:
    """It does not work."""
    return Check(name, "failed", found, remedy, facts)


def skipped(name: str, found: str, remedy: str = "") -> Check:
    """It was not looked at; `found` says why."""
    return Check(name, "skipped", found, remedy)


def failed_by(name: str, problem: Exception) -> Check:
    """What one of our errors says: the problem, and after the first semicolon what to do."""
    found, _, remedy = str(problem).partition("; ")
    return failed(name, found, remedy)


class Checks:
    """The checks of one thing (a service, a folder), one after another.

    Args:
        what: the thing, for the text: "Kinesis".
        seconds: for each check.

    Attributes:
        done: what was found, in order.
        away: the thing gave no answer; what is asked after that is skipped, or a dead network would
            cost `seconds` for each check.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        self.seconds = seconds
        self.done: list[Check] = []
        self.away = False

    def add(self, check: Check) -> bool:
        """Note a check; whether it is ok."""
        self.done.append(check)
        return check.result == "ok"

    async def run(self, name: str, look: Callable[[], Awaitable[Check]]) -> bool:
        """Look at something, whatever comes of it; whether it is ok."""
        if self.away:
            return self.add(skipped(name, f"{self.what} does not answer"))
        try:
            with anyio.fail_after(self.seconds):
                return self.add(await look())
        except ThrottledError as problem:
            return self.add(warning(name, str(problem), "run doctor again in a moment"))
        except TimeoutError:
            self.away = True
            return self.add(failed(name, f"no answer within {self.seconds:g} s", NETWORK))
        except UnavailableError as problem:
            self.away = True
            told = failed_by(name, problem)
            return self.add(msgspec.structs.replace(told, remedy=told.remedy or NETWORK))
        except StreamjournalError as problem:
            return self.add(failed_by(name, problem))
        except OSError as problem:
            return self.add(failed(name, str(problem), "look at its rights and its disk"))
        except Exception as problem:  # noqa: BLE001  # one check that breaks must not hide the others
            what = f"{type(problem).__name__}: {problem}"
            return self.add(failed(name, what, "this is unexpected; report it with this line"))
