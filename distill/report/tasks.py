"""What is shown of runs of photos, and of episodes with several objects each: separate tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cache.runtime.errors import UserError, nearest_names
from cache.sources.splits import MEAN
from distill.headline import LABELS, SET_ASIDE, headline
from distill.report.collect import OBJECTS, Run
from distill.report.groups import Group, TeacherRuns, groups_of, teachers_of

SPLITS = {
    "train": "training images",
    "id_val": "ID set aside",
    "class_val": "classes set aside",
    "pool_val": LABELS["pool_val"],
    "id_test": "ID",
    "ood_test": "OOD",
    "ood_query": "OOD less support",
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What runs are judged by. Metrics and headings are patterns over the splits; see :func:`headings`.

    ``unit`` is what is counted, ``measure`` how the headline metrics end, ``called`` its name; ``headline``
    is what a split is asked for first, ``results`` the main table's columns, ``further`` the second table's
    (metric, heading); ``notes`` explain those that have a metric of some ending.
    ``gaps`` are the metrics with a gap to the teacher, ``scatter`` (metric, name) across and up.
    ``per_class`` names every class's numbers in a summary, and ``members`` what a class is; ``confuses`` says
    whether one image has one class, which can be taken for another.
    """

    name: str
    unit: str
    measure: str
    called: str
    results: tuple[tuple[str, str], ...]
    gaps: tuple[tuple[str, str], ...]
    scatter: tuple[tuple[str, str], tuple[str, str]]
    further_title: str
    further: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    per_class: str
    per_class_title: str
    members: str
    confuses: bool
    headline: tuple[tuple[str, str], ...] = ()

    def splits(self, runs: Sequence[Run]) -> list[str]:
        """Return the test splits that some run has a headline of; further heads' SPLIT@TEACHER last.

        Where no run has one it is what they set aside, ``id_val``, or of a pool alone ``pool_val``;
        ``class_val`` is told beside either.
        """
        judged = {name for run in runs for name in run.table(self.per_class)}
        heads = sorted(name for name in judged if "@" in name and not name.startswith(SET_ASIDE))
        for names in (("id_test", "ood_test", "ood_query", *heads), ("id_val",), ("pool_val",), ()):
            told = [name for name in names if any(headline(run.summary, name) is not None for run in runs)]
            if told or not names:
                of_classes = any(headline(run.summary, "class_val") is not None for run in runs)
                return [*told, *(("class_val",) * of_classes)]
        return []

    def note(self, headings: Iterable[str]) -> str:
        """Return what explains the metrics of some columns, by their names."""
        names = list(headings)
        return " ".join(text for end, text in self.notes if any(name.endswith(end) for name in names))


