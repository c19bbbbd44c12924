"""The exit codes of every command; usage errors have click's, 2."""

EXIT_ERROR = 1
EXIT_SOME_FAILED = 3
EXIT_DAMAGED = 4
EXIT_SIGINT = 130
EXIT_SIGTERM = 143
