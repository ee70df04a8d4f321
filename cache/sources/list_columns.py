"""What the columns of a list or a table of pictures are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache.runtime.errors import UserError, nearest_names, some_of

# What a column is usually called, in the order that they are looked for; case makes no difference.
USUAL = {
    "image": (),
    "path": ("path", "filepath", "file_path", "filename", "file_name", "file", "image_path", "url", "image"),
    "label": ("label", "labels", "class", "class_name", "category", "target", "fine_label"),
    "split": ("split", "subset"),
    "key": ("key", "image_id"),
    "caption": ("caption", "text", "title"),
}
# Of so many columns an error names the names.
_NAMED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What the columns of a list are called; '' where there is none, and of those that are looked for.

    ``image`` holds pictures themselves, and ``path`` where they lie.
    """

    path: str = ""
    image: str = ""
    label: str = ""
    split: str = ""
    key: str = ""
    caption: str = ""

    @property
    def several(self) -> bool:
        """Whether a text in the column of labels may hold several, by the column's name."""
        return self.label.lower() == "labels"

    @property
    def names(self) -> list[str]:
        """The columns that are read to list it: all but that of the pictures."""
        some = (self.path, self.label, self.split, self.key, self.caption)
        return [*dict.fromkeys(name for name in some if name)]

    @classmethod
    def among(
        cls, names: Sequence[str], given: Columns, place: str, *, images: Sequence[str] = ()
    ) -> Columns:
        """Return the columns of a list that has these ``names``, of which ``images`` hold pictures.

        Raises
        ------
        UserError
            If one that is given is not there, or none has pictures or looks like paths.
        """
        chosen: dict[str, str] = {}
        by_name = {name.lower(): name for name in reversed(names) if name not in images}
        for what, usual in USUAL.items():
            name = getattr(given, what)
            if name and name not in (images if what == "image" else names):
                absent = f"no pictures in its column {name!r}" if name in names else f"no column {name!r}"
                raise UserError(
                    f"{place} has {absent} (it has {_some(names)})",
                    fix=f"{nearest_names(name, {*names} - {name})}give --{what}-column one of these.",
                )
            chosen[what] = name or next((by_name[one] for one in usual if one in by_name), "")
            if names.count(chosen[what]) > 1:
                raise UserError(f"{place} has two columns {chosen[what]!r}", fix="rename one of them.")
        if not given.image and not given.path and images:
            chosen["image"] = "image" if "image" in images else images[0]
        if not chosen["path"] and not chosen["image"]:
            raise UserError(
                f"{place} has no column of pictures or paths (it has {_some(names)})",
                fix=f"call one {USUAL['path'][0]!r}, or name it with --path-column; pictures are bytes.",
            )
        return cls(**chosen)


AS_USUAL = Columns()


def _some(names: Sequence[str]) -> str:
    return some_of([*map(repr, names[:_NAMED])], _NAMED, of=len(names)) or "none"
