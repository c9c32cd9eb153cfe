"""A figure of matplotlib as SVG that can stand in a page: ids unique, text as text, page's colours.

Figures are drawn in the colours of :data:`COLOURS`; in the page these become CSS variables, so
that one figure does for light, dark and print.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

# A colour that no figure means by itself, for each colour of the page.
COLOURS = {
    "ink": "#010101",
    "soft": "#020202",
    "line": "#030303",
    "card": "#0a0a0a",
    "ours": "#040404",
    "base": "#050505",
    "control": "#060606",
    "published": "#070707",
    "bad": "#080808",
    "good": "#090909",
}
_PIXELS = 98  # of an inch
_STYLE: Any = {
    "svg.hashsalt": "aape",  # ids follow from the figure, and the same run has the same report
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$x$"
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["soft"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "grid.color": COLOURS["line"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


def page_style() -> AbstractContextManager[Any]:
    """Return the settings that figures are drawn and written under."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as one ``<svg>`` element.

    Args:
        figure: drawn under :func:`page_style`, in :data:`COLOURS`.
        name: unique in the page; every id of the figure starts with it.
        label: what the figure shows, in words, for those who cannot see it.
    """
    stream = io.BytesIO()
    with page_style():
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(stream.getvalue())  # by matplotlib  # nosec B314
    for child in [e for e in root if e.tag.rpartition("}")[2] == "metadata"]:
        root.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.attrib[key] = _in_page(key, value, name)
        if element.tag.endswith("}style") and element.text:  # would hold for the whole page
            element.text = f"#{name} {element.text.strip()}"
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    # letters of all figures are equally large; on a narrow page a figure shrinks
    root.attrib["style"] = f"max-width:{_PIXELS * figure.get_figwidth():.0f}px"
    root.attrib |= {"id": name, "role": "img", "aria-label": _printable(label), "class": "plot"}
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = _printable(label)
    root.insert(0, title)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return ElementTree.tostring(root, encoding="unicode")


def _in_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    value = value.replace("url(#", f"url(#{name}-")
    if key.rpartition("}")[2] in ("style", "fill", "stroke"):
        for colour, sentinel in COLOURS.items():
            value = value.replace(sentinel, f"var(--{colour})")
        value = value.replace("'DejaVu Sans'", "system-ui,'DejaVu Sans'")
    return value


def _printable(text: str) -> str:
    """XML has no control characters; a name of a stranger may."""
    return "".join(c if c.isprintable() else " " for c in text)
