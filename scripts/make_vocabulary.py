"""The words that come with the package, from WordNet's nouns: what can be seen in a photo.

    apt-get install wordnet-base
    python scripts/make_vocabulary.py

It writes ``distill/deploy/words/nouns.txt``, 20,000 words, the better known first, WordNet's licence beside
it, and says how many nouns were left out and why. The same files give the same words.

Animals, plants, food, artifacts and natural objects are taken as WordNet has them; of acts, places, stuff and
the like only what ImageNet has pictures of (the 12k synsets that timm lists). Of people there is a short list
of who is known by what they do or wear: what somebody is called by their looks is not for a machine to guess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
OUT = Path(__file__).parents[1] / "distill" / "deploy" / "words"
COUNT = 20_000
# Numbers of WordNet's lexicographer files: the tops, animal, artifact, food, object, plant.
CONCRETE = {3, 5, 6, 13, 17, 20}
LIVING = {5, 20}
# Act, body, communication, event, group, location, phenomenon, shape, substance.
IF_PICTURED = {4, 8, 10, 11, 14, 15, 19, 25, 27}
PHYSICAL, PERSON = "00001930", "00007846"
# Above it: "object", "whole", "unit"; nobody means them by a picture.
LEAST_DEPTH = 5
# What rude words are in, by a pointer to one of these or by what their gloss says.
RUDE_USAGE = {"ethnic_slur", "disparagement", "obscenity"}
RUDE_GLOSS = re.compile(
    r"offensive|ethnic slur|derogat|disparag|obscene|obscenity|vulgar|pejorative|insulting|contempt"
)
# What is said of things and beasts all the same.
HARMLESS = """
attack bird black boy buffoon bull camp clown colored cracker dirt everlasting fairy guinea indian low mock
mongrel pansy peewee perfect peter petty pill queen raspberry rat rot round runner runner_bean sanatorium
scarlet_runner screw shaft shag shrimp skunk slit spade stinking suit taco tapir tool
"""
# The first 8 digits of the SHA-256 of words that make a name rude, or others than it is of; not the words.
RUDE_HASHES = """
08234c94 08a841e9 0be9b885 0f28c496 110c6c5a 120f6e5b 13a465fc 158869a9 16ea09fc 183936b0 1b830448 1c4bfd10
2062f800 22fc75e6 267463e5 27eb0c4a 3175bf06 333f7618 3b1e0d7c 4426e54c 46505206 48fab7a5 49d3bc14 4b18aefe
50c00489 566f532d 59cc3cb8 6122fdf4 619bc82e 63bd9333 6556c1a5 69c5c5d4 6ac3c336 70aafb42 74fad891 796e43a5
7bc67115 7c4a23e0 7c686cf2 7d5fb7d5 8171c4ec 85fc17f7 886d51e9 8f5083e3 94a877e2 94c6d2e1 96c91fa8 98b52c4b
9915ba2d 9ae315a9 a008b489 a40ccba8 a4d7510f a7bf072c ad412adb ad505b0b ad64e56f ad6cacf3 affc8757 b04a8a40
b3cec2f6 bb87adf8 bd331fb1 bdb1cc25 be00f1af c1b4ed05 c2c3b68b c3de533e ca5941f9 cbbd0f71 cc020323 cf810873
d6be0c9f d75a838d dd92623b e512a055 e7b98c6a e84dde50 e9e8b6c5 eef3bd09 f59e28f8 f9d0d9b1 fca0183d
"""
COMMERCE = {"trade_name", "trademark"}
# With all that is below them: too small, too inner, or not to be guessed of anybody's photo. Apes and monkeys
# are here because people have been called so by such models; a list of one's own may have them.
NOT_SEEN = """
microorganism cell drug virus elementary_particle internal_organ reproductive_organ excrement body_waste
contraceptive sex_toy dildo vibrator swastika gallows brothel instrument_of_torture instrument_of_execution
torture_chamber gas_chamber concentration_camp pornography sexual_activity computer_circuit vaccine toxin
molecule radiation fetus embryo corpse placenta marijuana nude bosom nipple noose harem sperm_bank opium_den
erection electric_chair guillotine
ape monkey hominid
"""
# But what is smoked and drunk is seen, though WordNet has it below drugs.
SEEN = {"tobacco", "alcohol"}
# Everyday things that WordNet files under signs, money or stuff, or behind other meanings of the word.
EVERYDAY = """
poster calendar passport postcard ticket receipt menu map coin money banknote envelope stamp flag buoy trophy
medal book notebook diary leather wood paper glass brick log skull straw globe saucer napkin trousers pajamas
calculator cistern brownie olive_oil snowman teddy_bear Christmas_tree monitor smoke fire rainbow sky
sink bamboo mammoth detergent medicine bubble
"""
PEOPLE = """
person man woman child baby boy girl bride bridegroom firefighter soldier nurse surgeon dentist chef waiter
waitress baker butcher barber athlete ballplayer boxer wrestler gymnast golfer cyclist skier skater surfer
swimmer scuba_diver diver jockey acrobat cheerleader ballerina dancer musician singer guitarist pianist
violinist drummer flutist trumpeter clown astronaut farmer fisherman shepherd cowboy sailor pilot
photographer painter sculptor tourist pedestrian passenger student teacher monk nun priest king queen knight
"""
PLAIN = re.compile(r"[A-Za-z][A-Za-z'. -]*[A-Za-z.]")
LONGEST, MOST_PARTS = 30, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Synset:
    """One meaning: its words, what it is a kind of, which file it is in, and what WordNet says of it."""

    file: int
    words: tuple[str, ...]
    above: tuple[str, ...]
    usages: tuple[str, ...]
    named: bool
    gloss: str


def synsets(part: str) -> Iterator[tuple[str, Synset]]:
    """Yield the synsets of a part of speech by their offsets."""
    for line in (WORDNET / f"data.{part}").read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition(" | ")
        offset, file, _, count, *rest = head.split()
        words = [rest[2 * i].partition("(")[0] for i in range(int(count, 16))]
        first = 2 * len(words) + 1
        pointers = [rest[i : i + 2] for i in range(first, first + 4 * int(rest[first - 1]), 4)]
        yield (
            offset,
            Synset(
                file=int(file),
                words=tuple(words),
                above=tuple(to for kind, to in pointers if kind == "@"),
                usages=tuple(to for kind, to in pointers if kind == ";u"),
                named=any(kind == "@i" for kind, _ in pointers),
                gloss=gloss,
            ),
        )


@cache
def nouns() -> dict[str, Synset]:
    """Return the nouns' synsets by offset."""
    return dict(synsets("noun"))


