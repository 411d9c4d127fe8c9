"""``python -m terakoya``: the command line."""

from terakoya.cli.main import main

if __name__ == "__main__":
    main()
