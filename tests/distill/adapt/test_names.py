from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from cache.sources.names import lines_of
from distill.adapt.names import names_to_tell_apart


def names_of(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return names_to_tell_apart(lines_of(path))


def test_a_folder_or_a_cell_means_a_name_whatever_its_capitals_and_signs(tmp_path):
    names = names_of(tmp_path, "Red Star\n\n  route   66 sign \nAC/DC\n")
    assert names.words == ("Red Star", "route 66 sign", "AC/DC")
    assert names.classes == ("Red_Star", "route_66_sign", "AC_DC")
    assert [names.find(text) for text in ("red_star", "RED-STAR", "ac dc", "red", "")] == [
        "Red_Star", "Red_Star", "AC_DC", "", "",
    ]  # fmt: skip


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert names_of(tmp_path, "﻿apple\nplum\n").words == ("apple", "plum")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no name, and there is nothing to tell apart"),
        ("\n \n", "has no name"),
        ("apple\n", r"is one name alone \('apple'\)"),
        ("apple\nplum\nAPPLE\n", "has a name twice: 'apple', 'APPLE'"),
        ("red star\nplum\nred_star\n", "has a name twice: 'red star', 'red_star'"),
        ("apple\n..\n", "is called"),
        ("apple\n__\n", "has '__', which is no name"),
        ("apple\nplüm\n".encode("utf-16"), "is not UTF-8 text"),
        ("apple\nplüm\n".encode("utf-16-le"), "is not UTF-8 text"),
        ("apple\nplüm\n".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_a_list_that_says_nothing_to_tell_apart_is_refused(tmp_path, content, said):
    with pytest.raises(UserError, match=said):
        names_of(tmp_path, content)
