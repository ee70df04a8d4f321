"""The account of a cache: what of its data has no row, by reason."""

from __future__ import annotations

from cache.sources.accounts import Account, Reason
from cache.store.journal import Journal
from cache.store.manifest import Manifest


def accounts_of(manifest: Manifest, journal: Journal) -> dict[str, Account]:
    """Return what was left out of the splits: what a source did, and what could not be decoded."""
    accounts = {
        split: Account(manifest.left_out.get(split, {}))
        + Account.of((_reason_of(image.reason), key) for key, image in journal.skipped.get(split, {}).items())
        for split in dict.fromkeys((*manifest.splits, *manifest.left_out))
    }
    return {split: account for split, account in accounts.items() if account.count}


def _reason_of(words: str) -> Reason:
    """Return why an image could not be decoded: its words begin so, unless it is broken."""
    return next((reason for reason in Reason if words.startswith(reason.value)), Reason.UNREADABLE)
