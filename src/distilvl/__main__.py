"""`python -m distilvl`, for launchers that start a module."""

from distilvl.cli import main

if __name__ == "__main__":
    main()
