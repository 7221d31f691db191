"""Reports: one HTML page with text, tables and pictures inside, which opens offline."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sciml.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; text-align: right }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #e4e4e4 }
td:first-child, th:first-child { text-align: left }
figure { margin: 1.2rem 0 } img { max-width: 100% } figcaption { color: #555; font-size: .92rem }
pre { background: #f5f5f5; padding: .7rem 1rem; overflow-x: auto } code { background: #f5f5f5 }
"""


class Report:
    """Collects sections and writes them as one self-contained HTML file.

    Parameters
    ----------
    title : str
    folder : path
        Where ``report.html`` and a PNG file for each figure go.

    Examples
    --------
    >>> report = Report("Convergence", "runs/example")
    >>> report.text("Errors on two grids.")
    >>> report.table(["N", "error"], [[40, "1e-4"], [80, "6e-6"]])
    >>> "6e-6" in report.html()
    True
    """

    def __init__(self, title: str, folder: str | Path) -> None:
        self.title, self.folder = title, Path(folder)
        self._body: list[str] = []

    def section(self, heading: str) -> None:
        """Start a section."""
        self._body.append(f"<h2>{html.escape(heading)}</h2>")

    def text(self, paragraph: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{html.escape(paragraph)}</p>")

    def code(self, text: str) -> None:
        """Add commands or a listing, as they are."""
        self._body.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table."""

        def line(tag: str, cells: Sequence[object]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

        self._body.append(
            "<table>" + line("th", head) + "".join(line("td", row) for row in rows) + "</table>"
        )

    def figure(self, figure: "Figure", name: str, caption: str) -> None:
        """Save a matplotlib figure as ``<name>.png``, embed it, and close it."""
        import matplotlib.pyplot as plt

        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        plt.close(figure)
        with atomic_path(self.folder / f"{name}.png") as temporary:
            temporary.write_bytes(buffer.getvalue())
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(caption, quote=True)
        self._body.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def html(self) -> str:
        """Return the page."""
        title = html.escape(self.title)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1>{''.join(self._body)}</body></html>\n"
        )

    def save(self) -> Path:
        """Write ``report.html`` and return its path."""
        path = self.folder / "report.html"
        with atomic_path(path) as temporary:
            temporary.write_text(self.html())
        return path
