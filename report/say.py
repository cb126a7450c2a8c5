"""Prose that a person wrote, filled with facts and guarded by a claim about them.

    claim("BN learns faster than no norm", holds="epochs.bn < epochs.nn", epochs=epochs).say(\"""
    Batch norm fits 80 % of its training images after {{epochs.bn}} epochs, a network without a norm after {{epochs.nn}}.\""")

The text appears where the claim holds. Where it does not, as on another data set, one grey line says so and what it rests on.
`tested` holds a claim of the literature against the facts, `tell` fills in facts that claim nothing, and `keep` saves a
section's facts and claims beside its executed notebook, for the pages and the discussion.
"""

import ast
import contextlib
import itertools
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display

from lib.data import ROOT
from lib.study import Study
from report import saved

#: A fact that is missing is an error; one that is no number is a dash.
ENGINE = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=lambda value: "–" if is_nan(value) else value)
SAID: dict[str, dict] = {}  # name -> what this notebook claimed, as a row of claims.csv


def is_nan(value) -> bool:
    return isinstance(value, float) and value != value


class Written(str):
    """A number as text, with which nothing is computed: in jinja2 a filter binds tighter than arithmetic."""

    def __mul__(self, other):
        raise TypeError(f"{self!r} is text; put brackets around what is to be computed before the filter")

    __rmul__ = __mul__


def number(value: float, digits: int = 1) -> str:
    """A number with so many decimals and a true minus sign, which no zero has; a dash for NaN."""
    return Written("–" if is_nan(value) else f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−"))


def interval(table: pd.DataFrame, name: str) -> str:
    """A row of lib.stats.table: 0.6 points (0.2 to 1.0)."""
    return span(table.loc[name])


def span(row: pd.Series) -> str:
    value, low, high = (number(100 * row[column]) for column in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"


def power(value: float) -> str:
    """One digit and the power of ten, as in 6e-10."""
    return re.sub("e-0?", "e−", f"{value:.0e}")


ENGINE.filters["percent"] = lambda fraction, digits=1: f"{number(100 * fraction, digits)} %"
ENGINE.filters["points"] = lambda fraction, digits=1: number(100 * fraction, digits)
ENGINE.filters["decimals"] = number
ENGINE.filters["interval"] = interval
ENGINE.filters["power"] = power


def value_of(expression: str, facts: dict):
    return ENGINE.compile_expression(expression, undefined_to_none=False)(**facts)


def filled(text: str, facts: dict) -> str:
    return ENGINE.from_string(text).render(facts).strip()


def rests_on(holds: str, facts: dict) -> str:
    """The sides of its comparisons with their values (epochs.bn = 40, epochs.nn = 38), or the claim itself if it has none that
    stands alone, as within brackets."""
    sides = re.split(r"\s*(?:[<>=!]=?|\band\b|\bor\b|\bnot\b)\s*", holds)
    values = {}
    for side in filter(re.compile("[a-z]").match, sides):
        with contextlib.suppress(jinja2.TemplateError, KeyError, TypeError):  # no expression, or of what is not there
            value = value_of(side, facts)
            values[side] = "–" if is_nan(value) else f"{round(value, 3) if isinstance(value, float) else value}"
    return ", ".join(f"{side} = {value}" for side, value in values.items()) or holds


def project_path(path: str | Path) -> Path:
    """A notebook's path parameter: relative to the project's top folder, wherever Jupyter was started."""
    is_path = isinstance(path, (str, Path)) and str(path)
    return ROOT / Path(path).expanduser() if is_path else path  # Study says what is wrong with another


def check_parameters() -> None:
    """ValueError for a parameter that papermill was given and the notebook does not have; papermill itself only warns, and the
    notebook would run with the default."""
    shell = get_ipython()
    for declared, given in itertools.pairwise(shell.user_ns["In"] if shell else ()):
        if given.startswith("# Parameters\n"):  # the cell that papermill puts behind the notebook's own
            allowed = assigned(declared)
            if unknown := [name for name in assigned(given) if name not in allowed]:
                raise ValueError(f"unknown parameter {', '.join(unknown)}; allowed are {', '.join(allowed)}")


def assigned(code: str) -> list[str]:
    """The names that a cell gives a value to."""
    return [target.id for node in ast.parse(code).body if isinstance(node, ast.Assign) for target in node.targets]


def tell(text: str, **facts) -> None:
    """Show a text with the facts filled in. jinja2.UndefinedError if one is missing."""
    display(Markdown(filled(text, facts)), metadata={"ok": True})


def say(name: str, text: str, holds: str, **facts) -> None:
    """Show a text if the jinja2 expression `holds` is true of the facts, else a grey line. UndefinedError: a missing fact."""
    ok, why = bool(value_of(holds, facts)), rests_on(holds, facts)
    said = filled(text, facts) if ok else f"{name}: not in these runs ({why})"
    SAID[name] = {"holds": holds, "rests_on": why, "verdict": "holds" if ok else "not in these runs"}
    display(Markdown(said), metadata={"claim": name, "ok": ok})


def claim(name: str, holds: str, **facts) -> SimpleNamespace:
    """`say` in two steps, claim(…).say(text): a formatter then leaves the text whole."""
    return SimpleNamespace(say=partial(say, name, holds=holds, **facts))


def tested(
    name: str, source: str, confirmed: str, contradicted: str, shows: str = "", row: pd.Series | None = None, **facts
) -> None:
    """Hold a claim of the literature against the facts and note the verdict for the discussion: confirmed or contradicted where
    that expression is true, else open. `shows` says in a few words what the runs show; it may be left out where `row`, of
    lib.stats.table, is the difference (value, low, high) that decides it."""
    verdict = next(
        (word for word, of in (("confirmed", confirmed), ("contradicted", contradicted)) if value_of(of, facts)), "open"
    )
    SAID[name] = {"source": source, "holds": confirmed, "rests_on": rests_on(confirmed, facts), "verdict": verdict}
    SAID[name] |= {"shows": filled(shows, facts) or span(row)}
    SAID[name] |= {} if row is None else row[["value", "low", "high"]].to_dict()


def keep(study: Study, section: str, **frames: pd.DataFrame) -> None:
    """Save a section's facts, and all that it claimed as claims.csv, beside its executed notebook."""
    columns = ["source", "shows", "verdict", "value", "low", "high", "holds", "rests_on"]
    claims = pd.DataFrame(SAID.values(), index=pd.Index(SAID, name="claim"), columns=columns)
    saved.save(study, section, **frames, claims=claims)


def page(template: Path, **facts) -> tuple[str, dict[str, bool]]:
    """A hand-written paragraph whose sentences stand in {% call claim("name", expression) %} … {% endcall %}: its text without
    those that do not hold, and name -> whether it does."""
    claims = {}

    def claim(name: str, ok, caller) -> str:
        claims[name] = bool(ok)
        return caller() if ok else ""

    text = ENGINE.from_string(template.read_text()).render(facts, claim=claim)
    return " ".join(text.split()), claims
