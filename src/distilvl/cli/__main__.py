"""`python -m distilvl.cli`."""

from distilvl.cli import main

main()
