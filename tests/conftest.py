"""Small real things: image folders, a teacher saved to disk, caches made from them."""

from __future__ import annotations

import gc
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch: tests run side by side, and threads that outnumber cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from helpers.once import made_once
from PIL import Image

# Nothing of ours, and no torch: of tests side by side the process that starts the others would wait for it too.
if TYPE_CHECKING:
    from cache import EmbeddingCache

with suppress(ImportError):  # the tests on a GPU need no hypothesis
    from hypothesis import settings

    settings.load_profile("ci")  # the same examples every time, and no clock

# Nobody cuts the power here, and a disk takes milliseconds for each of thousands of files; a closed one fails still.
os.fsync = os.fstat  # type: ignore[assignment]

ID_CLASSES, OOD_CLASSES = ("apple", "banana", "cherry"), ("lemon", "plum")
COLOURS = {
    "apple": (200, 40, 40),
    "banana": (220, 200, 40),
    "cherry": (120, 10, 40),
    "lemon": (240, 240, 90),
    "plum": (90, 40, 120),
}
EMBED_DIM = 16
ROOT = Path(__file__).parent.parent
REAL_PHOTOS = Path(__file__).parent.parent.parent / "shared" / "data"
# Fixtures that several files of tests share.
pytest_plugins = [
    "helpers.identity_runs",
    "helpers.processes",
    "helpers.report_runs",
    "helpers.split_runs",
    "helpers.sweeps",
    "helpers.whole_caches",
]


def pytest_configure(config: pytest.Config) -> None:
    """Give tests side by side one process to fork."""
    from helpers.processes import SERVER, server

    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        os.environ[SERVER] = server()


def pytest_collection_finish() -> None:
    """Keep what is imported out of every later collection of garbage, which a command does once when it fails."""
    gc.collect()
    gc.freeze()


