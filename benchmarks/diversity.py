"""Recall and sub-clusters reached: how much of the data's variety a student's samples have, beside its teacher's best.

    python benchmarks/diversity.py NAME RUN …       # writes docs/records/diversity-NAME.json
    python benchmarks/diversity.py fashion-32 STUDENT --teacher FOLDER --features fashion --sampler unipc:trailing:20

The reference's images are split into sub-clusters by k-means in the feature space. A sub-cluster is reached if it gets
at least a quarter of its share of the data. Runs must have come to their end; of each its earlier stages are rows, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from records import FOLDER, new_record, write_record
from torch import Tensor

from bootdiff.evaluation.curve import Chooser
from bootdiff.evaluation.engine import Engine, Entry
from bootdiff.evaluation.entries import chooser_of, rows_beside
from bootdiff.evaluation.measure import work_of
from bootdiff.evaluation.measurement import Measurement
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.precision_recall import precision_recall
from bootdiff.samplers.rows import Candidate
from bootdiff.sampling.opening import open_pair

#: sub-clusters, and the share of the data's share from which one is reached
CLUSTERS, REACHED = 100, 0.25
#: samples of a row, as many as the builtin curves chose their samplers with, and calls of the teacher's best
NUM, CALLS = 2000, 50
AT_ONCE = 250


def main() -> None:
    """Measure all runs of one teacher and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the record")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--num", type=int, default=NUM)
    parser.add_argument("--teacher", help="where the student does not find it")
    parser.add_argument("--features", help="and their reference; by default the builtin teacher's own")
    parser.add_argument("--sampler", help="NAME:SPACING:STEPS of the teacher's row; by default its best is looked for")
    parser.add_argument("--no-teacher", action="store_true", help="leave its row out, which takes longest")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for run in asked.runs:
        found += rows(run, asked, teacher=not found and not asked.no_teacher)
        print(*found, sep="\n", flush=True)
    words = [f" --{key} {value}" for key in ("features", "sampler") if (value := getattr(asked, key))]
    command = f"python benchmarks/diversity.py {asked.name} RUN …{''.join(words)}"
    write_record(FOLDER / f"diversity-{asked.name}.json", new_record({"diversity": found}, seeds=(0,), command=command))


def rows(run: Path, wanted: argparse.Namespace, teacher: bool) -> Iterator[dict[str, Any]]:
    """Yield the figures of a run's students, and before them those of its teacher's best sampler."""
    num, asked = wanted.num, Measurement(num=wanted.num, features=wanted.features, reference=wanted.features)
    pair = open_pair(str(run), wanted.teacher, None, asked.choice)
    judges, _ = asked.judges(pair.teacher, pair.texts)
    chooser = chooser_of(str(run), pair, Engine(judges, asked.noises), asked.labels_of(str(run)))
    centres = sub_clusters(judges)
    if teacher and (best := sampler_of(wanted.sampler, chooser)) is not None:
        yield {
            "samples of": f"teacher, {best.row.name}",
            **figures(Entry(best, pair.teacher, chooser.listed), judges, centres, num),
        }
    for entry in rows_beside(str(run), pair, chooser.listed, asked.labels_of(str(run)), False):
        name = str(run.relative_to(run.parents[1])) + (", its first stage" if entry.candidate.row.stage else "")
        yield {"samples of": name, **figures(entry, judges, centres, num)}


def sampler_of(word: str | None, chooser: Chooser) -> Candidate | None:
    """Return the teacher's sampler that ``NAME:SPACING:STEPS`` names; its best one where nothing is named."""
    if word is None:
        return chooser.best_within(CALLS)
    name, spacing, steps = word.split(":")
    return next(one for one in chooser.samplers.named(name, int(steps)) if one.row.spacing == spacing)


def sub_clusters(judges: Judges) -> Tensor:
    """Return the sub-clusters' centres (k, d), by k-means of the reference's features."""
    from sklearn.cluster import KMeans

    assert judges.reference is not None and judges.reference.samples is not None
    found = KMeans(CLUSTERS, n_init=4, random_state=0).fit(judges.reference.samples.numpy())
    return torch.as_tensor(found.cluster_centers_, dtype=torch.float32)


def shares(features: Tensor, centres: Tensor) -> Tensor:
    """Return the share of the features (n, d) that is nearest to each centre, (k,)."""
    nearest = torch.cdist(features.float(), centres).argmin(1)
    return torch.bincount(nearest, minlength=len(centres)) / len(features)


def figures(entry: Entry, judges: Judges, centres: Tensor, num: int) -> dict[str, Any]:
    """Return recall and the number of sub-clusters that a row's samples reach."""
    assert judges.features is not None and judges.reference is not None and judges.reference.samples is not None
    found = []
    with torch.no_grad():
        for work in work_of(entry.teacher, entry.listed, 0, num, AT_ONCE):
            values, _ = judges.features.read(work.decode(work.sampled(entry.candidate)))
            found.append(values.cpu())
    made = torch.cat(found)
    data = judges.reference.samples
    reached = shares(made, centres) >= REACHED * shares(data, centres)
    precision, recall = precision_recall(made, data)
    return {
        "precision": precision.value,
        "recall": recall.value,
        f"of {CLUSTERS} sub-clusters reached": int(reached.sum()),
    }


if __name__ == "__main__":
    main()
