"""The student as a stock diffusers pipeline that needs no bootdiff."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.files import write_json, write_text, write_whole
from bootdiff.pipelines.card import model_card
from bootdiff.pipelines.student_files import FILE, student_facts
from bootdiff.student import Student
from bootdiff.teachers.one_call import check_exportable


def one_step_scheduler(student: Student) -> Any:
    """A DDIMScheduler with a single timestep, at t_max: one step returns exactly x_0, and more are refused.

    Raises:
        BootdiffError: for rectified flow, whose ``x_T − t out`` no variance-preserving scheduler can say, or for a
            t_max whose alpha it cannot hold in float32.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1,
        trained_betas=[check_exportable(student.call, student.t_max)],
        prediction_type=student.call.prediction_type,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="trailing",
        **student.limit.scheduler_fields(),
    )


def one_step_network(student: Student) -> Any:
    """The folded network, scaled to what ``one_step_scheduler`` expects of it; where nothing is to scale, as it is."""
    from bootdiff.student.unet2d import rescale

    network: Any = student.fold()
    call = student.call
    # The stock pipeline takes the side of a square.
    network.register_to_config(sample_size=student.shape[-1])
    if call.scale != 1 or abs(call.output_scale - 1) > 1e-6:
        rescale(network, call.scale, call.output_scale)
    return network


def export_student(student: Student, folder: Path, words: Mapping[str, Any]) -> None:
    """Write a ``ConsistencyModelPipeline`` folder: one step by default, the teacher's own network class.

    Args:
        words: what the model card says beside the student's own facts: teacher, method, settings.
    """
    from diffusers import ConsistencyModelPipeline

    pipeline = ConsistencyModelPipeline(one_step_network(student), one_step_scheduler(student))

    def write(temporary: Path) -> None:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        facts = student_facts(student)
        write_json(temporary / FILE, facts)
        write_text(temporary / "README.md", model_card({**facts, **words}))

    write_whole(folder, write)
