"""The rows of a student's teacher alone, without those from the student's own t_max: half of what `evaluate` costs.

python benchmarks/teacher.py RUN --guidance-scale 2 --features digits --reference digits --heun --output figures.json

Of a cascade: its second stage alone, on the student's small images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bootdiff.cli.evaluate import print_table, read_steps
from bootdiff.cli.measurement import Measurement, notes
from bootdiff.evaluation.evaluate import evaluate
from bootdiff.evaluation.measure import Listed
from bootdiff.evaluation.opening import open_pair
from bootdiff.files import write_json
from bootdiff.pipelines.samplers import Choice
from bootdiff.runs import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", help="a run; its teacher is measured, with the guidance and conditions of the run")
    parser.add_argument("--features")
    parser.add_argument("--reference")
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--ddim-steps", default="1,4,10,50", help="K,K,...; 0: none")
    parser.add_argument("--heun", action="store_true", help="50 Heun steps, too")
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    choice = Choice(weight=asked.guidance_scale)
    wanted = Measurement(asked.features, asked.reference, None, asked.num, asked.seed, asked.repeats, choice)
    pair = open_pair(asked.student, choice=choice)
    judges, reference = wanted.judges(pair.teacher, pair.texts)
    steps = [] if asked.ddim_steps == "0" else read_steps(asked.ddim_steps)
    listed = Listed(pair.conditions, wanted.labels_of(asked.student), pair.texts)
    amount = asked.num, asked.seed, asked.repeats
    result = evaluate({}, pair.teacher, pair.teacher.t_range, judges, listed, *amount, steps, asked.heun)
    asked_for = {"student": asked.student, "reference": reference, "guidance_scale": asked.guidance_scale}
    known = notes(judges.reference, asked.num)
    write_json(asked.output, {**asked_for, "notes": known, **result, **environment()})
    print_table(result)


if __name__ == "__main__":
    main()
