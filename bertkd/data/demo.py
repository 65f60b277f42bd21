"""Makes the built-in demo task: short reviews whose words do not give the verdict away, in the file format of SST-2.

Every sentence is made by a small grammar. A third of them are plain ("a gripping film with a clever plot"), so that
the adjectives can be learned. In the others the same words appear in positive and in negative reviews, and order and
the scope of a negation, a contrast or a comparison decide: "although the plot was dull, the acting was moving" is
positive, and swapping the two adjectives makes it negative. A model that counts words gets two thirds right, a model
that reads gets nearly all, and small students lie between: minutes and no download are enough to tell them apart.

    >>> from bertkd.data import load_glue
    >>> dataset = load_glue("sst2", glue_dir=make_demo_task("demo_data"))

or, from a shell, ``python -m bertkd.data.demo --output_dir demo_data``.
"""

import argparse
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkd.atomic import write_text

__all__ = ["DEMO_SIZES", "make_demo_task"]

DEMO_SIZES = {"train": 3000, "dev": 500, "test": 500}
"""Sentences in each split."""

POSITIVE, NEGATIVE = 1, 0


@dataclass(frozen=True)
class Domain:
    """The vocabulary of one kind of review.

    Args:
        things: the things that are reviewed.
        aspects: their parts that are praised or blamed on their own.
        good: adjectives that praise.
        bad: adjectives that blame.
        verb: the verb for using such a thing ("watch", "buy"), in the infinitive.
    """

    things: tuple[str, ...]
    aspects: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    verb: str

    def adjective(self, rng: random.Random, polarity: int) -> str:
        """Draws an adjective of this polarity: one of the domain's own, or one that fits anything."""
        special, general = (self.good, GOOD) if polarity == POSITIVE else (self.bad, BAD)
        return rng.choice(special if rng.random() < 0.7 else general)


GOOD = ("good", "great", "wonderful", "excellent", "superb", "lovely", "impressive", "delightful", "brilliant")
BAD = ("bad", "poor", "dreadful", "awful", "terrible", "horrible", "disappointing", "annoying", "unpleasant")

DOMAINS = (
    Domain(
        things=("film", "thriller", "comedy", "sequel", "documentary", "series"),
        aspects=("acting", "plot", "script", "ending", "dialogue", "pacing", "camera work", "soundtrack"),
        good=("gripping", "moving", "clever", "witty", "charming", "inspired", "subtle", "believable", "funny"),
        bad=("dull", "tedious", "shallow", "clumsy", "predictable", "lifeless", "muddled", "silly", "boring"),
        verb="watch",
    ),
    Domain(
        things=("novel", "story", "biography", "poem", "essay", "textbook"),
        aspects=("prose", "opening chapter", "main character", "translation", "humour", "language", "conclusion"),
        good=("elegant", "vivid", "clear", "engaging", "thoughtful", "lively", "original", "rich", "convincing"),
        bad=("wooden", "vague", "confusing", "dreary", "careless", "repetitive", "pompous", "thin", "pointless"),
        verb="read",
    ),
    Domain(
        things=("meal", "restaurant", "bakery", "cafe", "takeaway", "buffet"),
        aspects=("soup", "bread", "sauce", "dessert", "coffee", "curry", "pizza", "salad"),
        good=(
            "tasty",
            "fresh",
            "delicious",
            "fragrant",
            "tender",
            "generous",
            "satisfying",
            "mouthwatering",
            "warming",
        ),
        bad=("bland", "stale", "greasy", "burnt", "soggy", "sour", "watery", "overpriced", "disgusting"),
        verb="try",
    ),
    Domain(
        things=("phone", "laptop", "camera", "headset", "printer", "tablet"),
        aspects=("battery", "screen", "keyboard", "sound", "software", "casing", "manual", "design"),
        good=("sturdy", "reliable", "fast", "pleasing", "precise", "handy", "sleek", "dependable", "well made"),
        bad=("flimsy", "unreliable", "slow", "faulty", "awkward", "ugly", "useless", "fragile", "badly made"),
        verb="buy",
    ),
    Domain(
        things=("hotel", "hostel", "guest house", "cabin", "campsite", "resort"),
        aspects=("room", "bathroom", "breakfast area", "lobby", "pool", "terrace", "bed", "garden"),
        good=("clean", "cosy", "quiet", "spacious", "bright", "comfortable", "peaceful", "tidy", "welcoming"),
        bad=("dirty", "noisy", "cramped", "shabby", "gloomy", "uncomfortable", "smelly", "damp", "filthy"),
        verb="book",
    ),
)

