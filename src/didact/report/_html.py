"""HTML that is escaped by default: plain text becomes markup only through `tag`."""

import html


class Html(str):
    """Markup that is already safe; any other string is escaped before it enters the page."""

    __slots__ = ()


_VOID = frozenset({"br", "img", "input", "meta"})


def markup(*parts: str) -> Html:
    """Join `parts`, escaping those that are plain text."""
    return Html("".join(p if isinstance(p, Html) else html.escape(p) for p in parts))


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """Build one element, for example `tag("p", "2 < 3", class_="note")`.

    Underscores at the end of an attribute's name are dropped, others become hyphens.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{markup(*children)}</{name}>")
