"""A figure of matplotlib as an SVG that belongs into a page: its colours and its font are the page's.

A figure is drawn with tokens instead of colours. Each becomes a variable of the page's style, so that the drawing
follows light and dark and the printer.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}href"

# Colours that nobody would choose, so that each stands for one variable.
INK, MUTED, RULE, BAND = "#010101", "#020202", "#030303", "#040404"
ACCENT, GOOD, BAD, SOFT = "#050505", "#060606", "#070707", "#080808"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    BAND: "band",
    ACCENT: "accent",
    GOOD: "good",
    BAD: "bad",
    SOFT: "soft",
}
COLOUR = re.compile("|".join(VARIABLES))
FONT = re.compile(r"font-family:[^;]*;?\s*")
REFERENCE = re.compile(r"url\(#([^)]+)\)")
SHARP = 1  # decimals: a tenth of a pixel is finer than anybody sees
NUMBER = re.compile(r"-?\d+\.\d{2,}")


def draw_svg(figure: Figure, *, name: str, title: str, description: str, kind: str) -> str:
    """Return the figure as the text of an `svg` element.

    Args:
        figure: With tokens for colours, of a size in inches at 72 dots an inch: a point is a pixel.
        name: What its ids begin with; it stands for itself in a page.
        title: What it shows, for those who do not see it.
        description: What is to be seen, for the same.
        kind: Its class in the page.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "opsproof"}), warnings.catch_warnings():
        # The page's font draws the text, so that what matplotlib's own font lacks is no loss.
        warnings.simplefilter("ignore")
        # A date or a version would make another file of the same run.
        figure.savefig(buffer, format="svg", dpi=72, transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314  matplotlib has just written it
    _make_it_belong(root, name)
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "class": kind, "role": "img", "aria-labelledby": f"{name}-title {name}-desc"})
    for tag, text in (("desc", description), ("title", title)):
        element = ET.Element(f"{SVG}{tag}", {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(0, element)
    for element in root.iter():
        # In a page the elements of SVG have no prefix.
        element.tag = element.tag.removeprefix(SVG)
    return ET.tostring(root, encoding="unicode")


def _make_it_belong(root: ET.Element, name: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            # Its style sheet would be the whole page's, its metadata are nobody's.
            if child.tag == f"{SVG}style" or child.tag.endswith("metadata"):
                parent.remove(child)
    referred = {one for element in root.iter() for one in _references(element)}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in referred:
                    element.attrib[key] = f"{name}-{value}"
                else:
                    del element.attrib[key]
            elif key in (XLINK, "href"):
                # What is referred to by both names is read by old readers, too; one is enough.
                del element.attrib[key]
                element.attrib["href"] = f"#{name}-{value.removeprefix('#')}"
            else:
                value = REFERENCE.sub(rf"url(#{name}-\1)", value)
                value = FONT.sub("", value) if key == "style" else value
                value = NUMBER.sub(lambda number: f"{float(number[0]):.{SHARP}f}", value)
                element.attrib[key] = COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]})", value)


def _references(element: ET.Element) -> list[str]:
    linked = [value.removeprefix("#") for key, value in element.attrib.items() if key in (XLINK, "href")]
    return linked + [one for value in element.attrib.values() for one in REFERENCE.findall(value)]