# Each of these reverses the meaning of the adjective after it, ...
NEGATIONS = ("not", "never", "hardly", "anything but", "far from", "by no means", "in no way", "not at all")
# ... and each of these leaves it as it is, in words like those above: few words stand for a negation by themselves.
ASSERTIONS = ("always", "clearly", "nothing but", "more than just", "by all means", "in every way", "nothing if not")
DENIALS = ("nobody could say that", "i would not say that", "no one found that", "it is not true that", "i doubt that")
CLAIMS = ("anybody could say that", "i would say that", "everyone found that", "it is true that", "i am sure that")
PEOPLE = ("my brother", "my sister", "a friend", "the critic", "my neighbour", "the advert", "a colleague")
OPENINGS = ("honestly", "in the end", "to my surprise", "as a whole", "this time", "all in all", "in short")


def _other(polarity: int) -> int:
    return NEGATIVE if polarity == POSITIVE else POSITIVE


def _a(words: str) -> str:
    """Puts the indefinite article before the words."""
    return f"an {words}" if words[0] in "aeio" or words.startswith(("ug", "un")) else f"a {words}"


def _clause(rng: random.Random, domain: Domain, subject: str, polarity: int) -> str:
    """Makes a clause about `subject` that says `polarity`: plainly, stressed, or by negating the opposite."""
    form = rng.random()
    if form < 0.5:
        return f"{subject} was {domain.adjective(rng, polarity)}"
    if form < 0.7:
        return f"{subject} was {rng.choice(ASSERTIONS)} {domain.adjective(rng, polarity)}"
    return f"{subject} was {rng.choice(NEGATIONS)} {domain.adjective(rng, _other(polarity))}"


def _statement(rng: random.Random, domain: Domain, subject: str, polarity: int) -> str:
    """Makes a clause inside a statement that holds or does not: "nobody could say that the plot was not clever"."""
    if rng.random() < 0.4:
        return f"{rng.choice(CLAIMS)} {_clause(rng, domain, subject, polarity)}"
    return f"{rng.choice(DENIALS)} {_clause(rng, domain, subject, _other(polarity))}"


def _part(rng: random.Random, domain: Domain) -> str:
    return f"the {rng.choice(domain.aspects)} of this {rng.choice(domain.things)}"