@cache
def kinds(offset: str) -> frozenset[str]:
    """Return a synset and all that it is a kind of."""
    return frozenset({offset}).union(*(kinds(above) for above in nouns()[offset].above))


@cache
def depth(offset: str) -> int:
    """Return how far below the top a synset is."""
    return min((1 + depth(above) for above in nouns()[offset].above), default=0)


def rude_words() -> set[str]:
    """Return the words, of any part of speech, that some meaning makes rude, in lower case."""
    usage = {offset for offset, of in nouns().items() if RUDE_USAGE & {*of.words}}
    found: set[str] = set()
    for part in ("noun", "verb", "adj", "adv"):
        for _, synset in synsets(part):
            if usage & {*synset.usages} or RUDE_GLOSS.search(synset.gloss.partition('"')[0]):
                found |= {word.lower() for word in synset.words}
    return found


def senses() -> dict[str, list[str]]:
    """Return the meanings of every noun in lower case, the commonest first."""
    lines = (WORDNET / "index.noun").read_text(encoding="latin-1").splitlines()
    fields = (line.split() for line in lines if not line.startswith("  "))
    return {of[0]: of[6 + int(of[3]) :] for of in fields}


def times_met() -> Counter[tuple[str, int]]:
    """Return how often each (noun, place of its meaning from 0) was met in texts; -1: as no noun."""
    met: Counter[tuple[str, int]] = Counter()
    for line in (WORDNET / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, place, count = line.split()
        word, _, rest = key.partition("%")
        met[word, int(place) - 1 if rest.startswith("1:") else -1] += int(count)
    return met


def times_used() -> Counter[str]:
    """Return how often WordNet itself uses every word, or two or three of them, to say what others mean."""
    used: Counter[str] = Counter()
    for part in ("noun", "verb", "adj", "adv"):
        for _, synset in synsets(part):
            for phrase in re.split(r"[^A-Za-z'\- ]+", synset.gloss):
                words = phrase.split()
                for length in (1, 2, 3):
                    used.update("_".join(words[i : i + length]) for i in range(len(words) - length + 1))
    return used


def pictured() -> set[str]:
    """Return the synsets that ImageNet has many pictures of."""
    timm = find_spec("timm")  # without its torch
    assert timm is not None and timm.origin is not None, "install timm"  # noqa: PT018
    lists = Path(timm.origin).parent / "data" / "_info"
    names = ("imagenet12k_synsets.txt", "imagenet_synsets.txt")
    return {line.strip()[1:] for name in names for line in (lists / name).read_text().splitlines()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A noun in one of its meanings, and what its place in the list is by."""

    word: str
    met: int
    rank: int
    place: int
    depth: int

    @property
    def order(self) -> tuple[int | str, ...]:
        """Return what names are sorted by: often met, then by rank, those of few words, the general."""
        parts = self.word.count(" ")
        return -self.met, self.rank, parts, self.depth, self.place, self.word.casefold(), self.word


class Chooser:
    """Says of every word of every synset that something can be seen of whether it is a name, or why not."""

    def __init__(self) -> None:
        self.rude = rude_words() - {*HARMLESS.split()}
        self.people = {*PEOPLE.split()}
        self.not_seen = {*NOT_SEEN.split()}
        self.pictured = pictured()
        self.senses = senses()
        self.met = times_met()
        self.used = times_used()
        everything = nouns().values()
        self.taxa = {word for of in everything if of.file in {*LIVING, 14} for word in _taxon(of)}
        self.usages = {offset for offset, of in nouns().items() if COMMERCE & {*of.words}}
        self.left_out: Counter[str] = Counter()

    def names(self) -> Iterator[Name]:
        """Yield the names, and count what is left out."""
        everyday = (word.replace("_", " ") for word in EVERYDAY.split())
        yield from (Name(word=word, met=0, rank=0, place=0, depth=0) for word in everyday)
        for offset, synset in nouns().items():
            why = self._not_seen(offset, synset)
            for place, word in enumerate(synset.words):
                reason = why or self._no_name(offset, word, place)
                if reason:
                    self.left_out[reason] += 1
                    continue
                yield Name(
                    word=word.replace("_", " "),
                    met=self.met[word.lower(), self._rank(offset, word)] + self.used[word],
                    rank=self._less_known(offset, synset, place),
                    place=place,
                    depth=depth(offset),
                )

    def _less_known(self, offset: str, synset: Synset, place: int) -> int:
        """Return how little known a name is: 0 what is pictured, 1 its second name or a thing, 2 the rest."""
        if offset in self.pictured and place < 2:
            return place
        return 2 if place or synset.file in LIVING else 1

    def _not_seen(self, offset: str, synset: Synset) -> str:
        """Return why nothing of a synset is taken, or nothing."""
        above = kinds(offset)
        if PERSON in above:
            return "" if any(word in self.people for word in synset.words) else "people"
        if synset.file in CONCRETE:
            if PHYSICAL not in above:
                return "nothing that can be touched"
        elif synset.file not in IF_PICTURED or offset not in self.pictured:
            return "nothing that is seen, or that ImageNet has pictures of"
        if synset.named:
            return "one of a kind, with a name of its own"
        if depth(offset) < LEAST_DEPTH and offset not in self.pictured:
            return "too general"
        names = {word for of in above for word in nouns()[of].words}
        if self.not_seen & names and not SEEN & names:
            return "too small, inside, or not to be guessed of anybody's photo"
        return ""

    def _no_name(self, offset: str, word: str, place: int) -> str:
        """Return why a word of a synset is not taken, or nothing."""
        parts = [part for part in re.split(r"[_\s'-]+", word.lower()) if part]
        if {word.lower(), *parts} & self.rude or any(is_rude(part) for part in parts):
            return "rude, in some meaning or in a part"
        synset = nouns()[offset]
        if PERSON in kinds(offset) and word not in self.people:
            return "people"
        plain = word.replace("_", " ")
        if not PLAIN.fullmatch(plain) or len(plain) > LONGEST or len(plain.split()) > MOST_PARTS:
            return "long, or with other signs than letters"
        if synset.file in LIVING and self._latin(word):
            return "Latin"
        first_pictured = offset in self.pictured and place == 0
        if self.usages & {*synset.usages} and not first_pictured:
            return "trade names"
        if word in ("black", "white") or not (first_pictured or self._usual(offset, word)):
            return "another meaning is more usual"
        return ""

    def _latin(self, word: str) -> bool:
        """Whether a word is of a species: a genus, or a name with a capital whose last part is no noun."""
        first, last = word.partition("_")[0], word.rpartition("_")[2]
        return first in self.taxa or (word[0].isupper() and last.islower() and last not in self.senses)

    def _rank(self, offset: str, word: str) -> int:
        return self.senses[word.lower()].index(offset)

    def _usual(self, offset: str, word: str) -> bool:
        """Whether a word may well mean this: its commonest meaning, often met, or one of three hardly met."""
        meanings, rank = self.senses[word.lower()], self._rank(offset, word)
        commonest = next((of for of in meanings if not nouns()[of].named), offset)
        every = sum(self.met[word.lower(), i] for i in range(len(meanings)))
        if PERSON in kinds(commonest) - kinds(offset) or self.met[word.lower(), -1] > 2 * every + 10:
            return False
        return commonest == offset or 3 * self.met[word.lower(), rank] > every or (every <= 2 and rank <= 2)


def is_rude(word: str) -> bool:
    """Whether a word, or the one that it is the plural of, is among those that are kept as hashes alone."""
    both = (word.lower(), word.lower().removesuffix("s"))
    return any(sha256(one.encode()).hexdigest()[:8] in RUDE_HASHES.split() for one in both)


def _taxon(synset: Synset) -> Iterator[str]:
    """Yield the Latin names in a synset of a genus, family or order."""
    if any(word.startswith(("genus_", "family_", "order_", "class_")) for word in synset.words):
        yield from (name for word in synset.words if (name := word.rpartition("_")[2])[0].isupper())


def without_duplicates(names: Iterable[Name], left_out: Counter[str]) -> list[Name]:
    """Return names in order, each word once however it is written apart or with capitals."""
    kept: dict[str, Name] = {}
    for name in sorted(names, key=lambda name: name.order):
        folded = re.sub(r"[^a-z]", "", name.word.casefold())
        if folded in kept:
            left_out["there already, or written otherwise"] += 1
        kept.setdefault(folded, name)
    return list(kept.values())


def licence() -> str:
    """Return WordNet's licence, which stands before its data."""
    lines = (WORDNET / "data.noun").read_text(encoding="latin-1").splitlines()
    return "".join(f"{line[4:].strip()}\n" for line in lines if line.startswith("  "))


def main() -> None:
    """Write the list and the licence, and say what was left out."""
    chooser = Chooser()
    names = without_duplicates(chooser.names(), chooser.left_out)
    for why, count in sorted(chooser.left_out.items(), key=lambda item: -item[1]):
        print(f"{count:>7,} left out: {why}")
    print(f"{max(len(names) - COUNT, 0):>7,} left out: less known than the {COUNT:,} that are kept")
    OUT.mkdir(exist_ok=True)
    text = "".join(f"{name.word}\n" for name in names[:COUNT])
    (OUT / "nouns.txt").write_text(text, encoding="utf-8")
    (OUT / "LICENSE").write_text(licence(), encoding="utf-8")
    print(f"{len(names[:COUNT]):>7,} words in {OUT / 'nouns.txt'}")


if __name__ == "__main__":
    main()
