"""The command line: one command per file."""

ERROR_EXIT_CODE = 2

INTERRUPTED_EXIT_CODE = 130
"""As shells say it of a program that Ctrl-C ended."""

UNREAD_EXIT_CODE = 141
"""As shells say it of a program that ended because nobody reads its output any more, as before `head`."""
