"""Requests, bytes and dollars on AWS per entry, by flush interval, beside rewriting the whole journal
for every entry.

The sweep runs in virtual time: the real emitter, sender, worker and S3 store on models of Kinesis and
S3 that count (`virtual`). One more run, in which everything is emitted first and drained then, is
counted both on the models and at the SDK's clients over an emulator, so that the models are checked.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence

import msgspec
import structlog

from scripts.bench import entries, over_moto, prices, report, virtual
from scripts.bench.entries import Sample
from scripts.bench.virtual import Counts, Event

_LONG_ENTRIES = 1000
_LONG_SECONDS = 600.0


def main() -> None:
    options = report.parser("aws_requests", __doc__.partition("\n\n")[0], rounds=1)
    options.add_argument(
        "--intervals", type=_numbers, default=[1, 5, 30, 60], help="flushes, seconds; default 1,5,30,60"
    )
    options.add_argument("--shards", type=int, default=4)
    options.add_argument("--seconds-between", type=float, default=5.0, help="starts of two sessions")
    options.add_argument("--no-emulator", action="store_true", help="leave out the check of the models")
    arguments = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    samples, source = entries.load(arguments.file, limit=arguments.limit)
    sessions = len({it.session_id for it in samples})
    said = report.Report(
        "aws_requests",
        arguments,
        data=f"{source}, {len(samples)} entries of {sessions} sessions",
        prices=f"{prices.REGION}, {prices.AS_OF}",
        shards=arguments.shards,
    )
    said.table(
        f"sessions at their own pace, one begins every {arguments.seconds_between:g} s",
        sweep(virtual.as_is(samples, seconds_between=arguments.seconds_between), arguments),
    )
    count = min(_LONG_ENTRIES, len(samples))
    said.table(
        f"one session, {count} entries in {_LONG_SECONDS / 60 * count / _LONG_ENTRIES:g} minutes",
        sweep(
            virtual.one_session(samples, entries=count, seconds=_LONG_SECONDS * count / _LONG_ENTRIES),
            arguments,
        ),
    )
    if not arguments.no_emulator:
        said.table("everything emitted, then drained: models and emulator", check(samples, arguments))


def sweep(events: Sequence[Event], arguments: Namespace) -> list[report.Row]:
    """A row per flush interval, and the peer's."""
    rows = []
    for interval in arguments.intervals:
        counts = virtual.count(events, flush_interval=interval, shards=arguments.shards)
        _check_all(counts, len(events))
        rows.append(row_of(f"flush {interval:g} s", counts))
    peer = virtual.naive([event.sample for event in events], line_bytes)
    rows.append(row_of("GET and PUT per entry", Counts(peer, len(events), 0.0)))
    return rows


def check(samples: Sequence[Sample], arguments: Namespace) -> list[report.Row]:
    """The same drain on the models and over the emulator."""
    rows = []
    for name, count_drain in (("models", virtual.count_drain), ("emulator", over_moto.count_drain)):
        counts = count_drain(samples, shards=arguments.shards)
        _check_all(counts, len(samples))
        rows.append(row_of(name, counts))
    return rows


def row_of(name: str, counts: Counts) -> report.Row:
    """Counts per 1,000 entries, dollars per million."""
    tally = counts.tally
    thousands = counts.entries / 1000
    million = 1e6 / counts.entries
    gets = sum(tally.s3[name] for name in ("GetObject", "HeadObject", "HeadBucket"))
    multipart = sum(tally.s3.values()) - tally.s3["PutObject"] - gets
    return {
        "per 1,000 entries": name,
        "PutRecords": tally.puts / thousands,
        "records": tally.records / thousands,
        "PUT": tally.s3["PutObject"] / thousands,
        "multipart": multipart / thousands,
        "GET, HEAD": gets / thousands,
        "MB up": tally.uploaded / 1e6 / thousands,
        "S3 $/M": prices.s3_dollars(tally.s3) * million,
        "on demand $/M": prices.on_demand_dollars(tally.rounded) * million,
        "provisioned $/M": prices.provisioned_dollars(tally.units) * million,
        "lease writes/h": tally.lease_writes / counts.hours if counts.hours else None,
    }


def line_bytes(sample: Sample) -> int:
    """An entry's line as the older, one-file design writes it, newline included."""
    fields = {
        "timestamp": "2026-11-22T13:12:01.123456Z",
        "session_id": sample.session_id,
        "event_type": sample.event_type,
        "tool_name": sample.tool_name,
        "level": sample.level,
        "details": sample.details,
    }
    return len(msgspec.json.encode(fields)) + 1


def _check_all(counts: Counts, expected: int) -> None:
    if counts.entries != expected:
        raise RuntimeError(f"{counts.entries} of {expected} entries reached their journals")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