PHOTOS = Task(
    name="photos",
    unit="images",
    measure="accuracy",
    called="macro accuracy",
    results=(
        ("{split}_accuracy", "{label} (%)"),
        ("{split}_all_accuracy", "{label} among all (%)"),
        ("{split}_cosine", "{label}, cosine with the teacher"),
        ("all{head}_harmonic_mean", "harmonic mean among all{of_head} (%)"),
    ),
    gaps=(("{split}_accuracy", "{label}: gap to teacher (points)"),),
    scatter=(
        ("id_test_accuracy", "ID, macro accuracy (%)"),
        ("ood_test_accuracy", "OOD, macro accuracy (%)"),
    ),
    further_title="Top 5, calibration",
    further=(
        ("{split}_top5_accuracy", "{label}, top 5 (%)"),
        ("{split}_all_top5_accuracy", "{label} among all, top 5 (%)"),
        ("{split}_ece", "{label}, ECE"),
        ("{split}_all_ece", "{label} among all, ECE"),
        ("id_ood{head}_auroc", "AUROC, ID against OOD{of_head}"),
    ),
    notes=(
        (
            "_all_accuracy",
            "Among all: every class of the data competes, as when an exported model is used; elsewhere a "
            "split's images are judged among that split's own classes.",
        ),
        (
            "_cosine",
            "The cosine with the teacher's own embeddings (-1 to 1) judges where the teacher has no texts to "
            "classify by.",
        ),
        ("_ece", "ECE (15 bins, 0 to 1) is of the softmax at the run's own temperature."),
        (
            "_auroc",
            "AUROC (0 to 1, 0.5 is chance) says how often an ID test image has a higher best cosine with an "
            "ID class text than an OOD test image has.",
        ),
    ),
    per_class="per_class_accuracy",
    per_class_title="Accuracy of every class",
    members="class",
    confuses=True,
)
EPISODES = Task(
    name="episodes",
    unit="episodes",
    measure="average_precision",
    called="mean average precision",
    headline=(("{split}_ood_objects_average_precision", "{label} episodes, OOD objects (%)"),),
    results=(
        ("{split}_average_precision", "{label} episodes (%)"),
        ("{split}_ood_objects_average_precision", "{label} episodes, OOD objects (%)"),
        ("{split}_id_objects_average_precision", "{label} episodes, ID objects (%)"),
    ),
    gaps=(
        ("{split}_average_precision", "{label} episodes: gap to teacher (points)"),
        ("{split}_ood_objects_average_precision", "{label} episodes, OOD objects: gap to teacher (points)"),
    ),
    scatter=(
        ("id_test_average_precision", "ID, mean AP (%)"),
        ("ood_test_ood_objects_average_precision", "OOD objects, mean AP (%)"),
    ),
    further_title="Decisions at the threshold",
    further=tuple(
        (f"{{split}}_{group}{name}", f"{{label}} episodes{of_group}: {name} (%)")
        for group, of_group in (("", ""), ("ood_objects_", ", OOD objects"))
        for name in ("accuracy", "precision", "recall")
    ),
    notes=(
        (
            "",
            "Mean average precision is over the objects that occur. An object is there where its score "
            "reaches robotics.threshold; accuracy, precision and recall are of counts over all objects and "
            "episodes.",
        ),
    ),
    per_class=OBJECTS,
    per_class_title="Average precision of every object",
    members="object",
    confuses=False,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The finished runs of one task, in groups; ``settings`` are those in which the groups differ.

    ``baseline`` is the group that the others are compared with.
    """

    task: Task
    runs: tuple[Run, ...]
    settings: tuple[str, ...]
    groups: tuple[Group, ...]
    teachers: tuple[TeacherRuns, ...]
    splits: tuple[str, ...]
    baseline: Group

    @property
    def counted(self) -> list[Run]:
        """The runs of the groups: without those of a setting and seed that is there already."""
        return [run for group in self.groups for run in group.runs]


def parts_of(runs: Sequence[Run], baseline: str | None = None) -> list[Part]:
    """Return the runs of photos and those of episodes, each where there are any.

    ``baseline`` names a run, or a setting as it is called in the report or its sweep; without one, and in a
    part that has none of that name, it is that of the first run.

    Raises
    ------
    UserError
        If nothing is called as ``baseline``.
    """
    parts, labels, names = [], list[str](), dict[str, None]()
    named = False
    for task in (PHOTOS, EPISODES):
        members = [run for run in runs if run.episodes == (task is EPISODES)]
        if not members:
            continue
        settings, groups = groups_of(members)
        chosen = [group for group in groups if baseline in _names(group)]
        named = named or bool(chosen)
        labels += [group.label for group in groups]
        names |= dict.fromkeys(name for group in groups for name in _names(group))
        parts.append(
            Part(
                task=task,
                runs=tuple(members),
                settings=settings,
                groups=groups,
                teachers=tuple(teachers_of(groups)),
                splits=tuple(task.splits(members)),
                baseline=[*chosen, groups[0]][0],
            )
        )
    if baseline is not None and not named:
        raise UserError(
            f"--baseline is {baseline!r}, and no finished run or setting is called so",
            fix=f"{nearest_names(baseline, names)}there are {'; '.join(labels[:6])}.",
        )
    return parts


def _names(group: Group) -> list[str]:
    """Return what a group can be called by: its label, its point of a sweep, each of its runs."""
    of_runs = (name for run in (*group.runs, *group.repeated) for name in (run.point, run.name))
    return [*dict.fromkeys(name for name in (group.label, *of_runs) if name)]


def headings(patterns: Sequence[tuple[str, str]], splits: Sequence[str]) -> dict[str, str]:
    """Return the heading of every metric that some patterns name of some splits.

    ``{split}`` and ``{label}`` stand for a split and what it is called, ``{head}`` and ``{of_head}`` for the
    teacher whose head a split is judged by, where there are several.
    """
    named: dict[str, str] = {}
    for metric, heading in patterns:
        for split in splits:
            _, at, teacher = split.partition("@")
            of_head = f" ({head_label(teacher)})" if at else ""
            words = {"split": split, "label": split_label(split), "head": at + teacher, "of_head": of_head}
            named[metric.format(**words)] = heading.format(**words)
    return named


def split_label(split: str) -> str:
    """Return how a split is called in a table."""
    name, _, head = split.partition("@")
    return SPLITS.get(name, name) + (f" ({head_label(head)})" if head else "")


def head_label(head: str) -> str:
    """Return how a head is called in a table: by its teacher, or as the mean of all."""
    return "mean of heads" if head == MEAN else head
