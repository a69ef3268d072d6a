"""`python -m lmmpress.cli`."""

from lmmpress.cli.app import main

main()