def write_image(path: Path, colour: tuple[int, int, int], rng: np.random.Generator, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (np.array(colour) + rng.normal(0, 25, size=(side, side, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


class Counted:
    """A progress that keeps what it was told: of every piece of work what was to come and what was done, and notes."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.works: list[str | None] = []
        self.done: list[int] = []
        self.notes: list[str] = []

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        if total is None:  # nobody knows how much it is
            return
        self.totals.append(total)
        self.works.append(what)
        self.done.append(0)

    def advance(self, images: int) -> None:
        self.done[-1] += images

    def note(self, message: str) -> None:
        self.notes.append(message)


def make_photos(root: Path, *, train: int = 8, test: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for folder, classes, count in (
        ("train", ID_CLASSES, train),
        ("val_on_train", ID_CLASSES, test),
        ("val", OOD_CLASSES, test),
    ):
        for name in classes:
            for i in range(count):
                write_image(root / folder / name / f"{folder}_{i}.jpg", COLOURS[name], rng)
    names = sorted({*ID_CLASSES, *OOD_CLASSES})
    (root / "label2text.txt").write_text("".join(f"{n} {i} {n}\n" for i, n in enumerate(names, start=1)))
    (root / "chatgpt.txt").write_text("\n".join(f"A {n} is a fruit." for n in names) + "\n")
    return root


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("drawn") / "photos")


@pytest.fixture
def photos(tmp_path: Path, drawn_photos: Path) -> Path:
    """An image folder of five classes."""
    # Not with their times: they are of now, as those of files just written.
    return shutil.copytree(drawn_photos, tmp_path / "photos", copy_function=shutil.copyfile)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; foreign code that is run in it leaves a file ``marker``."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_jpeg():
    """A function (path, colour) that writes one small JPEG."""
    rng = np.random.default_rng(1)
    return lambda path, colour=(10, 200, 30): write_image(path, colour, rng)


@pytest.fixture(scope="session")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small CLIP with random weights, saved as open_clip's local-dir; to be read."""
    from helpers.teachers import save_clip

    def save(folder: Path) -> None:
        save_clip(folder / "clip", seed=0, text={"layers": 1})

    return made_once(tmp_path_factory, "teacher", save) / "clip"


@pytest.fixture(scope="session")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small drawn episodes, to be read."""
    from distill.demo.episodes import draw_episodes

    def draw(folder: Path) -> None:
        draw_episodes(folder, image_size=32, train=16, id_test=6, ood_test=14)

    return made_once(tmp_path_factory, "episodes", draw)


@pytest.fixture(scope="session")
def episode_cache(tmp_path_factory: pytest.TempPathFactory, episodes: Path, teacher_dir: Path) -> Path:
    """A finished cache of ``episodes`` with regions and the text tower, to be read."""
    from cache.build.from_episodes import EpisodeOptions, cache_episode_features

    options = EpisodeOptions(
        model=f"local-dir:{teacher_dir}", device="cpu", workers=0, regions=True, keep_text_tower=True
    )

    def build(folder: Path) -> None:
        cache_episode_features(episodes, folder / "cache", options)

    return made_once(tmp_path_factory, "episode_cache", build) / "cache"


def make_cache(
    out: Path, photos: Path, *, captions: bool = False, dtype: str = "float32", seed: int = 0
) -> EmbeddingCache:
    """A cache whose rows lie near their class's text, so that there is something to learn."""
    from cache import EmbeddingCache
    from cache.maintain.import_embeddings import import_embeddings
    from cache.maintain.imported import Imported
    from cache.maintain.imported_banks import ImportedTexts
    from cache.sources.data import open_data

    rng = np.random.default_rng(seed)
    folder = open_data([photos])
    texts = {name: rng.normal(size=EMBED_DIM) for name in folder.class_names}
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    rows = np.stack([2 * texts[key.split("/")[1]] + rng.normal(size=EMBED_DIM) for key in keys]).astype(
        "float32"
    )
    bank = ImportedTexts(name="labels", classes=list(texts), embeddings=np.stack(list(texts.values())))
    import_embeddings(
        out,
        Imported(
            keys=keys,
            embeddings=rows,
            texts=[bank],
            folder=folder,
            dtype=dtype,
            caption_embeddings=rows + rng.normal(size=rows.shape).astype("float32") if captions else None,
        ),
    )
    return EmbeddingCache.open(out)


@pytest.fixture(scope="session")
def drawn_cache(tmp_path_factory: pytest.TempPathFactory, drawn_photos: Path) -> Path:
    """A finished cache of ``drawn_photos`` with captions, to be copied."""
    return make_cache(tmp_path_factory.mktemp("drawn_cache") / "cache", drawn_photos, captions=True).path


@pytest.fixture
def cached(tmp_path: Path, photos: Path, drawn_photos: Path, drawn_cache: Path) -> EmbeddingCache:
    """A finished cache of ``photos`` with captions."""
    from cache import EmbeddingCache

    drawn = _files_of(drawn_photos)
    if _files_of(photos) != drawn:  # a test has its own
        return make_cache(tmp_path / "cache", photos, captions=True)
    for name in drawn:  # rows know the times of their photos
        shutil.copystat(drawn_photos / name, photos / name)
    return EmbeddingCache.open(shutil.copytree(drawn_cache, tmp_path / "cache"))


def _files_of(folder: Path) -> dict[str, int]:
    """The size of each file below a folder."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, teacher_dir: Path) -> Path:
    """A folder with photos, a cache that keeps its text tower, and a run; to be read."""
    from helpers.exported import SMALL

    from cache.build.from_folder import FeatureOptions, cache_features
    from distill.config import RunConfig
    from distill.settings import with_settings
    from distill.train.start import train as run

    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, keep_text_tower=True)

    def make(root: Path) -> None:
        photos = make_photos(root / "photos")
        cache_features(photos, root / "cache", options)
        run(with_settings(RunConfig(), SMALL), cache_dir=root / "cache", data_dir=photos, out=root / "run")

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """All that can be exported, with the preprocessing in the graph; to be read."""
    from distill.deploy.export import export_run
    from distill.deploy.export_options import ExportOptions

    options = ExportOptions(
        formats=("onnx", "torch", "safetensors", "open_clip", "timm"),
        precisions=("float32", "float16", "int8"),
        preprocessing="graph",
        license="mit",
    )
    folder = made_once(
        tmp_path_factory, "exported", lambda root: export_run(trained / "run", root / "graph", options)
    )
    return folder / "graph"


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """What is exported unless more is asked for; to be read."""
    from distill.deploy.export import export_run

    folder = made_once(tmp_path_factory, "plain", lambda root: export_run(trained / "run", root / "plain"))
    return folder / "plain"
