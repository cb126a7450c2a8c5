"""Guarded prose: what appears where a claim holds and where it does not, and what is kept of it."""

import json

import jinja2
import numpy as np
import pandas as pd
import pytest

from lib.study import Study
from report import saved
from report import say as module
from report.say import claim, keep, page, say, tell

EPOCHS = pd.Series({"bn": 15.0, "in": 25.0, "nn": 33.0})
TABLE = pd.DataFrame({"value": [0.0059, -0.02], "low": [-0.0004, -0.031], "high": [0.0100, -0.0102]}, index=["bin", "gn"])


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What a notebook that has claimed nothing yet displays."""
    found = []
    monkeypatch.setattr(module, "display", lambda output, metadata: found.append((output.data, metadata)))
    monkeypatch.setattr(module, "SAID", {})
    return found


def test_text_where_the_claim_holds_else_its_facts(shown):
    for holds in ("e.bn < e.nn", "e.nn < e.bn and e['in'] < 30"):
        say("BN learns faster", "After {{e.bn | int}} epochs.", holds, e=EPOCHS)
    (text, held), (line, not_held) = shown
    assert text == "After 15 epochs." and held == {"claim": "BN learns faster", "ok": True}
    assert line == "BN learns faster: not in these runs (e.nn = 33.0, e.bn = 15.0, e['in'] = 25.0)" and not_held["ok"] is False
    json.dumps(held | not_held)  # a notebook is JSON, which knows no numpy


def test_a_claim_in_brackets_is_shown_itself(shown):
    claim("x", holds="(e < 1).all()", e=EPOCHS).say("text")
    assert shown[0][0] == "x: not in these runs ((e < 1).all())"


def test_one_claim_serves_two_sentences(shown):
    both = claim("x", holds="e.bn < e.nn", e=EPOCHS)
    both.say("short")
    both.say("After {{e.bn | int}} of {{e.nn | int}}.")
    assert [text for text, _ in shown] == ["short", "After 15 of 33."]


@pytest.mark.parametrize(
    "holds", ["e.bn < 1", "e.bn > 1", "e.bn == e.bn", "(e > 1).all()", "0 < e.bn < 9", "t.clear.all()", "t.value.gn < 0"]
)
def test_no_number_is_no_claim(shown, holds):
    claim("x", holds=holds, e=EPOCHS * np.nan, t=(TABLE * np.nan).assign(clear=False)).say("text")
    assert shown[0][1] == {"claim": "x", "ok": False}


@pytest.mark.parametrize(
    "guarded",
    [
        "e.cat > 1",
        "t.value.cat > 1",
        "t.loc['cat', 'value'] > 1",
        "t.value[['cat', 'bin']].max() > 1",
        "1 < e['cat'] - e.bn",
        "t.xs('cat').max() > 1",
    ],
)
def test_a_guard_for_what_is_not_there_is_false_and_no_error(shown, guarded):
    """Prose about the classes of CIFAR-10, on another data set."""
    claim("x", holds=f"'cat' in e.index and {guarded}", e=EPOCHS, t=TABLE).say("{{e.cat}}")
    assert shown[0][1]["ok"] is False and shown[0][0].startswith("x: not in these runs (")


@pytest.mark.parametrize(
    "text, holds", [("{{e.gone}}", "e.bn > 0"), ("text", "e.gone > 0"), ("text", "e.gone"), ("{{typo}}", "e.bn > 0")]
)
def test_missing_fact_is_an_error(text, holds):
    with pytest.raises(jinja2.UndefinedError):
        say("x", text, holds, e=EPOCHS)
    assert not module.SAID  # and nothing was claimed


def test_numbers(shown):
    claim("x", holds="true", t=TABLE).say("{{0.9125 | percent}}, {{0.0107 | points}}, {{t | interval('bin')}}")
    assert shown[0][0] == "91.2 %, 1.1, 0.6 points (0.0 to 1.0)"
    text = "{{t | interval('gn')}}; {{a | points}}; {{0.98765 | percent(2)}}; {{b | decimals(2)}}; {{0.5 | percent(0)}}"
    tell(text, t=TABLE, a=-0.0004, b=-2.346)
    assert shown[1][0] == "−2.0 points (−3.1 to −1.0); 0.0; 98.77 %; −2.35; 50 %"
    tell("{{6.4e-10 | power}}, {{9.6e-5 | power}}, {{x | power}}", x=np.float32(3e-7))
    assert shown[2][0] == "6e−10, 1e−4, 3e−7"


def test_tell_claims_nothing(shown):
    tell(
        """
    Batches of {{batch}}.
    """,
        batch=8,
    )
    assert shown == [("Batches of 8.", {"ok": True})] and not module.SAID
    with pytest.raises(jinja2.UndefinedError):
        tell("{{typo}}", batch=8)


def verdict(name="x", **facts_given):
    module.tested(
        name,
        "Wu & He 2018",
        confirmed="r.high < 0",
        contradicted="r.low > 0",
        shows="{{r.value | points}} points",
        **facts_given,
    )
    return module.SAID[name]


def test_a_claim_of_the_literature_is_confirmed_contradicted_or_open(shown):
    found = {name: verdict(r=TABLE.loc[name]) for name in TABLE.index}
    assert found["gn"]["verdict"] == "confirmed" and found["bin"]["verdict"] == "open"
    assert verdict(r=-TABLE.loc["gn"].rename({"low": "high", "high": "low"}))["verdict"] == "contradicted"
    assert verdict(r=TABLE.loc["gn"] * np.nan)["verdict"] == "open"
    assert found["gn"]["shows"] == "−2.0 points" and found["gn"]["source"] == "Wu & He 2018"
    assert found["gn"]["rests_on"] == "r.high = -0.01" and "value" not in found["gn"]
    assert not shown  # it says nothing where it stands


def test_the_difference_that_decides_a_claim_is_kept_and_shown():
    found = verdict(r=TABLE.loc["gn"], row=TABLE.assign(clear=True).loc["gn"])
    assert {name: found[name] for name in ("value", "low", "high")} == {"value": -0.02, "low": -0.031, "high": -0.0102}
    module.tested("y", "us", confirmed="true", contradicted="false", row=TABLE.loc["gn"])
    assert module.SAID["y"]["shows"] == "−2.0 points (−3.1 to −1.0)"


def test_claims_are_kept_with_the_facts_and_the_last_of_a_name_counts(tmp_path):
    study = Study("smoke", outputs=tmp_path)
    say("first", "text", "e.nn < e.bn", e=EPOCHS)
    verdict("from a paper", r=TABLE.loc["gn"], row=TABLE.loc["gn"])
    say("first", "text", "e.bn < e.nn", e=EPOCHS)
    say("not so", "text", "e.nn < e.bn", e=EPOCHS)
    keep(study, "03_six_variants", epochs=EPOCHS.to_frame("epoch"))
    folder = saved.folder(study) / "03_six_variants"
    assert sorted(file.name for file in folder.iterdir()) == ["claims.csv", "epochs.csv"]
    written = pd.read_csv(folder / "claims.csv", index_col="claim")
    assert list(written.columns) == ["source", "shows", "verdict", "value", "low", "high", "holds", "rests_on"]
    assert written["verdict"].to_dict() == {"first": "holds", "from a paper": "confirmed", "not so": "not in these runs"}
    assert written.loc["first", ["holds", "rests_on"]].tolist() == ["e.bn < e.nn", "e.bn = 15.0, e.nn = 33.0"]
    assert written.loc["first", ["source", "shows", "value"]].isna().all() and written.loc["from a paper", "low"] == -0.031
    assert pd.read_csv(folder / "epochs.csv", index_col=0)["epoch"].to_dict() == EPOCHS.to_dict()


def test_a_notebook_that_claims_nothing_keeps_its_facts(tmp_path):
    study = Study("smoke", outputs=tmp_path)
    keep(study, "03_six_variants", epochs=EPOCHS.to_frame())
    assert saved.load(study, "03_six_variants")["claims"].empty


def test_page_leaves_out_what_does_not_hold(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(
        'A.\n{% call claim("b", e.bn < 20) %} B {{e.bn | int}}.{% endcall %}\n{% call claim("c", e.bn > 20) %}C.{% endcall %}'
    )
    assert page(file, e=EPOCHS) == ("A. B 15.", {"b": True, "c": False})


def test_page_needs_its_facts_only_where_it_says_them(tmp_path):
    file = tmp_path / "page.md"
    file.write_text('{% call claim("b", "cat" in e.index) %}{{e.cat}} of them.{% endcall %}Always.')
    assert page(file, e=EPOCHS) == ("Always.", {"b": False})
    file.write_text("{{e.cat}} of them.")
    with pytest.raises(jinja2.UndefinedError):
        page(file, e=EPOCHS)
