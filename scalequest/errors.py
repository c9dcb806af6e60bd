"""The one error type whose message is written for the user."""


class UserError(ValueError):
    """Bad input, with a message that says how to fix it: what failed, its value, what was expected, the next step."""
