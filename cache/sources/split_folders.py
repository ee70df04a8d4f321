"""Which of a place's folders are splits, by what they are called and whether there are folders in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cache.runtime.errors import UserError
from cache.sources.splits import HELD_OUT, POOL, SPLITS, held_out_first, split_name, splits_called


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFolders:
    """The folders directly in a ``place``, and a function that says whether there are folders in one."""

    place: str
    folders: Sequence[str]
    has_folders: Callable[[str], bool]

    @property
    def _called(self) -> dict[str, str]:
        """The split that each folder is called as, :data:`HELD_OUT` for that, '' for none."""
        return dict(zip(self.folders, splits_called(self.folders), strict=True))

    def called(self, split: str) -> list[str]:
        """Return the folders that are called as a split; of what is held out ``val`` comes first."""
        names = [name for name, own in self._called.items() if own == split]
        return held_out_first(names) if split == HELD_OUT else names

    def pool(self) -> list[str]:
        """Return the folder of the pool, one at most."""
        pools = self.called(POOL)
        return [self._one_of(POOL, pools)] if pools else []

    def taken(self) -> dict[str, str]:
        """Return ``{split or "val": its folder}`` where folders are splits, and nothing where they are not.

        A class may be called ``train``: beside other folders one is a split only if there are folders in it.

        Raises
        ------
        UserError
            If two are one split.
        """
        called = self._called
        labelled = [name for name, split in called.items() if split and split != POOL]
        if not labelled or ("" in called.values() and not any(map(self.has_folders, labelled))):
            return {}
        folders = {split: self.called(split) for split in called.values() if split}
        # Beside val one may hold images without labels, as those of a competition: it needs class folders.
        held_out = [
            name for name in folders.pop(HELD_OUT, ()) if name.lower() == HELD_OUT or self.has_folders(name)
        ]
        if held_out:
            folders[HELD_OUT] = [name for name in held_out if name.lower() == held_out[0].lower()]
        return {
            split: self._one_of(split, folders[split])
            for split in sorted(folders, key=lambda split: SPLITS.index(split_name(split)))
        }

    def notes(self, taken: Mapping[str, str]) -> list[str]:
        """Return lines on what is called as held out, and is not among the folders that are taken."""
        why = f"{taken[HELD_OUT]} is" if HELD_OUT in taken else "it has no class folders"
        return [
            f"{self.place}/{name} is not taken: {why} "
            f"(id_test={self.place}/{name} or pool={self.place}/{name} takes it)"
            for name in self.called(HELD_OUT)
            if taken and name not in taken.values()
        ]

    def _one_of(self, split: str, folders: Sequence[str]) -> str:
        if len(folders) > 1:
            raise UserError(
                f"{self.place} has two folders of the split {split_name(split)}: {' and '.join(folders)}",
                fix="make them one, or take one of them out.",
            )
        return folders[0]
