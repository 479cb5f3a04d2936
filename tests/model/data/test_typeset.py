import numpy as np
import pytest

from indrnn.model.data.texts import typeset
from indrnn.model.data.texts.typeset import LAP, UNKNOWN, LayoutStreams, PageLayout, draw

TEXT = (
    '"Well, Prince, so Genoa and Lucca are now just family estates of the\nBuonapartes'
    "--no longer my 'faithful\nslave,' as you call yourself!\"\n\n"
    "It was in July, 1805... and the speaker's name was Anna. She\nhad a cough.\n"
)


@pytest.mark.parametrize("width", [36, 70, 120, None, typeset.WHOLE, typeset.PRINTED])
def test_a_layout_changes_blanks_and_line_ends_alone(width):
    done = typeset.typeset(TEXT, PageLayout(width=width))
    assert done.split() == TEXT.split()
    if width is not None and width > 0:
        assert max(map(len, done.split("\n"))) <= width
    assert (done.count("\n") == 0) is (width == typeset.WHOLE)
    if width is None:
        assert len(done.strip().split("\n")) == 3  # two paragraphs and a blank line


def test_marks_are_those_of_the_layout():
    done = typeset.typeset(TEXT, PageLayout(width=None, quotes=("“", "”", "‘", "’"), dash="—", ellipsis="…", gap="  ", indent="\t"))
    first, _, second = done.strip("\n").split("\n")
    assert first.startswith("\t“Well, Prince, so Genoa and Lucca are now just family estates of the Buonapartes—no longer my ‘faithful")
    assert first.endswith(" slave,’ as you call yourself!”")
    assert second == "\tIt was in July, 1805… and the speaker’s name was Anna.  She had a cough."


def test_a_margin_and_double_spacing_are_before_and_between_all_lines():
    lines = typeset.typeset(TEXT, PageLayout(width=40, margin="    ", leading="\n\n")).rstrip("\n").split("\n")
    assert all(line.startswith("    ") or not line for line in lines)
    assert "" in lines[1:3]


def settings(seed: int = 1) -> LayoutStreams:
    alphabet = "".join(sorted(set(TEXT * 2 + typeset.TYPOGRAPHIC + TEXT.upper()))) + UNKNOWN
    return LayoutStreams(TEXT * 40, {c: i for i, c in enumerate(alphabet)}, ";().", 3, 8, seed)


def test_batches_depend_on_the_seed_and_their_number_alone():
    one, other = settings(), settings()
    far = [one.batch(k)[0] for k in (LAP * 7 + 3, 0, LAP - 1)]
    assert all(bool((x == other.batch(k)[0]).all()) for x, k in zip(far, (LAP * 7 + 3, 0, LAP - 1), strict=True))
    assert not bool((settings(2).batch(0)[0] == far[1]).all())


def test_a_row_goes_on_within_a_lap_and_forgets_at_most_where_the_layout_changes():
    reader = settings()
    for k in range(LAP - 1):
        _, target = reader.batch(k)
        following, _ = reader.batch(k + 1)
        assert (target[:, -1] == following[:, 0]).all()
    assert not any(reader.forgets(k).any() for k in range(1, LAP))
    assert 0 < sum(int(reader.forgets(k * LAP).sum()) for k in range(40)) < 120


def test_some_layouts_hide_symbols_behind_the_unknown_one_and_some_are_on_one_line():
    drawn = [draw(np.random.default_rng(seed), ";()") for seed in range(300)]
    assert any(layout.unknown for layout in drawn)
    assert {typeset.PRINTED, typeset.WHOLE, None} < {layout.width for layout in drawn}
    hidden = typeset.typeset("a (b); c", PageLayout(unknown=";("))
    assert hidden.strip() == f"a {UNKNOWN}b){UNKNOWN} c"
