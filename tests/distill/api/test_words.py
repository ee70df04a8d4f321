from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from distill.api.words import in_python, told_in_python


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("choose another --out, or leave --keep-text-tower out.", "choose another out, or leave keep_text_tower out."),
        ("continue that run with --resume.", "continue that run with resume=True."),
        ("--template '{}' is no set", "templates '{}' is no set"),
        ("use --device cpu, --lr 0.1 or --start scratch.", 'use device="cpu", optim.lr=0.1 or student.start="scratch".'),
        ("train with --set data.id_val=0.1, or else.", 'train with settings={"data.id_val": 0.1}, or else.'),
        ("write --set optim.name=sgd.", 'write settings={"optim.name": "sgd"}.'),
        ("run 'distill train CACHE --out RUN' again.", "run 'distill train CACHE --out RUN' again."),
        ("(cache-features --captions) or --out", "(cache-features --captions) or out"),
        ("raise it (of a container --shm-size)", "raise it (of a container --shm-size)"),
    ],
)  # fmt: skip
def test_an_option_is_told_as_the_argument_or_setting_that_stands_for_it(said, told):
    kinds = dict.fromkeys(("out", "device", "templates", "settings"), str) | {
        "keep_text_tower": bool,
        "resume": bool,
    }
    assert in_python(said, kinds=kinds) == told


def test_an_error_keeps_its_kind_and_an_argument_that_is_none_is_pythons_own_error():
    class Mine(UserError):
        pass

    @told_in_python()
    def function(out: str = "", settings: str = "") -> None:
        raise Mine("--out is full", fix="empty it.")

    with pytest.raises(Mine, match=r"^out is full\. Fix: empty it\.$") as error:
        function()
    assert error.value.problem == "out is full"
    for wrong, meant in (("outs", "did you mean 'out'"), ("lr", '"optim.lr": ...')):
        with pytest.raises(
            TypeError, match=rf"function\(\) got an unexpected keyword argument '{wrong}': .*{meant}"
        ):
            function(**{wrong: 1})
