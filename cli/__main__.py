"""The command, as `python -m cli`: how programs start each other without a path."""

from cli.main import main

main()
