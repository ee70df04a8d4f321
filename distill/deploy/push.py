"""A model's folder to the Hugging Face hub: what ``export --push ORG/NAME`` does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.runtime.errors import UserError, WrongOption, reason_of

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NO_RIGHT, NO_TOKEN = 403, 401


def check_push(name: str) -> None:
    """Make sure, before any work, that a hub answers and knows who asks.

    Raises
    ------
    WrongOption
        If ``name`` is no ``ORG/NAME``.
    UserError
        If there is no token, the hub refuses it, or does not answer.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise WrongOption(f"--push is {name!r:.100}", fix="give ORG/NAME, a repository of the hub.")
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise _no_token(name, "there is no token")
    with _told(name):
        HfApi().whoami()


def push(folder: Path, name: str) -> str:
    """Upload a model's folder to a repository of the hub, and return its address.

    One that is not there is made, and is private: training images may lie in the folder. UserError if the hub
    refuses it or does not answer.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _told(name, folder):
        made = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="distill export")
    return str(made)


@contextmanager
def _told(name: str, folder: Path | None = None) -> Iterator[None]:
    """Turn what the hub's client raises into one line; what is written stays."""
    again = f"; {folder} is whole: 'hf upload {name} {folder}' sends it" if folder is not None else ""
    try:
        yield
    # The hub's own, the network's, and those of what speaks HTTP, which is another in each version.
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == NO_TOKEN:
            raise _no_token(name, f"the hub refuses the token{again}") from error
        if status == NO_RIGHT:
            raise UserError(
                f"the hub does not let this token write {name}{again}",
                fix="name a repository of your own or of your organisation, and give the token write access.",
            ) from error
        if status is not None:
            raise UserError(
                f"the hub refuses {name} ({reason_of(error)}){again}", fix="see what it says, and try again."
            ) from error
        if not isinstance(error, OSError) and "http" not in type(error).__module__:
            raise
        raise UserError(
            f"the hub cannot be reached to push {name} ({reason_of(error)}){again}",
            fix="connect to the network (or set HF_ENDPOINT, unset HF_HUB_OFFLINE), or leave --push out.",
        ) from error


def _no_token(name: str, why: str) -> UserError:
    return UserError(
        f"{name} cannot be pushed: {why}",
        fix="run 'hf auth login', or set HF_TOKEN, with a token that may write.",
    )
