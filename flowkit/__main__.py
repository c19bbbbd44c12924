"""``python -m flowkit``: the same as the ``flowkit`` command."""

from flowkit.cli.main import main

if __name__ == "__main__":
    main()
