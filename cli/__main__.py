"""``python -m flowkit.cli``: the same as the ``flowkit`` command (torchrun needs a module)."""

from flowkit.cli.main import main

if __name__ == "__main__":
    main()
