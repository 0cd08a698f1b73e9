"""`python -m cli` is `mura-search`."""

from cli.main import main

main()
