"""What is typed wrongly is one line and exit code 2, and says what is allowed."""

import pytest

from tests.command import mathnas

pytestmark = pytest.mark.situations


def said(*arguments):
    done = mathnas(*arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("option", [("--top", "0"), ("--time", "-1"), ("--min-distance", "none")])
def test_an_options_wrong_value(option):
    line = said("select", "x", *option)
    assert line.startswith(f"mathnas: '{option[0]}': ")
    assert line.endswith("; `mathnas select --help` says what is allowed")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("runn",),
            "no such command 'runn', expected one of: init, spaces, run, shrink, export, measure, run-design, ",
        ),
        (("run", "--form", "score"), "run: no such option --form, expected one of: --root, --set, --from, --until, "),
        (("run-design", "--top", "3"), "run-design: no such option --top, expected one of: --root, --set, --wait, "),
        (("--version",), "no such option --version, expected one of: --help"),
        (("select", "x", "--top"), "option '--top' requires an argument; `mathnas select --help` says what is allowed"),
        (("run",), "missing argument 'config'; `mathnas run --help` says what is allowed"),
        (("status", "x", "y"), "got unexpected extra argument(s) (y); `mathnas status --help` says what is allowed"),
    ],
)
def test_a_wrong_name_or_number_of_words(arguments, expected):
    assert said(*arguments).startswith(f"mathnas: {expected}")


def test_the_list_of_commands_is_shown_without_any_and_no_line_of_it_is_cut():
    done = mathnas()
    assert "run-design   Design a network by solving its program, train it, register its" in done.stderr
    assert "model: each as far as it is missing." in done.stderr
    assert "..." not in done.stderr.partition("Commands:")[2]
