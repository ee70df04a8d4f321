"""open_clip's sets of templates by name."""

from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from cache.teacher.templates import SETS, templates_of


def test_a_set_is_its_templates_beside_texts_of_ones_own():
    made = templates_of(["openai_imagenet", "my {}"])
    assert (len(made), len({*made}), made[-1]) == (81, 81, "my {}")
    assert "a bad photo of a {}." in made
    assert all(one.count("{}") == 1 for name in SETS for one in templates_of([name]))


def test_what_is_neither_is_one_line_that_names_the_sets():
    with pytest.raises(UserError, match=r"no set.*did you mean 'openai_imagenet'"):
        templates_of(["openai_imagnet"])
