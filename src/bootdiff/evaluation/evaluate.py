"""One evaluation for every system: same noises, same features, same reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bootdiff.data.conditions import Unconditional
from bootdiff.evaluation.measure import PATH_NUM, Listed, Measured, Work, best_rows, work_of
from bootdiff.evaluation.processes import mine
from bootdiff.evaluation.rows import DDIM_STEPS, Candidate, from_elsewhere, heun_candidate, teacher_candidates
from bootdiff.evaluation.tally import Judges
from bootdiff.out_of_memory import told_when_out_of_memory
from bootdiff.pipelines.samplers import Sampler, batch_for, best_device
from bootdiff.progress import is_first_process, progress
from bootdiff.teachers import Teacher

NOBODY = Judges()


@told_when_out_of_memory("lower --num, or leave --clip and large --features out")
def evaluate(
    students: Mapping[str, Sampler],
    teacher: Teacher,
    t_range: tuple[float, float],
    judges: Judges = NOBODY,
    listed: Listed = Listed(Unconditional()),
    num: int = 2000,
    seed: int = 0,
    repeats: int = 1,
    ddim_steps: Sequence[int] = DDIM_STEPS,
    heun: bool = True,
    path_of: Teacher | None = None,
    more: Sequence[Candidate] = (),
) -> dict[str, Any]:
    """Measure students and their teacher from the same noises and conditions.

    Args:
        students: one-step samplers by name.
        t_range: (t_min, t_max) of the path that the students learned. The teacher's own rows span the teacher's own
            range, so that they are the same beside every student; where the students' t_max is another one, the
            teacher is measured from there too, in rows of their own.
        judges: feature space, reference and CLIP model; without any only path error and speed are measured.
        listed: what the samples are conditioned on.
        num: samples a noise seed.
        seed: noise seed r uses the samples of seed ``seed + r · num``.
        repeats: noise seeds.
        ddim_steps: the teacher's DDIM rows.
        heun: a row for 50 Heun steps, the ground truth, and path errors on every sample; without it path errors are
            measured on the first samples of each seed only, which is much cheaper.
        path_of: whose path the students learned, where their targets were limited in another way than the teacher's.
        more: further rows.

    Returns:
        A JSON-ready dictionary; ``rows`` holds the teacher's rows, then the students'.
    """
    teacher = teacher.to(best_device())
    truth = Measured(heun_candidate((path_of or teacher).to(best_device()), t_range))
    rows = [Measured(c) for c in (*teacher_candidates(teacher, t_range, ddim_steps), *more)]
    if heun and from_elsewhere(teacher, t_range):
        rows.append(Measured(heun_candidate(teacher, teacher.t_range)))
    learned = [Measured(Candidate(name, "one call", 1, sampler)) for name, sampler in students.items()]
    seeds = [seed + repeat * num for repeat in range(repeats)]
    size = batch_for(teacher.shape)
    work = [work_of(teacher, listed, first, num, size) for first in seeds]
    _measure(work, -(-num // size), truth, [*rows, *learned], judges, heun)
    return {
        "teacher": teacher.name,
        "features": judges.features.name if judges.features else None,
        "num": num,
        "seed": seed,
        "repeats": repeats,
        "t_min": t_range[0],
        "t_max": t_range[1],
        "rows": best_rows([*rows, *([truth] if heun else []), *learned]),
    }


def _measure(
    work: Sequence[Iterable[Work]],
    batches: int,
    truth: Measured,
    entries: Sequence[Measured],
    judges: Judges,
    heun: bool,
) -> None:
    """Run every candidate on the same work, one iterable of ``batches`` batches a noise seed."""
    calls = sum(m.candidate.calls for m in entries) * batches + truth.candidate.calls * (batches if heun else 1)
    with torch.no_grad(), progress("evaluating", calls * len(work), show=is_first_process()) as bar:
        for seed in work:
            for batch in mine(seed):
                solution = None
                if heun or batch.start < PATH_NUM:
                    part = batch if heun else batch.first(PATH_NUM - batch.start)
                    solution = truth.measure(part, None, judges if heun else NOBODY)
                    bar.advance(truth.candidate.calls)
                for entry in entries:
                    entry.measure(batch, solution, judges)
                    bar.advance(entry.candidate.calls)
            for entry in [*entries, *([truth] if heun else [])]:
                entry.close(judges)
    truth.everyone = [replace(counts, compared=1) for counts in truth.everyone]  # its path error is 0 by definition
