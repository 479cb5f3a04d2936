"""`indrnn train chars --text`: from anybody's files to a card, and the two books in layouts."""

import gzip

import pytest

from indrnn.__main__ import main
from indrnn.export import bundle
from indrnn.model.training import checkpoint

SMALL = ["--hidden", "16", "--layers", "2", "--rows", "4", "--length", "16", "--epoch", "10", "--rate", "0.01", "--no-progress"]


def train(*arguments):
    return main(["train", "chars", *map(str, arguments), *SMALL])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return learned(tmp_path_factory.mktemp("own"))


def learned(folder):
    """A run on two files, of which one has a symbol in its last twentieth alone."""
    (folder / "liebe.txt").write_bytes(b"\xef\xbb\xbf" + ("Grüße, mein Schatz.\r\n" * 40 + "ß→").encode())
    (folder / "more.txt").write_bytes(gzip.compress(("Wie geht es dir? " * 30).encode()))
    files = folder / "liebe.txt", folder / "more.txt"
    title = "--title", "Letters of my aunt", "--terms", "not to be passed on"
    assert train("--text", *files, *title, "--steps", "20", "--decay", "5", "--out", folder / "run") == 0
    return folder


def test_it_learns_writes_while_it_does_and_knows_the_held_out_symbol(run):
    _, meta = checkpoint.load_trained(run / "run" / "model.pt")
    assert "→" in meta.alphabet
    assert meta.alphabet[-1] == "\ufffd"
    lines = (run / "run" / "log.txt").read_text().splitlines()
    losses = [float(line.split()[line.split().index("val_bpc") + 1]) for line in lines]
    assert losses[-1] < losses[0]
    samples = (run / "run" / "samples.txt").read_text()
    assert samples.count("--- step") == 2
    assert "\ufffd" not in samples


def test_its_figures_and_its_card_say_whose_text_it_was(run, capsys):
    assert main(["evaluate", str(run / "run" / "model.pt"), "--split", "test", "--record"]) == 0
    assert "test_bpc" in capsys.readouterr().out
    assert main(["export", str(run / "run" / "model.pt"), str(run / "bundles"), "--name", "aunt"]) == 0
    made = bundle.read(run / "bundles" / "aunt" / "1")
    assert made.manifest.unknown == "\ufffd"
    assert made.manifest.unknown_symbol == len(made.manifest.alphabet) - 1
    card = (made.graph.parent / "CARD.md").read_text()
    assert "**Letters of my aunt**. Terms: not to be passed on. Source: liebe.txt, more.txt, 1,312 characters" in card
    assert "Shakespeare" not in card
    assert "no symbol" not in card


def test_it_goes_on_with_the_same_text_and_with_no_other(tmp_path, monkeypatch, capsys):
    books(tmp_path, monkeypatch)
    run = learned(tmp_path)
    capsys.readouterr()
    same = "--text", run / "liebe.txt", run / "more.txt"
    out = "--steps", "30", "--decay", "5", "--out", run / "run", "--resume"
    for text in (same[:2], ()):
        assert train(*text, *out) == 1
        assert "expected to go on with the same text, Letters of my aunt" in capsys.readouterr().err
    assert train(*same, *out) == 0
    (run / "more.txt").write_text("Wie geht es dir? " * 31)
    assert main(["evaluate", str(run / "run" / "model.pt")]) == 1
    assert "expected the text that was learned from, got another" in capsys.readouterr().err


def test_what_is_no_text_is_one_line(tmp_path, capsys):
    (tmp_path / "mine.txt").write_bytes("Größe ".encode("latin-1") * 90)
    assert train("--text", tmp_path / "mine.txt", "--out", tmp_path / "run") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/mine.txt: expected UTF-8, got the byte 0xf6 near byte 2 "
        f"(if it is Latin-1: iconv -f LATIN1 -t UTF-8 {tmp_path}/mine.txt > utf8.txt)"
    ]
    assert not (tmp_path / "run").exists()


def books(folder, monkeypatch):
    """Put a few words of the two books where they are looked for."""
    monkeypatch.setenv("INDRNN_DATA", str(folder))
    (folder / "text").mkdir()
    for name, words in (("shakespeare", "to be or not\n\n"), ("war_and_peace", '"Well, Prince"--he said. ')):
        (folder / "text" / f"{name}.txt.gz").write_bytes(gzip.compress((words * 80).encode()))


def test_the_books_in_layouts_have_typographic_marks_and_a_symbol_for_the_rest(tmp_path, monkeypatch, capsys):
    books(tmp_path, monkeypatch)
    assert train("--layouts", "--steps", "10", "--decay", "5", "--out", tmp_path / "run") == 0
    _, meta = checkpoint.load_trained(tmp_path / "run" / "model.pt")
    assert set("“”—…\t") < set(meta.alphabet)
    assert meta.told == {"unknown": "\ufffd"}
    assert "val_bpc_war_and_peace_one_line" in (tmp_path / "run" / "log.txt").read_text()
    assert main(["evaluate", str(tmp_path / "run" / "model.pt"), "--split", "test"]) == 0
    told = capsys.readouterr().out
    assert "test_bpc_war_and_peace_spread" in told
    assert "alice" not in told  # not at hand
