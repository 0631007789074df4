"""Words for people, where several parts of the library need the same."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """The number with its noun: `1 file`, `1,200 files`.

    Args:
        number: of things.
        one: the noun for a single thing.
        many: the noun for several; by default with an `s`.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
