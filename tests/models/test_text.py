import pytest

from models.grammar import load_yaml
from models.text import declared_text, read_text
from tests.refusal import refused


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_text_is_read_in_its_encoding(encoding, tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes("猫\r\n犬,\r鳥\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "猫\n犬,\n鳥\n"
    assert ("read as gb18030" in caplog.text) == (encoding == "gb18030")


def test_western_text(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes("café\nnaïve\n".encode("cp1252"))
    assert read_text(tmp_path / "a.txt") == "café\nnaïve\n"
    assert f"{tmp_path / 'a.txt'}: is not UTF-8; read as cp1252" in caplog.text


def test_text_that_is_none_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"1\n2\n\xff\xfd 3\n")
    with refused(f"{tmp_path / 'a.txt'}:3: cannot be read as text: byte 0xff is not utf-8; right would be UTF-8"):
        read_text(tmp_path / "a.txt", guesses=False)
    (tmp_path / "a.txt").write_bytes(b"1\n\x81\x81\x8d")
    with refused(f"{tmp_path / 'a.txt'}:2: cannot be read as text"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("raw", "declared", "text"),
    [
        ("人".encode("gbk"), "GBK", "人"),
        ("人".encode("gbk"), "utf-8", "人"),
        ("人".encode(), "no-such", "人"),
        ("人".encode(), "hex", "人"),  # a codec that is not of text
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        ("人".encode("utf-16"), "utf-8", "人"),
        ("人".encode(), "utf-16", "人"),
        ("人".encode(), None, "人"),
    ],
)
def test_declared_encodings(raw, declared, text):
    assert declared_text(raw, declared, "a.xml") == text


def test_model_yamls_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.yaml").write_text("nc: 3\n", encoding="utf-8-sig")
    assert load_yaml(tmp_path / "a.yaml") == {"nc": 3}
