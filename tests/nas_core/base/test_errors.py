"""Errors: they travel between processes whole, and never with a password."""

import pickle

import pytest

from nas_core.base.errors import LONGEST, ClusterError, DataError, without_passwords


def test_errors_survive_the_way_from_a_worker():
    error = ClusterError("where", 3, "what", "advice")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "where: found 3, expected what. advice"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:s3cret@host:1/x", "http://host:1/x"),
        ("http://u:s3cret@host/x?to=http://y", "http://host/x?to=http://y"),
        ("at http://u:s3cret@a and s3://k:s3cret@b", "at http://a and s3://b"),
        ("postgresql://h/db?password=s3cret&x=1", "postgresql://h/db?password=***&x=1"),
        ("api_token=s3cret", "api_token=***"),
        ("mathnas: host:6379 is not there", "mathnas: host:6379 is not there"),
    ],
)
def test_no_password_is_shown(text, shown):
    assert without_passwords(text) == shown
    assert "s3cret" not in str(ClusterError(text, text, text, text))


@pytest.mark.situations
@pytest.mark.parametrize("long", ["where", "found", "expected", "advice"])
def test_no_message_is_longer_than_a_page(long):
    words = {"where": "scorer.path t.json", "found": "12", "expected": "a number", "advice": "Mend it."}
    error = DataError(**{**words, long: "start " + "x" * 312_558 + " end"})
    text = str(pickle.loads(pickle.dumps(error)))
    assert len(text) <= LONGEST
    assert "start" in text
    assert "end" in text
    assert "(312,568 characters)" in text
    assert all(value in text for name, value in words.items() if name != long)


@pytest.mark.situations
def test_all_parts_of_a_message_may_be_long():
    assert len(str(DataError("w" * 9999, list(range(100_000)), "e" * 9999, "a" * 9999))) <= LONGEST
    fits = str(DataError("w" * 900, "f", "e" * 900))
    assert "characters)" not in fits


@pytest.mark.situations
def test_a_message_is_one_line_whatever_names_are_in_it():
    error = DataError("table x.csv", "the column a\nb", "of: a\r\nb, c\u2028d", "Name it\nagain.")
    assert str(error) == "table x.csv: found the column a b, expected of: a b, c d. Name it again."
