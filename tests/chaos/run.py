"""One round: a cast on an empty backend, faults for a while, then calm, and everything is checked."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamjournal.core.settings import load
from tests.chaos import evidence
from tests.chaos.backends import Backend, applied, opened
from tests.chaos.cast import Cast, Role
from tests.chaos.checks import Journals, Verdict, Violation, check_journals, check_reads, check_tail
from tests.chaos.faults import Faults
from tests.chaos.ledger import Account, Accounts, whole_lines
from tests.chaos.programs.tail import lives
from tests.chaos.sessions import LONG

EMITTERS = 3
WORKERS = 3
TAILS = {"tail-0": LONG[0], "tail-1": LONG[1], "tail-all": None}
_TIED = "tests.chaos.programs.tied"
_FOLDERS = ("ledgers", "tails", "reads", "stderr", "journals")
_CALM_SECONDS = 30.0  # in which emitters end, and tails catch up
_WORKER_SECONDS = 15.0  # a worker promises 10, and its process has to be left
_COMMAND_SECONDS = 60.0
_FIRST_TAIL_SECONDS = 10.0
_NETWORK_FAULTS = 0.015  # of all requests, and of all pieces of answers


class Report(NamedTuple):
    """What a round came to.

    Args:
        figures: kill, stop, term, reshard, accepted, acknowledged, journals, resumes, reads, …
    """

    figures: Counter[str]
    violations: list[Violation]
    interrupted: bool


def play(
    backend_name: str,
    reach: Mapping[str, str],
    folder: Path,
    seconds: float,
    seed: str,
    *,
    pause: float,
    progress: Callable[[Counter[str]], None] = lambda _: None,
) -> Report:
    """A round of so many seconds of faults, in an empty folder that keeps all it leaves.

    Args:
        reach: what `backends.servers` gave.
        pause: seconds between two faults, on average.
        progress: called now and then with how often each fault was done.
    """
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    with opened(backend_name, folder / "home", reach, random.Random(f"{seed}-backend")) as backend:
        cast = Cast(folder, backend.environment)
        try:
            return _Round(folder, backend, cast, seed).play(seconds, pause, progress)
        finally:
            cast.kill_all()


def _container(_: int) -> list[str]:
    """The worker as its container runs it."""
    return [_TIED, "consumers.journal_worker"]


def _worker(_: int) -> list[str]:
    """The worker as a person runs it."""
    return [_TIED, "streamjournal", "worker"]


class _Round:
    def __init__(self, folder: Path, backend: Backend, cast: Cast, seed: str) -> None:
        self._folder = folder
        self._backend = backend
        self._cast = cast
        self._seed = seed
        self._rng = random.Random(seed)
        self._interrupted = False
        self._found: list[Violation] = []

    def play(self, seconds: float, pause: float, progress: Callable[[Counter[str]], None]) -> Report:
        try:
            self._populate()
        except KeyboardInterrupt:
            self._interrupted = True
        faults = Faults(self._cast, self._backend, self._rng, pause)
        network = self._backend.network
        if network is not None:
            network.rate = _NETWORK_FAULTS
        try:
            deadline = time.monotonic() + seconds
            while not self._interrupted and time.monotonic() < deadline:
                faults.tick()
                self._cast.tend(self._rng)
                progress(faults.done)
                time.sleep(0.02)
        except KeyboardInterrupt:
            self._interrupted = True
        faults.wake()
        if network is not None:
            network.rate = 0.0
            faults.done.update(network.done)
        try:
            figures = self._check(faults.note)
        finally:
            (self._folder / "faults.txt").write_text("\n".join(faults.log) + "\n")
        figures.update(faults.done)
        return Report(figures, self._found, self._interrupted)

    # The cast

    def _populate(self) -> None:
        """The workers come once the tail of all sessions has shown something: what is in journals
        before that it does not give.
        """
        cast, folder = self._cast, self._folder
        for i in range(EMITTERS):
            cast.add(self._emitter(f"emitter-{i}"))
        for name, session in TAILS.items():
            cast.add(self._tail(name, session))
        deadline = time.monotonic() + _FIRST_TAIL_SECONDS
        while time.monotonic() < deadline and not any(lives(folder / "tails", "tail-all")):
            time.sleep(0.05)
        for i in range(WORKERS):
            cast.add(Role(f"worker-{i}", "worker", _container if i == 0 else _worker))
        cast.add(self._reader("reader-0"))

    def _emitter(self, name: str) -> Role:
        ledgers, pause = self._folder / "ledgers", str(self._backend.pause)

        def command(n: int) -> list[str]:
            seed = f"{self._seed}-{name}-{n}"
            return ["tests.chaos.programs.emitter", f"{name}.{n:03}", seed, str(ledgers), pause]

        return Role(name, "emitter", command, sign=lambda n: ledgers / f"{name}.{n:03}-0.jsonl")

    def _tail(self, name: str, session: str | None) -> Role:
        tails = self._folder / "tails"

        def command(n: int) -> list[str]:
            which = [session] if session else []
            return ["tests.chaos.programs.tail", f"{name}.{n:03}", str(tails), *which]

        return Role(name, "tail", command, sign=lambda n: tails / f"{name}.{n:03}.jsonl")

    def _reader(self, name: str) -> Role:
        folder = self._folder

        def command(n: int) -> list[str]:
            return ["tests.chaos.programs.reader", f"{name}.{n:03}", f"{self._seed}-{n}", str(folder)]

        return Role(name, "reader", command, sign=lambda n: folder / "reads" / f"{name}.{n:03}.jsonl")

    # The end

    def _check(self, note: Callable[[str], None]) -> Counter[str]:
        """Bring everything to rest and look at it."""
        cast, settings = self._cast, load(self._backend.environment)
        note("emitters end")
        self._end("emitter", _CALM_SECONDS)
        note("recover")
        self._command("recover", "streamjournal", "recover", "--timeout", "20")
        note("workers end")
        self._end("worker", _WORKER_SECONDS)
        note("drain")
        self._command("drain", "streamjournal", "worker", "--drain")
        note("gather")
        with applied(self._backend.environment):
            journals, found = evidence.gather(settings, self._folder / "journals")
        self._found += found
        note("tails")
        tails = self._last_of_tails(journals)
        for process in cast.alive("tail", "reader"):
            cast.kill(process)
        note("compare")
        accounts = Accounts(self._folder / "ledgers").update()
        verdicts = [
            msgspec.json.decode(line, type=Verdict)
            for path in sorted((self._folder / "reads").glob("*.jsonl"))
            for line in whole_lines(path)
        ]
        self._found += check_journals(accounts, journals)
        for name, given in tails.items():
            self._found += check_tail(name, TAILS[name], given, journals)
        if verdicts or not self._interrupted:
            self._found += check_reads(verdicts)
        self._found += evidence.check_ends(cast.all)
        self._found += evidence.check_stderr(cast.all)
        self._found += evidence.check_spools(settings.spool_path)
        self._command("verify", "streamjournal", "verify", "--all")
        note("done")
        return _figures(accounts, journals, tails, verdicts)

    def _end(self, kind: str, seconds: float) -> None:
        """SIGTERM; nobody may need longer than that."""
        late = self._cast.end(kind, within=seconds)
        self._found += [Violation("exit", f"{name} did not end within {seconds} s") for name in late]

    def _command(self, name: str, *command: str) -> None:
        """A command that must exit with 0; its output is kept."""
        try:
            done = self._cast.run(*command, seconds=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired as problem:
            self._found.append(Violation("command", f"{name} did not end: {problem.stderr!r}"))
            return
        (self._folder / f"{name}.txt").write_bytes(done.stdout + done.stderr)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-600:]
            self._found.append(Violation("command", f"{name} exited with {done.returncode}: {said}"))

    def _last_of_tails(self, journals: Journals) -> dict[str, list[list[tuple[str, str]]]]:
        """What every tail gave, once each has had the time to see all that there is."""
        deadline = time.monotonic() + _CALM_SECONDS
        names = [role.name for role in self._cast.roles if role.kind == "tail"]
        while True:
            self._cast.tend(self._rng)
            tails = {
                name: [
                    [(one.session, one.id) for one in life] for life in lives(self._folder / "tails", name)
                ]
                for name in names
            }
            found = [v for name in names for v in check_tail(name, TAILS[name], tails[name], journals)]
            if not any("missed" in violation.text for violation in found) or time.monotonic() > deadline:
                return tails
            time.sleep(0.2)


def _figures(
    accounts: list[Account],
    journals: Journals,
    tails: Mapping[str, list[list[tuple[str, str]]]],
    verdicts: list[Verdict],
) -> Counter[str]:
    return Counter(
        accepted=sum(len(account.ids) for account in accounts),
        acknowledged=sum(len(account.acknowledged) for account in accounts),
        journals=sum(len(entries) for entries in journals.values()),
        resumes=sum(len(given) - 1 for given in tails.values()),
        reads=sum(not verdict.missing for verdict in verdicts),
        incomplete=sum(bool(verdict.missing) for verdict in verdicts),
    )
