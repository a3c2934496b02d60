"""Append-only files."""

import json

import pytest

from ctbench.results import jsonl


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "records.jsonl"
    records = [{"index": 0, "text": "a\nb ü \u2028"}, {"index": 1, "value": 0.1, "nothing": None}, {}]
    jsonl.append(path, records[:2])
    jsonl.append(path, [])
    jsonl.append(path, records[2:])
    assert jsonl.read(path) == records
    assert path.read_text().count("\n") == 3


def test_no_file_has_no_records(tmp_path):
    assert jsonl.read(tmp_path / "nowhere.jsonl") == []


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "empty").touch()
    assert jsonl.read(tmp_path / "empty") == []


def test_floats_come_back_exactly(tmp_path):
    values = [0.1, 1 / 3, 5e-324, -1.7976931348623157e308, 8 / 255]
    jsonl.append(tmp_path / "f", [{"v": value} for value in values])
    assert [record["v"] for record in jsonl.read(tmp_path / "f")] == values


@pytest.mark.parametrize("cut", range(1, len('{"index": 12}\n') + 1))
def test_a_torn_last_line_is_left_out_wherever_it_was_torn(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    jsonl.append(path, [{"index": 11}, {"index": 12}])
    assert jsonl.torn(path) is None
    path.write_bytes(path.read_bytes()[:-cut])
    assert jsonl.read(path) == [{"index": 11}]
    assert jsonl.torn(path) == (2 if cut < len('{"index": 12}\n') else None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json}", r"records.jsonl, line 2: not a JSON object \(.*\)"),
        ('{"index": 1', r"records.jsonl, line 2: not a JSON object"),
        ("", r"records.jsonl, line 2: not a JSON object"),
        ("[1, 2]", r"records.jsonl, line 2: not a JSON object but list"),
        ("3", r"records.jsonl, line 2: not a JSON object but int"),
        ("null", r"records.jsonl, line 2: not a JSON object but NoneType"),
        ('{"index": 1}{"index": 2}', r"records.jsonl, line 2: not a JSON object"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    path = tmp_path / "records.jsonl"
    path.write_text(f'{{"index": 0}}\n{line}\n{{"index": 3}}\n')
    with pytest.raises(ValueError, match=rf"{message}.*: remove this line, then run the command that wrote the file"):
        jsonl.read(path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"index": 0}\n\xff\xfe\x00\n')
    with pytest.raises(ValueError, match=r"records.jsonl, line 2: not a JSON object"):
        jsonl.read(path)


def test_rewriting_replaces_all_records_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "records.jsonl"
    jsonl.append(path, [{"index": 0}, {"index": 1}])
    jsonl.rewrite(path, [{"index": 5}])
    assert jsonl.read(path) == [{"index": 5}]
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "records.jsonl"
    jsonl.append(path, [{"index": 0}])
    with pytest.raises(TypeError):
        jsonl.rewrite(path, [{"index": {1, 2}}])
    assert jsonl.read(path) == [{"index": 0}]


def test_json_for_people_comes_back(tmp_path):
    content = {"name": "ibp", "list": [1, 2], "nothing": None}
    jsonl.write_json(tmp_path / "a.json", content)
    assert jsonl.read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text() == json.dumps(content, indent=2) + "\n"


def test_a_damaged_json_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"name": ')
    with pytest.raises(ValueError, match=r"a\.json is not a JSON file"):
        jsonl.read_json(tmp_path / "a.json")


def test_appended_records_begin_where_it_says(tmp_path):
    path = tmp_path / "a.jsonl"
    first, second = jsonl.append(path, [{"a": "ä"}, {"b": 2}]), jsonl.append(path, [{"c": 3}])
    assert jsonl.append(path, []) == []
    assert list(jsonl.lines(path)) == list(zip([*first, *second], [{"a": "ä"}, {"b": 2}, {"c": 3}], strict=True))


def test_a_torn_line_is_removed_and_not_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    jsonl.append(path, [{"a": 1}, {"b": 2}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"c"')
    assert (jsonl.count(path), jsonl.torn(path)) == (2, 3)
    jsonl.mend(path)
    assert path.read_bytes() == whole
    assert (jsonl.count(path), jsonl.torn(path)) == (2, None)


def test_a_growing_file_is_read_on_where_it_ended_and_anew_if_it_was_replaced(tmp_path):
    growing = jsonl.Growing(tmp_path / "records.jsonl")
    assert growing.read() == []
    jsonl.append(growing.path, [{"a": 1}, {"a": 2}])
    with growing.path.open("a") as file:
        file.write('{"a": ')
    assert growing.read() == [{"a": 1}, {"a": 2}]
    with growing.path.open("a") as file:
        file.write("3}\n")
    growing.records.append({"kept": True})  # what was read is not read again
    assert growing.read() == [{"a": 1}, {"a": 2}, {"kept": True}, {"a": 3}]
    jsonl.rewrite(growing.path, [{"b": number} for number in range(9)])
    assert growing.read() == [{"b": number} for number in range(9)]
    growing.path.write_text('{"c": 1}\n')  # the same file, cut
    assert growing.read() == [{"c": 1}]
