"""Kill, stop and reshard real processes for a while, and check what is left.

Each backend is played in rounds, with a stream, journals and leases of their own. Exits 1 on a
violation and keeps the folder; 130 after Ctrl-C, which ends the faults but not the checks.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos import backends
from tests.chaos.checks import Violation
from tests.chaos.run import play
from tests.emulators.processes import EmulatorError, missing_for_kinesis_local

_ROUND = {"embedded": 100.0, "emulator": 60.0}  # seconds; kinesis-local slows down with each record
_PAUSE = {"embedded": 0.7, "emulator": 0.9}  # seconds between two faults
_SHOWN = 40  # violations


def main() -> int:
    """The command."""
    options = _parse()
    names = [options.backend] if options.backend else list(backends.NAMES)
    if "emulator" in names and (missing := missing_for_kinesis_local()):
        print(
            f"chaos: kinesis-local needs {missing}: install them, or choose --backend embedded",
            file=sys.stderr,
        )
        return 3
    folder = _folder(options.keep)
    print(f"seed {options.seed}, folder {folder}", file=sys.stderr)
    chaos = _Chaos(folder, options.seed)
    failed = 0
    try:
        for name in names:
            chaos.play(name, options.minutes * 60 / len(names))
            if chaos.interrupted:
                break
    except EmulatorError as problem:
        print(f"chaos: {problem}", file=sys.stderr)
        failed = 3
    except KeyboardInterrupt:  # the second one: the first ends the faults only
        print(f"chaos: given up before everything was checked; {folder} is kept", file=sys.stderr)
        return 130
    return chaos.conclude(keep=options.keep is not None) or failed


class _Chaos:
    """All rounds of a run, and their sums."""

    def __init__(self, folder: Path, seed: str) -> None:
        self._folder = folder
        self._seed = seed
        self._sums: dict[str, Counter[str]] = {}
        self._seconds: Counter[str] = Counter()
        self._violations: list[Violation] = []
        self.interrupted = False
        self._said = 0.0

    def play(self, name: str, seconds: float) -> None:
        """A backend's rounds."""
        rounds = max(1, round(seconds / _ROUND[name]))
        sums = self._sums.setdefault(name, Counter())
        with backends.servers(name) as reach:
            for i in range(rounds):
                started = time.monotonic()

                def progress(done: Counter[str], i: int = i, started: float = started) -> None:
                    self._progress(f"{name} {i + 1}/{rounds}", time.monotonic() - started, done)

                report = play(
                    name,
                    reach,
                    self._folder / f"{name}-{i + 1}",
                    seconds / rounds,
                    f"{self._seed}-{name}-{i + 1}",
                    pause=_PAUSE[name],
                    progress=progress,
                )
                self._seconds[name] += round(time.monotonic() - started)
                sums.update(report.figures)
                for violation in report.violations:
                    sums[violation.kind] += violation.entries
                self._violations += report.violations
                self.interrupted = report.interrupted
                if self.interrupted:
                    return

    def conclude(self, *, keep: bool) -> int:
        """Say what was found; the last line is the summary."""
        self._clear_line()
        for violation in self._violations[:_SHOWN]:
            print(f"violation: {violation.kind}: {violation.text}", file=sys.stderr)
        if len(self._violations) > _SHOWN:
            print(f"violation: … {len(self._violations)} in all", file=sys.stderr)
        if self._violations or keep:
            print(f"kept in {self._folder}", file=sys.stderr)
        else:
            shutil.rmtree(self._folder)
        parts = [_summary(name, sums, self._seconds[name]) for name, sums in self._sums.items()]
        verdict = f"{len(self._violations)} violations" if self._violations else "no violation"
        stopped = "; interrupted" if self.interrupted else ""
        print(f"chaos: seed {self._seed}: {'; '.join(parts)}; {verdict}{stopped}")
        return 1 if self._violations else 130 if self.interrupted else 0

    def _progress(self, what: str, seconds: float, done: Counter[str]) -> None:
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self._said < (0.5 if terminal else 15.0):
            return
        self._said = now
        counts = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
        line = f"{what}: {seconds:.0f} s: {counts}"
        sys.stderr.write(f"\r\x1b[2K{line}" if terminal else f"{line}\n")
        sys.stderr.flush()

    def _clear_line(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K")


def _summary(name: str, sums: Counter[str], seconds: int) -> str:
    fields = [
        f"{sums['kill']} kills",
        f"{sums['stop']} stops",
        f"{sums['term']} terminations",
        f"{sums['reshard']} reshards",
        f"{sums['forget']} leases deleted",
        f"{sums['cut request'] + sums['cut answer']} connections cut",
        f"{sums['accepted']:,} accepted",
        f"{sums['acknowledged']:,} acknowledged",
        f"{sums['journals']:,} in journals",
        f"{sums['lost']} lost",
        f"{sums['doubled']} doubled",
        f"{sums['reordered']} reordered",
        f"{sums['resumes']} tails resumed",
        f"{sums['reads']} reads complete of {sums['reads'] + sums['incomplete']}",
    ]
    return f"{name} {seconds} s: {', '.join(fields)}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, required=True, help="of faults, shared by the backends")
    parser.add_argument("--backend", choices=backends.NAMES, help="only this one; both without it")
    parser.add_argument("--seed", type=_word, default=f"{random.SystemRandom().randrange(10**6)}")
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="an empty folder for all that the run leaves"
    )
    return parser.parse_args()


def _minutes(text: str) -> float:
    value = float(text)  # argparse tells of what is no number
    if not math.isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time above 0")
    return value


def _word(text: str) -> str:
    if not text or not text.isprintable() or "/" in text:
        raise argparse.ArgumentTypeError("must be a printable word without a slash")
    return text


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        keep.mkdir(parents=True, exist_ok=True)
        used = any(keep.iterdir())
    except OSError as problem:
        print(f"chaos: {keep} cannot be used: {problem.strerror}", file=sys.stderr)
        sys.exit(2)
    if used:
        print(f"chaos: {keep} is not empty", file=sys.stderr)
        sys.exit(2)
    return keep.resolve()


if __name__ == "__main__":
    sys.exit(main())
