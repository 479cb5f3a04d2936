import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indrnn.model.data import text
from indrnn.model.data.formats import gzipped


@given(st.text(min_size=0, max_size=300))
def test_the_parts_are_disjoint_and_make_up_the_text(s):
    parts = text.split(s)
    assert parts["train"] + parts["val"] + parts["test"] == s
    assert len(parts["test"]) == len(parts["val"]) == round(0.05 * len(s))


def test_cleaning_leaves_nfc_and_plain_line_ends():
    assert text.clean("\ufeffe\u0301\r\na\rb\n") == "é\na\nb\n"


def test_encoding_is_the_place_in_the_alphabet_and_names_what_it_lacks():
    alphabet = text.alphabet_of(["banana", "cab\n"])
    assert alphabet == "\nabcn"
    assert text.encode("cab", alphabet).tolist() == [3, 1, 2]
    with pytest.raises(text.AlphabetError, match="'x' at 2"):
        text.encode("bax", alphabet)


def test_each_stream_goes_on_where_its_last_batch_ended():
    streams = text.Streams(np.arange(23), rows=2, steps=5)
    for k in range(12):
        x, target = streams.batch(k)
        following, _ = streams.batch(k + 1)
        assert x.shape == (2, 5)
        assert (target[:, :-1] == x[:, 1:]).all()
        assert (target[:, -1] == following[:, 0]).all()


def test_streams_read_every_symbol_equally_often():
    streams = text.Streams(np.arange(20), rows=2, steps=5)
    seen = np.concatenate([streams.batch(k)[0].flatten() for k in range(4)])
    assert np.bincount(seen).tolist() == [2] * 20


@pytest.mark.parametrize("name", text.TEXTS)
def test_the_real_texts_split_and_encode(name, needs):
    for path in text.TEXTS.values():
        needs(path)
    alphabet = text.alphabet_of([text.read(n)["train"] for n in text.TEXTS])
    parts = text.read(name)
    assert 80 < len(alphabet) < 90
    assert all(len(text.encode(part, alphabet)) == len(part) > 50_000 for part in parts.values())


@pytest.mark.parametrize(("word", "name"), [("Größe", "LATIN1"), ("“Größe”", "WINDOWS-1252"), ("Größe’", "WINDOWS-1252")])
def test_a_gzipped_text_in_another_encoding_is_told_with_its_name(tmp_path, word, name):
    (tmp_path / "a.gz").write_bytes(gzip.compress(word.encode("cp1252")))
    with pytest.raises(gzipped.GzippedError, match=f"iconv -f {name} -t UTF-8 turns it into one"):
        gzipped.text(tmp_path / "a.gz")
