"""Names of classes, from the files that annotation tools write."""

import pytest

from carvana.data.class_names import read_class_names
from carvana.errors import CarvanaError

CSV = "name,r,g,b\nsky,128,128,128\ntree,0,255,9"
CATEGORIES = '{"categories": [{"id": 4, "name": "cat", "color": "#000001"}]}'
COLOURS = '{"cat": [1, 2, 3], "dog": "#FF0000"}'


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("classes.txt", "cat\n\ndog, wild\n", {0: "cat", 1: "dog, wild"}),
        ("classes.txt", "0 cat\n3 wild dog\n", {0: "cat", 3: "wild dog"}),
        ("classes.txt", "\ufeff1: cat\n2: dog", {1: "cat", 2: "dog"}),
        ("class_dict.csv", CSV, {"#808080": "sky", "#00ff09": "tree"}),
        ("labelmap.json", '{"0": "cat", "2": "dog"}', {0: "cat", 2: "dog"}),
        ("labelmap.json", '{"cat": 1, "dog": 2}', {1: "cat", 2: "dog"}),
        ("labelmap.json", COLOURS, {"#010203": "cat", "#ff0000": "dog"}),
        ("labelmap.json", CATEGORIES, {4: "cat"}),
        ("labelmap.json", '["cat", "dog"]', {0: "cat", 1: "dog"}),
    ],
)
def test_names_of_classes(name, text, names, tmp_path):
    (tmp_path / name).write_text(text, "utf-8")
    assert read_class_names(tmp_path / name).by_value == names


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("classes.txt", b"cat\ncat\n", "has a name or value twice"),
        ("classes.txt", b"1 cat\n1 dog\n", "has a name or value twice"),
        ("classes.txt", b"\n", "names no classes"),
        ("classes.txt", b"\xff\xfe", "is not a list of classes in UTF-8"),
        ("labelmap.json", b'{"cat": ', "is not a list of classes in UTF-8"),
        ("labelmap.json", b"3", "is not a list of classes in UTF-8"),
    ],
)
def test_broken_files_of_names(name, text, says, tmp_path):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(CarvanaError, match=f"{name}: {says}"):
        read_class_names(tmp_path / name)
