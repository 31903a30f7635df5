"""``python -m opsboard``: the same as the console script."""

from opsboard.cli.main import main

if __name__ == "__main__":
    main()
