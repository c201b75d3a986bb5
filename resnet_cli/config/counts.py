"""Numbers with their nouns in messages: `1 image`, `1,298 images`, `2 classes`."""


def counted(number: float, noun: str) -> str:
    """Return a number with a noun, such as `1 image`, `1,298 images`, `2.5 epochs`, `2 batches` or `3 copies`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("py") else f"{noun}{'es' if noun.endswith(('tch', 's')) else 's'}"
    return f"{format_number(number)} {noun if number == 1 else plural}"


def format_number(number: float) -> str:
    """Return a number with separators of thousands, and with the decimals that it has."""
    return f"{int(number):,}" if number == int(number) else f"{number:,}"
