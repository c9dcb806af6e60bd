"""The one error type that a user is meant to read."""


class UserError(ValueError):
    """Bad input, told so that it can be mended: the thing, the value got, what was expected, the next step."""
