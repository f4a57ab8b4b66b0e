"""The one exception for mistakes of the user."""


class UserError(ValueError):
    """A mistake in what the user gave: a file, a label, an option.

    The message is one line that names the place and what was expected. The command line prints it without a
    traceback and exits with 2.
    """
