import gzip
import tracemalloc
import unicodedata

import numpy as np
import pytest

from indrnn.model.data.texts import own_text
from indrnn.model.data.texts.own_text import TextFileError
from indrnn.model.data.texts.typeset import UNKNOWN

RUSSIAN = "Все счастливые семьи похожи друг на друга.\n" * 12


def read(path, data, folder=None):
    path.write_bytes(data)
    return own_text.read([path], folder)


def symbols(own, x):
    return "".join(own.alphabet[k] for k in x)


@pytest.mark.parametrize("piece", [1, 7, 2**20])
@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: unicodedata.normalize("NFD", text).encode(),
        lambda text: gzip.compress(text.encode()),
    ],
)
def test_a_text_is_the_same_however_it_is_written_and_in_whatever_pieces_it_is_read(tmp_path, monkeypatch, piece, written):
    monkeypatch.setattr(own_text, "PIECE", piece)
    text = RUSSIAN + "Ёлка и йод, naïve façade, 日本語の文。한국어\n"
    own = read(tmp_path / "mine.gz", written(text), tmp_path / "run")
    n = len(text)
    test, val = n - round(0.05 * n), n - 2 * round(0.05 * n)
    assert own.characters == (n,)
    assert own.alphabet == "".join(sorted(set(text))) + UNKNOWN
    assert symbols(own, own.train) == text[:val]
    assert symbols(own, own.val) == text[val:test]
    assert symbols(own, own.test) == text[test:]


def test_a_text_without_blanks_is_composed_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(own_text, "PIECE", 5)
    text = "がぎぐげご漢字" * 40
    own = read(tmp_path / "a.txt", unicodedata.normalize("NFD", text).encode(), tmp_path)
    assert symbols(own, own.train) == text[: len(own.train)]


def test_of_each_of_several_files_a_part_is_held_out(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 400)
    (tmp_path / "b.txt").write_text("b" * 200)
    own = own_text.read([tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path)
    assert [symbols(own, x) for x in (own.train, own.val, own.test)] == ["a" * 360 + "b" * 180, "a" * 20 + "b" * 10, "a" * 20 + "b" * 10]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected a text, got an empty file"),
        (b"hello " * 8, "at least 200 characters, got 48"),
        (b"a" * 500, "at least two different characters, got 'a' alone"),
        ("Größe ".encode("latin-1") * 90, "got the byte 0xf6 .*iconv -f LATIN1 -t UTF-8"),
        ("“Größe” – ".encode("cp1252") * 90, "got the byte 0x93 .*if it is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8"),
        ("Größe’ ".encode("cp1252") * 90, "got the byte 0xf6 .*if it is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8"),
        (RUSSIAN.encode("utf-16"), "got UTF-16 .*iconv -f UTF-16 -t UTF-8"),
        (("hello " * 90).encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
        (("hello " * 90).encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
        (("hello " * 90).encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
        (RUSSIAN.encode() + "я".encode()[:1], "expected UTF-8"),
        (gzip.compress(RUSSIAN.encode(), mtime=0)[:-9], "a whole gzip file, got one that is cut"),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 300))).encode(), "at most 200 different characters, got 300, 300 of them"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_in_one_line_that_names_the_file(tmp_path, monkeypatch, data, said):
    monkeypatch.setattr(own_text, "MOST_SYMBOLS", 200)
    with pytest.raises(TextFileError, match=said) as refused:
        read(tmp_path / "mine.txt", data)
    assert str(refused.value).startswith(str(tmp_path / "mine.txt"))
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_called_so(tmp_path):
    for path, said in ((tmp_path / "none", "no such file"), (tmp_path, "got a folder")):
        with pytest.raises(TextFileError, match=said):
            own_text.read([path], None)


def test_of_a_long_text_only_so_much_is_measured_and_the_rest_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(own_text, "MEASURED", 100)
    monkeypatch.setattr(own_text, "PIECE", 1000)
    own = read(tmp_path / "a.txt", b"ab c" * 10_000, tmp_path)
    assert isinstance(own.train, np.memmap)
    assert (len(own.train), len(own.val), len(own.test)) == (36_000, 100, 100)


def test_memory_does_not_grow_with_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab c" * 8_000_000)
    tracemalloc.start()
    try:
        own_text.read([tmp_path / "a.txt"], tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6  # of 32 MB on disk, 64 MB as symbols