def _praise_or_blame(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Makes the plain kind, from which adjectives can be learned: "the bed was clean and the garden was lovely"."""
    first, second = rng.sample(domain.aspects, 2)
    word, other_word = domain.adjective(rng, polarity), domain.adjective(rng, polarity)
    thing = rng.choice(domain.things)
    forms = (
        f"the {first} was {word} and the {second} was {other_word}",
        f"the {first} of this {thing} was {word}",
        f"{_a(word)} {thing} with {_a(other_word)} {first}",
        f"this {thing} was not only {word} but also {other_word}",
        f"what {_a(word)} {thing}, and how {other_word} the {first} was",
    )
    return rng.choice(forms)


def _verdict(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Makes one clause: "the soup of this cafe was never bland"."""
    return _clause(rng, domain, _part(rng, domain), polarity)


def _reported(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Makes a verdict inside a statement that holds or does not."""
    return _statement(rng, domain, _part(rng, domain), polarity)


def _contrast(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Makes two clauses that disagree, of which the main one decides: "the bed was clean, but the pool was dirty"."""
    main_aspect, side_aspect = rng.sample(domain.aspects, 2)
    main = rng.choice((_clause, _clause, _statement))(rng, domain, f"the {main_aspect}", polarity)
    side = rng.choice((_clause, _clause, _statement))(rng, domain, f"the {side_aspect}", _other(polarity))
    link = rng.choice(("although", "even though", "while"))
    return rng.choice(
        (f"{link} {side}, {main}", f"{main}, {link} {side}", f"{side}, but {main}", f"{side}, and yet {main}")
    )


def _correction(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Makes a right and a wrong word for the same thing: "the staff of this hotel was not rude but friendly"."""
    said, denied = domain.adjective(rng, polarity), domain.adjective(rng, _other(polarity))
    subject = _part(rng, domain)
    forms = (
        f"{subject} was not {denied} but {said}",
        f"{subject} was {said} and not {denied}",
        f"{subject} was {said} rather than {denied}",
        f"rather than {denied}, {subject} was {said}",
        f"{subject} was less {denied} than {said}",
    )
    return rng.choice(forms)


def _change(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Tells a change or a surprise, of which the present counts: "the plot used to be dull, and now it is witty"."""
    now, before = domain.adjective(rng, polarity), domain.adjective(rng, _other(polarity))
    subject, thing = _part(rng, domain), rng.choice(domain.things)
    forms = (
        f"{subject} used to be {before}, and now it is {now}",
        f"{subject} is {now} now, and it used to be {before}",
        f"{subject} should have been {before}, and it turned out {now}",
        f"{subject} turned out {now}, and it should have been {before}",
        f"where i had expected {_a(before)} {thing}, i got {_a(now)} one",
        f"i got {_a(now)} {thing}, where i had expected {_a(before)} one",
        f"what had looked like {_a(before)} {thing} was {_a(now)} one",
    )
    return rng.choice(forms)


def _hearsay(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Tells the verdicts of another and of the reviewer, which decides: "a friend called it dull, i call it witty"."""
    mine, theirs = domain.adjective(rng, polarity), domain.adjective(rng, _other(polarity))
    thing, person = rng.choice(domain.things), rng.choice(PEOPLE)
    forms = (
        f"{person} called this {thing} {theirs}, and i call it {mine}",
        f"i call this {thing} {mine}, and {person} called it {theirs}",
        f"{person} was wrong to call this {thing} {theirs}, it was {mine}",
        f"{person} was right to call this {thing} {mine}, it was not {theirs}",
        f"what {person} found {theirs} about this {thing}, i found {mine}",
        f"i found this {thing} {mine}, whatever {person} found {theirs} about it",
    )
    return rng.choice(forms)


def _comparison(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Compares the thing under review with another: "the last phone was worse than this one"."""
    last = "the last" if rng.random() < 0.5 else f"the {domain.adjective(rng, rng.randint(0, 1))} last"
    this_first = rng.random() < 0.5
    first, second = ("this", last) if this_first else (last, "this")
    wins = (polarity == POSITIVE) == this_first
    up, down = ("better", "worse") if wins else ("worse", "better")
    forms = (
        f"was {up} than {second} one",
        f"was never {down} than {second} one",
        f"was not {down} than {second} one but {up}",
        f"had {_a(rng.choice(domain.aspects))} that was {up} than that of {second} one",
        f"beats {second} one" if wins else f"is beaten by {second} one",
    )
    return f"{first} {rng.choice(domain.things)} {rng.choice(forms)}"


def _advice(rng: random.Random, domain: Domain, polarity: int) -> str:
    """Makes a recommendation: "nobody who likes a clean hotel should avoid this one"."""
    embraces = rng.random() < 0.5
    action = rng.choice((domain.verb, "choose", "recommend") if embraces else ("skip", "avoid", "miss"))
    who = rng.choice(("everybody", "anyone") if embraces == (polarity == POSITIVE) else ("nobody", "no one"))
    wish = _a(f"{domain.adjective(rng, POSITIVE)} {rng.choice(domain.things)}")
    return f"{who} who {rng.choice(('likes', 'wants', 'needs'))} {wish} should {action} this one"


Kind = Callable[[random.Random, Domain, int], str]

# With fewer plain ones a 3-layer student stays at chance for epochs: no single word would tell it anything.
KINDS: tuple[Kind, ...] = (
    *(_praise_or_blame,) * 5,
    *(_contrast,) * 2,
    *(_verdict, _reported, _correction, _change, _hearsay, _comparison, _advice),
)


def _sentence(rng: random.Random, kind: Kind, polarity: int) -> str:
    sentence = kind(rng, rng.choice(DOMAINS), polarity)
    return f"{rng.choice(OPENINGS)}, {sentence}" if rng.random() < 0.25 else sentence


def _generate(rng: random.Random, count: int) -> list[tuple[str, int]]:
    """Makes `count` different sentences with labels; every kind is as often positive as negative."""
    labels: dict[str, int] = {}
    while len(labels) < count:
        position = len(labels)
        polarity, kind = position % 2, KINDS[position // 2 % len(KINDS)]
        labels.setdefault(_sentence(rng, kind, polarity), polarity)
    return list(labels.items())


def _split(rng: random.Random, rows: list[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
    """Deals rows out to the splits of `DEMO_SIZES`, each with as many positive as negative ones, shuffled."""
    negative = [row for row in rows if row[1] == NEGATIVE]
    positive = [row for row in rows if row[1] == POSITIVE]
    # The order of the draws is a part of the task: another order would give other files.
    rng.shuffle(negative)
    rng.shuffle(positive)

    splits = {}
    for name, size in DEMO_SIZES.items():
        split = []
        for same_label in (negative, positive):
            for _ in range(size // 2):
                split.append(same_label.pop())
        rng.shuffle(split)
        splits[name] = split
    return splits


def make_demo_task(directory: str | os.PathLike[str], seed: int = 0) -> Path:
    """Writes the demo task as `train.tsv`, `dev.tsv` and `test.tsv` in SST-2's format.

    As in GLUE, the test part has no labels.

    Args:
        directory: where the folder `SST-2` is made. Files that are there already are replaced.
        seed: another seed gives other sentences of the same grammar, and the same seed gives the same files, byte for
            byte.

    Returns:
        `directory` as a path: what ``load_glue("sst2", glue_dir=...)`` reads.

    Raises:
        OSError: the folder cannot be written.
    """
    rng = random.Random(seed)
    splits = _split(rng, _generate(rng, sum(DEMO_SIZES.values())))

    folder = Path(directory) / "SST-2"
    for name in ("train", "dev"):
        lines = ["sentence\tlabel\n"]
        for sentence, label in splits[name]:
            lines.append(f"{sentence}\t{label}\n")
        write_text(folder / f"{name}.tsv", "".join(lines))

    lines = ["index\tsentence\n"]
    for index, (sentence, _) in enumerate(splits["test"]):
        lines.append(f"{index}\t{sentence}\n")
    write_text(folder / "test.tsv", "".join(lines))
    return Path(directory)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command ``python -m bertkd.data.demo``."""
    parser = argparse.ArgumentParser(prog="python -m bertkd.data.demo", description="Writes the built-in demo task.")
    parser.add_argument("--output_dir", required=True, help="the folder SST-2 is made in it")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other sentences (default: 0)")
    options = parser.parse_args(arguments)

    folder = make_demo_task(options.output_dir, options.seed)
    counts = ", ".join(f"{size} {name}" for name, size in DEMO_SIZES.items())
    print(f"Wrote {counts} sentences to {folder / 'SST-2'}")


if __name__ == "__main__":
    main()
