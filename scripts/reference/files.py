"""The page of files: what lies in a cache and in a run's folder.

Names and versions are the code's; a test makes both folders and looks for every file of theirs on the page.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from cache.store import manifest
from distill.record import run_files
from distill.record.mlflow_board import ID as MLFLOW_ID
from distill.record.wandb_board import ID as WANDB_ID

CACHE = f"""# Files

## A cache

A folder of plain files: HDF5, JSON, and with `--format webdataset` tars. Nothing of the number of images is rewritten
when more are added.

| file | what it is |
|---|---|
| `{manifest.NAME}` | what the cache is: teacher, sha256 of its weights, preprocessing, classes, columns, text banks, and how many rows of each split the journal lists; of one size |
| `journal/WRITER.jsonl` | a line a file: size, sha256, rows, what made it; images that were skipped, rows that are gone. What no line lists is not there |
| `rows/SPLIT-00000/keys.h5` | a row group, never changed: key, class names, and size, time and SHA-256 of each image |
| `rows/SPLIT-00000/*.h5` | its columns: `image_embedding.h5`, and as asked for `caption_embedding.h5`, `crop_views.h5`, `support_views.h5`, `pixels.h5`, `neighbours--BANK.h5`, `TEACHER.image_embedding.h5` |
| `tars/SPLIT-00000.tar` | with `--format webdataset`, in place of the embeddings: pictures and rows |
| `index/SPLIT.h5` | hashes of keys, sorted, which is the order of the rows; all of `index/` can be made again |
| `texts/BANK.h5` | texts, class names, `text_embedding` |
| `text_tower/` | with `--keep-text-tower`: the teacher's text side |
| `projections/TEACHER.h5` | with `--store pca128-int8`: mean and components of the rows of views |
| `features/` | features of a frozen trunk, kept for the next head; can be made again |

A row group is closed at 65,536 rows, after five minutes, at a stop, or with its tar or other chunk, so that a kill
costs no more than that. A class is its name, and gets its number when it is read. Rows that the journal calls removed
stay in their files until `distill cache repair --compact`.

Plain h5py reads all of it. A column of embeddings is the dataset `embedding` [n, D]; a key lies between two of
`key_offset` in the bytes of `key`:

```python
import h5py

group = "artifacts/photos/rows/train-00000"
with h5py.File(f"{{group}}/keys.h5") as keys, h5py.File(f"{{group}}/image_embedding.h5") as column:
    start, text = keys["key_offset"][:], keys["key"][:].tobytes()
    names = [text[a:b].decode() for a, b in zip(start, start[1:])]
    rows = column["embedding"][:]
```

### `{manifest.NAME}`

Schema version {manifest.SCHEMA_VERSION}: another one is refused, never guessed.
"""
RUN = f"""## A run

| file | what it is |
|---|---|
| `{run_files.CONFIG}` | every setting ([settings](settings.md)) |
| `{run_files.SUMMARY}` | means of the last five epochs, versions, hardware, the cache's fingerprint, the identity of the data, seconds, peak memory |
| `{run_files.METRICS}`, `{run_files.CSV}` | one line an epoch, each loss by its name |
| `{run_files.CURVES}` | the same as a picture |
| `events.out.tfevents.*` | events for TensorBoard |
| `wandb/`, `{WANDB_ID}` | with `--wandb` what Weights & Biases keeps, and its id of the run |
| `{MLFLOW_ID}` | with `--mlflow` its id of the run |
| `{run_files.OUTPUTS}` | what the student says of every test image |
| `{run_files.LOGITS}` | its logits over all classes, by key and class name |
| `{run_files.LAST}` | the checkpoint that `--resume` goes on from |
| `{run_files.BEST}` | where images or classes were set aside (`data.id_val`, `data.class_val`): the weights that were best on them |
| {", ".join(f"`{name}.pt`" for name in run_files.MEANS)} | means of weights, where asked for: `--checkpoint NAME` |
| `{run_files.FEWSHOT}`, `{run_files.FEWSHOT_PLOT}` | in the folders that `distill fewshot` makes |
"""


def page() -> str:
    """Return the page's Markdown."""
    words = re.sub(r"\s+", " ", inspect.cleandoc(manifest.Manifest.__doc__ or "")).replace("``", "`")
    names = ", ".join(f"`{one.name}`" for one in fields(manifest.Manifest))
    return "\n".join((CACHE, f"{words}\n\nIts keys: `schema_version`, `fingerprint`, {names}.\n", RUN))
