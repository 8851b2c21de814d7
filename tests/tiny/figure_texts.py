"""What a figure says in words."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure


def texts(figure: Figure) -> list[str]:
    """Every text in it that is not empty."""
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]
