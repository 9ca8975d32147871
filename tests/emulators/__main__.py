"""Run a command against the AWS emulator: `python -m tests.emulators COMMAND [ARGUMENT …]`.

The command's environment sends every AWS client to the emulator, which ends with the command. Exits
as the command does.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.emulators.processes import aws_environment, running_moto


def main() -> int:
    """Run the command, give its exit code."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with running_moto() as endpoint:
        command = subprocess.Popen(sys.argv[1:], env={**os.environ, **aws_environment(endpoint)})
        while True:
            try:
                return command.wait()
            except KeyboardInterrupt:
                pass  # Ctrl-C went to the command too, which may have something to finish


if __name__ == "__main__":
    sys.exit(main())
