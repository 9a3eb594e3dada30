"""Figures in a page of docs/: what a proof wrote between two marks, which name the command that makes them."""

END = "<!-- end of figures -->"


def begin(command):
    return f"<!-- figures: {command} -->"


def parted(page, command):
    """The page before its figures, they, and the page behind them."""
    head, rest = page.read_text(encoding="utf-8").split(begin(command))
    figures, end = rest.split(END, 1)
    return head, figures.strip(), end


def write_down(page, command, words):
    """Puts the figures between the marks."""
    head, _, end = parted(page, command)
    page.write_text(head + begin(command) + "\n" + words + "\n" + END + end, encoding="utf-8")
