"""Lets `python -m rotator` be the command; no logic lives here."""

from rotator.cli import main

if __name__ == "__main__":
    main()
