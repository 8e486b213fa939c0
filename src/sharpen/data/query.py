"""Names with parameters, written ``name?key=value&key=value``."""

from urllib.parse import parse_qsl

from sharpen.errors import RecipeError


def parse_query(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``name?key=value&…`` into its name and its parameters."""
    name, _, query = spec.partition("?")
    if not query:
        return name, {}
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True)
    except ValueError as error:
        raise RecipeError(f"{spec}: parameters are written name?key=value&key=value ({error})") from error
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(f"{spec}: the parameter {key!r} is given twice")
    return name, dict(pairs)
