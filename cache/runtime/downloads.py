"""Weights from elsewhere: fetched to where their library looks for them, with size, rate and time left."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.request import Request, build_opener

from cache.runtime.amounts import BYTES
from cache.runtime.atomic_files import replacing
from cache.runtime.progress import Silent, progress_for

# Smaller files are here before anybody waits: configs, tokenizers.
LARGE = 5_000_000
BLOCK = 1 << 20
# Of a server that says nothing.
SECONDS = 60.0


def hub_file(repository: str, name: str, *, fetch: bool = True) -> Path:
    """Return a file of a repository of the Hugging Face hub, from its client's own cache or fetched into it.

    Without ``fetch`` nobody is asked for one that is not here. Raises what the hub's client does, which has a
    family of errors of its own.
    """
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, tqdm_class=_bar_of(name), local_files_only=not fetch))


def url_file(url: str, file: Path, *, begins: str = "") -> Path:
    """Return ``file``, which is fetched from an address where it is not there: whole, or not at all.

    ``begins`` are the first digits of its SHA-256, where they are known.

    Raises
    ------
    OSError
        If the address cannot be read to its end, or what is there has another checksum.
    """
    if file.exists():
        return file
    request = Request(url, headers={"User-Agent": "distill"})
    with (
        # An opener of its own: the shared one asks for ever the proxy that was set when it was first used.
        build_opener().open(request, timeout=SECONDS) as source,
        replacing(file) as temporary,
        open(temporary, "wb") as out,
        closing(progress_for(f"downloading {file.name}", BYTES)) as progress,
    ):
        total, done, digest = int(source.headers.get("Content-Length") or 0), 0, sha256()
        progress.start(total or None)
        while block := source.read(BLOCK):
            out.write(block)
            digest.update(block)
            done += len(block)
            progress.advance(len(block))
        if done < total:
            raise OSError(f"{url} ended after {done:,} of {total:,} bytes")
        if not digest.hexdigest().startswith(begins):
            raise OSError(f"{url} has the checksum {digest.hexdigest()[:16]}..., expected {begins[:16]}")
    return file


def _bar_of(name: str) -> Any:
    """Return what the hub's client makes in place of its own bar."""
    from tqdm import tqdm

    class Told(tqdm):  # type: ignore[type-arg]
        """Hands what it is told on to a progress of ours; the client makes one for each try."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            left = (self.total or 0) - self.n
            self._told = progress_for(f"downloading {name}", BYTES) if left >= LARGE else Silent()
            self._told.start(int(left))

        def update(self, n: float | None = 1) -> bool | None:
            """Take ``n`` more bytes, which are on the disk."""
            self.n += n or 0
            self._told.advance(int(n or 0))
            return None

        def update_transfer(self, n: float) -> None:
            """Say nothing of what came over the network; without this the client makes a second bar."""

        def close(self) -> None:
            """Leave it as it stands."""
            self._told.close()

    return Told
