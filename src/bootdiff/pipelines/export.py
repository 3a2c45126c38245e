"""The student as a stock diffusers pipeline that needs no bootdiff."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bootdiff.files import write_json, write_text, write_whole
from bootdiff.pipelines.card import model_card
from bootdiff.pipelines.student_files import FILE
from bootdiff.student import Student


def one_step_scheduler(student: Student) -> Any:
    """A DDIMScheduler with a single timestep, at t_max: one step returns exactly x_0, and more are refused."""
    from diffusers import DDIMScheduler

    alpha, _ = student.schedule.split(student.schedule.lambda_(torch.tensor([student.t_max])))
    return DDIMScheduler(
        num_train_timesteps=1,
        trained_betas=[1 - alpha.item() ** 2],
        prediction_type=student.prediction.name,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="trailing",
        **student.limit.scheduler_fields(),
    )


def export_student(student: Student, folder: Path, words: Mapping[str, Any]) -> None:
    """Write a ``ConsistencyModelPipeline`` folder: one step by default, the teacher's own network class and config.

    Args:
        words: what the model card says beside the student's own facts: teacher, method, settings.
    """
    from diffusers import ConsistencyModelPipeline

    pipeline = ConsistencyModelPipeline(student.fold(), one_step_scheduler(student))

    def write(temporary: Path) -> None:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        facts = {"teacher": student.teacher_name, "t_min": student.t_min, "t_max": student.t_max}
        write_json(temporary / FILE, facts)
        write_text(temporary / "README.md", model_card({**facts, **words}))

    write_whole(folder, write)
