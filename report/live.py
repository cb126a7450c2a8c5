"""Figures that follow widgets.

They are a cell's ordinary output, which a change of a widget replaces: so they show in JupyterLab, and in a notebook that was
executed without it.
"""

import traceback

import matplotlib.pyplot as plt
from IPython.display import Markdown, Pretty, display

NOTHING = "_Choose at least one norm._"


def live(draw, **controls) -> None:
    """Show what `draw(**values)` returns for the values of the widgets `controls`, and again in its place after each change of
    one; a sentence where no `norms` are chosen. An error at the start is raised; after a change, its traceback is shown."""

    def drawn():
        values = {name: control.value for name, control in controls.items()}
        return draw(**values) if values.get("norms", True) else Markdown(NOTHING)

    def redraw(_) -> None:
        try:
            shown = drawn()
        except Exception:  # one that a callback raises would only be in the log
            shown = Pretty(traceback.format_exc())
        place.update(shown)
        plt.close("all")

    place = display(drawn(), display_id=True)
    plt.close("all")
    for control in controls.values():
        control.observe(redraw, "value")
