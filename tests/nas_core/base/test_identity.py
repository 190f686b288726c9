"""Files are known by what they hold, folders by that of what is a user's own in them."""

from nas_core.base.identity import LOCK, files_below, hash_of_files


def test_what_a_study_writes_in_a_folder_is_no_part_of_it(tmp_path):
    for name in ("main.c", "deep/more.c", ".hidden", "__pycache__/main.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    before = hash_of_files(str(tmp_path))
    assert [path.name for path in files_below(tmp_path)] == ["more.c", "main.c"]
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / LOCK).write_text("")
    (tmp_path / "root" / "evaluations").write_text("rows")  # a study that was run in there
    assert hash_of_files(str(tmp_path)) == before
    (tmp_path / "deep" / "more.c").write_text("another")
    assert hash_of_files(str(tmp_path)) != before
    assert hash_of_files(str(tmp_path / "main.c")) not in ("", before)
    assert hash_of_files(str(tmp_path / "none")) == ""
