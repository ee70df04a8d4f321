"""Files of ``local-dir:FOLDER`` and ``hf-hub:ORG/REPO``, and the config that says whose model it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache.runtime.downloads import hub_file
from cache.runtime.errors import UserError, reason_of
from cache.runtime.system_errors import kept_fix
from cache.store.spec import HF_HUB, LOCAL_DIR

# Of open_clip's models; of transformers' and timm's.
OPEN_CLIP_CONFIG, CONFIG = "open_clip_config.json", "config.json"


def file_of(model: str, *names: str) -> Path | None:
    """Return the first of some files that a folder has, or a repository, from which it is downloaded.

    None where it has none of them.

    Raises
    ------
    UserError
        If the folder or the repository is not there, or cannot be reached and its files are not here.
    """
    if model.startswith(LOCAL_DIR):
        files = (Path(model.removeprefix(LOCAL_DIR)) / name for name in names)
        return next((file for file in files if file.is_file()), None)
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return hub_file(model.removeprefix(HF_HUB), *names)
    except LocalEntryNotFoundError as error:
        raise unreachable(model, error) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # the hub's client has a family of errors of its own
        raise unreachable(model, error) from error


def unreachable(model: str, error: BaseException) -> UserError:
    """Return what is said of a repository that cannot be fetched from."""
    return UserError(
        f"{model} could not be fetched ({reason_of(error)})",
        fix=kept_fix(error)
        or "check the name and the network, or download the folder and give local-dir:FOLDER.",
    )


def config_of(model: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the config that a folder or repository has, and what a ``config.json`` says.

    An open_clip config goes before a ``config.json`` beside it, and is not read here.

    Raises
    ------
    UserError
        If it has neither, or cannot be had, or its ``config.json`` is no table.
    """
    # Away from the network a repository of another library is here without the first.
    file = file_of(model, OPEN_CLIP_CONFIG, CONFIG)
    if file is None:
        folder = Path(model.removeprefix(LOCAL_DIR))
        is_here = model.startswith(HF_HUB) or folder.is_dir()
        raise UserError(
            f"{model.removeprefix(LOCAL_DIR)} "
            f"{f'has no {OPEN_CLIP_CONFIG} and no {CONFIG}' if is_here else 'does not exist'}",
            fix=f"give a folder with {OPEN_CLIP_CONFIG}, or a {CONFIG} of transformers or timm.",
        )
    return file.name, json_of(file) if file.name == CONFIG else {}


def json_of(file: Path) -> dict[str, Any]:
    """Return the table in a JSON file; UserError where it holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is not valid JSON ({reason_of(error)})", fix="save the model's config again."
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{file} is no table", fix="save the model's config again.")
    return value
