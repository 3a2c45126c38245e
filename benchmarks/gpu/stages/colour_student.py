"""A one-step student of the colour teacher: BOOT, then a correction, class-conditional."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from classifier import ColourFeatures
from context import HERE, PACKED, Context
from students import Recipe, train_and_measure

from bootdiff.evaluation.references import Reference
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.frechet import Statistics
from stages.colour_teacher import NAME
from stages.fashion import CORRECTION, PATH

BOOT = {"learning_rate": 7e-4, "lr_schedule": "cosine", "warmup_steps": 50, "ema_decay": 0.995}
RECIPE = Recipe(
    BOOT,
    {**CORRECTION, **PATH, "learning_rate": 1e-4, "t_max": 0.93, "batch_size": 512},
    reserve=40.0,
    # The teacher's own rows are in its own record, with as many samples as its stage had time for.
    teacher_calls=(10,),
)


def run(context: Context) -> None:
    """The tables of ``train_and_measure``."""
    folder = find_teacher(context)
    features = ColourFeatures(folder / "features.onnx")
    statistics, made_with = Statistics.load(folder / "reference.npz")
    if made_with != features.name:
        raise ValueError(f"{folder}/reference.npz was made with {made_with}, not {features.name}; run colour-teacher.")
    judges = Judges(features, Reference(statistics, None, NAME, features.name))
    train_and_measure(context, folder, judges, RECIPE)


def find_teacher(context: Context) -> Path:
    """The teacher's folder: what its stage made, here or in an earlier call, or what is packed or in the repository.

    Raises:
        FileNotFoundError: if there is none, in one line.
    """
    own, packed, unpacked = context.work / NAME, context.output / "colour-teacher.zip", context.work / "unpacked"
    if packed.is_file() and not (own / "reference.npz").is_file():
        try:
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(unpacked)
        except (OSError, zipfile.BadZipFile) as error:
            context.say(f"{packed} is damaged ({error}); the teacher is looked for elsewhere")
    places = (
        own,  # a run that is resumed asks for the same folder
        context.everything / "colour-teacher" / NAME,
        unpacked / NAME,
        PACKED / "teachers" / NAME,
        HERE / "teachers" / NAME,
    )
    for place in places:
        if (place / "model_index.json").is_file() and (place / "reference.npz").is_file():
            context.say(f"the teacher is in {place}")
            return place if place == own else shutil.copytree(place, own, dirs_exist_ok=True)
    raise FileNotFoundError(
        f"there is no colour teacher: run the stage colour-teacher first, or put its archive into {context.output}."
    )
