"""Tables of releases: columns by name, odd rows, gzip, packing; splits by hash; groups."""

import gzip

import pytest
from ml_collections import ConfigDict

from data_prep.sources.shared.official import check_shares, group, keep_view, share, split_by_share
from data_prep.sources.shared.tables import Packed, Row, need_table, parse_label, parse_sex, parse_years, read_table
from data_prep.study import Study
from lgdea_jax.cli import UserError


def write(path, text, **how):
    data = text.encode("utf-8", "surrogateescape")
    path.write_bytes(gzip.compress(data) if how.get("gz") else data)
    return path


def test_columns_by_name_and_row_numbers(tmp_path):
    path = write(tmp_path / "a.csv.gz", "\ufeffb, a ,c\n1,2,3\n\n4,\"5\n6\",7\n", gz=True)
    rows = list(read_table(path, ("a", "b"), ("d",)))
    assert [row.cells for row in rows] == [{"a": "2", "b": "1", "d": ""}, {"a": "5\n6", "b": "4", "d": ""}]
    assert [row.number for row in rows] == [2, 4] and not any(row.fault for row in rows)


def test_rows_of_another_length(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,\n1,2,\n1,2\n1,2,,,\n1,2,x\n1\n")
    assert [row.fault for row in read_table(path, ("a", "b"))] == [
        "", "", "", "3 cells where the header has 2", "1 cells where the header has 2"]


def test_text_that_is_not_utf8(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\ncaf\udce9,1\nfine,2\n")
    assert [row.fault for row in read_table(path, ("a",))] == ["unreadable text: not UTF-8", ""]
    # In a column that nobody asked for it does no harm.
    assert [row.fault for row in read_table(path, ("b",))] == ["", ""]


def test_tables_that_are_none(tmp_path):
    path = write(tmp_path / "a.csv", "a,a\n1,2\n")
    with pytest.raises(UserError, match="the column 'a' more than once"):
        list(read_table(path, ("a",)))
    with pytest.raises(UserError, match=r"no column 'b' \(it has: a, a\)"):
        list(read_table(path, ("b",)))
    with pytest.raises(UserError, match="it has: nothing"):
        list(read_table(write(tmp_path / "b.csv", ""), ("b",)))
    whole = gzip.compress(b"a\n" + b"1\n" * 9999)
    (tmp_path / "c.csv.gz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match=r"c\.csv\.gz is truncated or damaged"):
        list(read_table(tmp_path / "c.csv.gz", ("a",)))
    (tmp_path / "d.csv.gz").write_bytes(b"a\n1\n")
    with pytest.raises(UserError, match="truncated or damaged"):
        list(read_table(tmp_path / "d.csv.gz", ("a",)))


def test_names_with_and_without_gz(tmp_path):
    path = write(tmp_path / "a.csv", "a\n")
    assert need_table(tmp_path, "a.csv.gz") == path
    with pytest.raises(UserError, match=r"no b\.csv in .* \(did you mean 'a\.csv'"):
        need_table(tmp_path, "b.csv")


def test_packed_rows_come_back(tmp_path):
    table = Packed(("a", "b"))
    rows = [Row(2, {"a": "x\x1fy", "b": "", "c": "dropped"}), Row(7, {"a": "caf\udce9", "b": "ü\n"}, "a fault")]
    for row in rows:
        table.append(row)
    assert len(table) == 2
    assert table[0] == Row(2, {"a": "x y", "b": ""}) and table[1] == rows[1]


@pytest.mark.parametrize(("cell", "label"), [("1.0", 1), ("0", 0), ("-1.0", -1), ("", -2), ("nan", -2), ("2", None),
                                             ("yes", None), ("0.5", None)])
def test_labels(cell, label):
    assert parse_label(cell) == label


def test_people():
    assert [parse_sex(cell) for cell in ("Male", "F", "female", "O", "Unknown", "")] == ["M", "F", "F", "", "", ""]
    assert parse_years("90.0") == 90 and all(parse_years(cell) != parse_years(cell) for cell in ("", "411", "-1", "x"))


def test_views():
    assert keep_view("", "all") and keep_view("LATERAL", "all")
    views = ("PA", "ap", "FRONTAL", "LL", "")
    assert [keep_view(view, "frontal") for view in views] == [True, True, True, False, False]
    with pytest.raises(UserError, match="unknown views 'front'"):
        keep_view("PA", "front")


def test_shares_are_kept_and_stable():
    config = ConfigDict({"validation": 0.2, "test": 0.1, "seed": 0})
    splits = [split_by_share(str(i), config) for i in range(4000)]
    counts = {name: splits.count(name) / 4000 for name in ("test", "validation", "train")}
    assert counts == pytest.approx({"test": 0.1, "validation": 0.2, "train": 0.7}, abs=0.02)
    assert share("1", 0) == share("1", 0) != share("1", 1)
    with pytest.raises(UserError, match="leave room for training"):
        check_shares(ConfigDict({"validation": 0.6, "test": 0.6}), "x")


class Reader:
    label_names = ("A",)

    def study(self, split, rows):
        return Study(rows[0]["s"], "p", split, report="x")


def identity(row):
    return row["s"], ""


def test_groups_keep_the_order_and_bad_rows_apart():
    table = Packed(("s",))
    for number, (name, fault) in enumerate([("b", ""), ("a", ""), ("b", ""), ("b", "bad"), ("c", "")], start=2):
        table.append(Row(number, {"s": name}, fault))
    splits = group(Reader(), table, study=["b", "a", "b", "", "c"], subject=["1", "2", "1", "", "3"],
                   split=["train", "train", "train", "train", "test"], identity=identity)
    train = splits["train"]
    found = [(train[i].study_id, train[i].rows, train[i].row) for i in range(3)]
    assert found == [("b", 2, 2), ("a", 1, 3), ("b", 1, 5)]
    assert train[2].rejections[0].reason == "bad" and train[2].rejections[0].row == 5
    assert len(splits["test"]) == 1 and len(splits["validation"]) == 0
    with pytest.raises(UserError, match="row 6: the subject lies both in train and in test"):
        group(Reader(), table, study=["b", "a", "b", "", "c"], subject=["1", "2", "1", "", "1"],
              split=["train", "train", "train", "train", "test"], identity=identity)
    with pytest.raises(UserError, match="no rows"):
        group(Reader(), Packed(("s",)), study=[], subject=[], split=[], identity=identity)
