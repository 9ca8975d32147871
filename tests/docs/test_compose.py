"""docker-compose.yml and the worker's Dockerfile name things that exist.

No engine is needed: what would first fail on a user's machine is checked here on the files.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamjournal.core.settings import Settings, load, variable_of

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "consumers" / "journal_worker" / "Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name in the Dockerfile, continued lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]


def copied() -> list[str]:
    """What the Dockerfile copies from the build context."""
    copies = [shlex.split(line) for line in instructions("COPY")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def test_localstack_is_the_last_without_an_account() -> None:
    """LocalStack stays at 4.14.0: a later image does not start without an account."""
    assert SERVICES["localstack"]["image"] == "localstack/localstack:4.14.0"


def test_images_are_pinned() -> None:
    """No image is 'latest': each is built here, or has a version."""
    pulled = [s["image"] for s in SERVICES.values() if "build" not in s]
    bases = [line.split()[0] for line in instructions("FROM")]
    for image in pulled + bases:
        assert re.search(r":\d+\.\d+", image), image


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if s.get("entrypoint") == ["streamjournal"]])
def test_commands_exist(name: str) -> None:
    """A service that runs the command line runs a command that it has."""
    command = [str(Path(sys.executable).with_name("streamjournal")), *SERVICES[name]["command"], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_image_runs_a_program_that_is_copied() -> None:
    """The image's entry point is a program in the folder that the image gets."""
    (entrypoint,) = instructions("ENTRYPOINT")
    assert json.loads(entrypoint) == ["python", "-m", DOCKERFILE.parent.name]
    assert (DOCKERFILE.parent / "__main__.py").is_file()


def test_image_can_be_asked_for_its_health() -> None:
    """The image serves the pages, with the package for them, and asks a page of them; compose another."""
    (environment,) = instructions("ENV")
    given = dict(word.split("=", 1) for word in environment.split())
    settings = load(given)
    assert [str(settings.metrics_port)] == instructions("EXPOSE")
    assert settings.metrics_address == "0.0.0.0"
    assert "streamjournal[aws,metrics]" in DOCKERFILE.read_text()
    asked = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    assert asked == ["python", "-m", "journal_worker.healthcheck"]
    assert (DOCKERFILE.parent / "healthcheck.py").is_file()
    assert SERVICES["worker"]["healthcheck"]["test"] == ["CMD", *asked, "/readyz"]


def test_image_is_stopped_gently() -> None:
    """The image asks for SIGTERM, is not root's, and compose waits longer than a worker's 10 s."""
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("USER")[-1] not in ("root", "0")
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > 10


@pytest.mark.parametrize("source", copied())
def test_copied_files_exist(source: str) -> None:
    """Everything that the Dockerfile copies exists, and .dockerignore lets it through."""
    assert list(ROOT.glob(source)), f"{source} does not exist"
    allowed = [
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    path = source.rstrip("/")
    assert any(path == a or fnmatch.fnmatch(path, f"{a}/*") for a in allowed), f"{source} is ignored"


def test_builds_from_the_dockerfile() -> None:
    """Services that are built share one image, made by the worker's Dockerfile from the root."""
    built = [s for s in SERVICES.values() if "build" in s]
    assert {s["image"] for s in built} == {"streamjournal-journal-worker"}
    for service in built:
        assert ROOT / service["build"]["context"] / service["build"]["dockerfile"] == DOCKERFILE


def test_order() -> None:
    """Services wait for services that there are, in a way that these can satisfy."""
    for service in SERVICES.values():
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert wanted["condition"] == "service_completed_successfully"
                assert SERVICES[other].get("restart", "no") == "no"


def test_variables_are_settings() -> None:
    """Each STREAMJOURNAL_ variable is a setting's, and worker and init agree about all of them."""
    known = {variable_of(name) for name in Settings.__struct_fields__}
    environments = [s["environment"] for n, s in SERVICES.items() if n != "localstack"]
    assert all(environment == environments[0] for environment in environments)
    assert {name for name in environments[0] if name.startswith("STREAMJOURNAL_")} <= known


def test_ports_are_open_to_this_machine_only() -> None:
    """An emulator without a password is not offered to the network."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_localstack_script_looks_at_what_the_stack_makes() -> None:
    """scripts/localstack names the stream, bucket and table that the services are configured with."""
    script = (ROOT / "scripts" / "localstack").read_text()
    environment = SERVICES["worker"]["environment"]
    for name in (
        environment["STREAMJOURNAL_STREAM"],
        environment["STREAMJOURNAL_BUCKET"],
        Settings().lease_table,
    ):
        assert f'"{name}"' in script, name
