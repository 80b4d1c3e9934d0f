"""Tables: a head and a line each, the same bytes on every system."""

from benchmarks.tables import write_csv


def test_a_table_has_a_head_and_its_folder_is_made(tmp_path):
    file = tmp_path / "new" / "numbers.csv"
    write_csv(file, [{"a": 1, "b": "x,y"}, {"a": 2, "b": "é"}])
    assert file.read_bytes() == 'a,b\n1,"x,y"\n2,é\n'.encode()
    write_csv(file, [], ("a", "b"))
    assert file.read_bytes() == b"a,b\n"
