"""`python -m streamjournal`: the command line, where the script is not on the PATH."""

from streamjournal.cli.main import main

main()
