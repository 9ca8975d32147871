"""Start an emulator, learn its address, stop it. Needs no pytest: the demo and benchmarks use it too.

with running_moto() as endpoint:
os.environ.update(aws_environment(endpoint))
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
_HERE = Path(__file__).parent
_STOP_SECONDS = 5.0


class EmulatorError(Exception):
    """An emulator did not start; the text says why."""


def aws_environment(endpoint: str) -> dict[str, str]:
    """The variables that send the AWS SDK's calls to `endpoint`, and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def running_moto() -> Iterator[str]:
    """S3, DynamoDB and Kinesis by moto; gives the endpoint's URL."""
    with _running("moto", [sys.executable, "-m", "tests.emulators.moto_server"], {}) as endpoint:
        yield endpoint


@contextmanager
def running_kinesis_local() -> Iterator[str]:
    """Kinesis with real sequence numbers and resharding by kinesis-local; gives the endpoint's URL.

    It slows down with each record: keep to fewer than 2,000 in a stream.

    Raises:
        EmulatorError: node or npm is missing, or the package could not be installed.
    """
    script = kinesis_local_script()
    command = ["node", "--require", str(_HERE / "bind_loopback.cjs"), str(script)]
    with _running("kinesis-local", command, _kinesis_local_settings(script.parent)) as endpoint:
        yield endpoint


def missing_for_kinesis_local() -> str | None:
    """What of node and npm this machine lacks, None if nothing."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    return " and ".join(missing) or None


def kinesis_local_script() -> Path:
    """The installed package's program; installs it at first use."""
    if missing := missing_for_kinesis_local():
        raise EmulatorError(f"kinesis-local needs {missing}")
    done = subprocess.run([ROOT / "scripts" / "node-tools"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmulatorError(f"scripts/node-tools failed:\n{done.stderr.strip()}")
    return Path(done.stdout.strip()) / "main.js"


def _kinesis_local_settings(package: Path) -> dict[str, str]:
    quick = "5ms"  # of 500 ms: how long a stream stays CREATING, UPDATING, DELETING
    durations = ("CREATE_STREAM", "DELETE_STREAM", "MERGE_SHARDS", "SPLIT_SHARD", "UPDATE_SHARD_COUNT")
    return {
        "KINESIS_MOCK_PLAIN_PORT": "4568",  # bind_loopback.cjs knows the plain server by it
        "KINESIS_MOCK_CERT_PATH": str(package / "server.json"),
        "SHARD_LIMIT": "1000",  # of 50: all tests of a run share the server
        "LOG_LEVEL": "ERROR",
        "AWS_REGION": REGION,
        **{f"{name}_DURATION": quick for name in durations},
    }


@contextmanager
def _running(name: str, command: Sequence[str], settings: Mapping[str, str]) -> Iterator[str]:
    """Run a server that prints its address as its first line and ends when its stdin closes."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the command that uses the emulator, not for the emulator
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address.startswith("http://"):
            raise EmulatorError(f"{name} did not start: {' '.join(command)} (its stderr says why)")
        yield address
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a server by closing its stdin, which both take as the end; kill it if it does not."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
