"""Errors: they travel between processes whole, and never with a password."""

import pickle

import pytest

from nas_core.base.errors import ClusterError, without_passwords


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
