"""Errors that are a person's to mend.

Owns: the one exception type whose text is shown to the user as it stands, without a traceback. It names the thing and the fix.
"""


class UserError(Exception):
    """Bad input (config, argument, file, memory segment, port): ``str(e)`` is one or a few lines for the user."""

    exit_code = 2
