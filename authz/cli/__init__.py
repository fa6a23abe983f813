"""The command line: one command per file."""

ERROR_EXIT_CODE = 2
