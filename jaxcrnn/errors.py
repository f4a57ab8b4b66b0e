"""The exception for user errors."""


class UserError(ValueError):
    """An error in the user's input: a file, a label or an option.

    The message is one line that names the location and what was expected. The command line prints it without a
    traceback and exits with code 2.
    """
