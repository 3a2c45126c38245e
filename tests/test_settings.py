"""Settings: every method has those that it reads and no others, and what older runs say of others does no harm."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import bootdiff
import tiny_pipelines
from bootdiff.config.base import Settings
from bootdiff.config.mixins import Architecture, Conditioning, Encoders, Monitoring, Start
from bootdiff.config.settings import TrainingSettings
from bootdiff.config.teacher import TeacherOptions
from bootdiff.core.errors import BootdiffError
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import BootLoss, BootSettings
from bootdiff.methods.registry import find_method, names
from bootdiff.teachers import load_teacher
from bootdiff.teachers.base import Origin
from bootdiff.teaching.settings import KINDS, TeacherSettings
from bootdiff.teaching.teach import train_teacher
from toys import TRIED

SOURCE = Path(bootdiff.__file__).parents[1]
USER = """
import bootdiff
settings = bootdiff.BootSettings(steps=3, guidance_range=[1, 4], t_max=None)
bootdiff.BootSettings(stepz=3)
reveal_type(bootdiff.load_teacher("digits"))
bootdiff.nothing
student = bootdiff.distill("digits", "run", settings)
bootdiff.export_student(student, "student", {})
"""
OTHERS = "torch.*,diffusers.*,transformers.*,accelerate.*,numpy.*,safetensors.*,PIL.*,matplotlib.*,sklearn.*"

#: what only says what a run costs, or whether settings agree, is no use of a setting
NO_USE = {"passes", "span"}

#: the groups that are read wherever a student is made and looked at, by no method
OF_ANY_METHOD = (Architecture, Conditioning, Encoders, Monitoring, Start)

KEYS = """
steps batch_size seed learning_rate lr_schedule warmup_steps weight_decay ema_decay gradient_clip gradient_accumulation
mixed_precision gradient_checkpointing compile log_every sample_every checkpoint_every keep_last t_min t_max distance
lpips_weights target_limit dynamic_ratio dynamic_maximum start prompts prompt_column classes null_class guidance_scale
guidance_range export_guidance negative_prompt base noise_level prompt_cache_gib watch_every stop_when keep
offload_encoders student delta solver loss_weight time_sampling boundary_weight boundary_every jvp_full
"""


@pytest.fixture
def used(monkeypatch) -> set[str]:
    """The settings that are read from now on, other than to be checked."""
    read: set[str] = set()

    def noted(self: Settings, name: str) -> object:
        if not name.startswith("_") and name in type(self).model_fields:
            caller = sys._getframe(1).f_code.co_name
            if caller not in {*NO_USE, *type(self).__pydantic_decorators__.model_validators}:
                read.add(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(Settings, "__getattribute__", noted, raising=False)
    return read


def test_settings_stand_in_the_order_of_earlier_runs():
    assert list(BootSettings.model_fields) == KEYS.split()
    for method in names():
        fields = find_method(method).settings.model_fields
        assert [key for key in fields if key in KEYS.split()] == [key for key in KEYS.split() if key in fields]


@pytest.mark.parametrize("method", TRIED)
def test_a_method_reads_every_setting_of_its_own(method, tiny, tmp_path, used):
    kind = find_method(method).settings
    shared = {key for group in OF_ANY_METHOD for key in group.model_fields}
    own = {"boot_weight": 0.5, "fake_warmup": 0} if "boot_weight" in kind.model_fields else {}
    shared |= {"resize"}  # of images alone, which tests/test_source_runs.py asks for
    if own and find_method(method).student == "denoising":  # which has no path that BOOT's loss could hold
        own.pop("boot_weight")
        shared |= {*BootLoss.model_fields}
    before = method.split("+")[0]
    alone = {"steps": 1, **({"fake_warmup": 0} if "fake_warmup" in find_method(before).settings.model_fields else {})}
    first = {before: alone} if "+" in method else {}
    own |= {"critic_weight": 0.1} if "critic_weight" in kind.model_fields else {}
    own |= {"pair_steps": 2} if "pair_steps" in kind.model_fields else {}
    distill(str(tiny), tmp_path, kind(steps=1, batch_size=4, watch_every=0, **own, **first), method)
    assert {*kind.model_fields} - used - shared == set()


def test_the_way_to_a_student_reads_every_setting_that_is_no_method_s(tmp_path, used):
    (tmp_path / "words.txt").write_text("a cat\na dog\n")
    tiny_pipelines.save_if(tmp_path / "if")
    tiny_pipelines.save_if_sr(tmp_path / "sr")  # whose settings are the most
    words = {"prompts": str(tmp_path / "words.txt"), "steps": 1, "batch_size": 2, "sample_every": 0}
    distill(str(tmp_path / "if"), tmp_path / "base", BootSettings(**words, watch_every=0))
    used.clear()
    distill(str(tmp_path / "sr"), tmp_path / "run", BootSettings(**words, base=str(tmp_path / "base"), watch_every=1))
    assert {*BootSettings.model_fields} - used == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_teacher_reads_every_setting_that_it_has_and_no_other(kind, tmp_path, used):
    tiny = {"steps": 1, "batch_size": 2, "channels": [32, 32], "text_width": 32, "text_layers": 1, "sample_every": 1}
    tiny |= {"autoencoder_steps": 1, "autoencoder_channels": [8, 8]}
    train_teacher("digits", tmp_path, TeacherSettings(kind=kind, **tiny))
    assert used == {*KINDS[kind].model_fields}


def test_a_teacher_of_an_earlier_version_goes_on(cli, tmp_path):
    words = ["train-teacher", "digits", "--output", tmp_path / "run", "--steps", 1, "--batch-size", 2]
    words += ["--set", "channels=[8,8]", "--set", "sample_every=0"]
    assert cli(*words).code == 0
    path = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert "text_width" not in config["settings"] and "channels" in config["settings"]
    config["settings"] |= {"text_width": 64, "kl_weight": 1e-4}  # which had no effect, and stood there nevertheless
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    done = cli(*words)
    assert done.code == 0 and done.out.startswith("done:") and done.err == ""
    config["settings"]["schedule"] = "linear"  # but what has an effect still tells runs apart
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert "another run" in cli(*words).err


def test_a_setting_of_another_kind_is_said_to_have_no_effect(cli, tmp_path):
    (tmp_path / "old.yaml").write_text("text_width: 32\nchannels: [8, 8]\n")
    words = ["train-teacher", "digits", "--output", tmp_path / "run", "--config", tmp_path / "old.yaml"]
    done = cli(*words, "--steps", 1, "--batch-size", 2, "--set", "sample_every=0")
    assert done.code == 0 and "note: a teacher of kind unconditional has no text_width" in done.err
    assert "channels" not in done.err


def test_help_of_a_kind_lists_its_settings(cli):
    some, every = cli("train-teacher", "--kind", "classes", "--help").out, cli("train-teacher", "--help").out
    assert "condition_dropout" in some and "text_width" not in some and "text_width" in every
    assert cli("train-teacher", "--kind=dit", "--help").code == 2


@pytest.mark.parametrize("kind", [TrainingSettings, BootSettings, TeacherSettings])
def test_settings_are_refused_in_one_line_however_they_are_made(kind):
    for make in (lambda words: kind(**words), kind.model_validate):
        with pytest.raises(BootdiffError, match=r"^setting steps: .* got 0\.$"):
            make({"steps": 0})


def test_a_teacher_s_options_are_those_of_the_loader(cli):
    own = {field.name: field.default for field in fields(TeacherOptions)}
    taken = {name: parameter.default for name, parameter in inspect.signature(load_teacher).parameters.items()}
    assert own == {name: default for name, default in taken.items() if name not in ("name", "commit")}
    for command in ("inspect", "distill"):
        assert all(f"--{name.replace('_', '-')}" in cli(command, "--help").out for name in own)


def test_an_origin_says_what_differs_from_the_defaults():
    origin = Origin("me/it", dtype="bfloat16", size=64, revision="main", commit="0123")
    assert origin.options == {"revision": "main", "dtype": "bfloat16", "size": 64}
    assert origin.pinned == {**origin.options, "revision": "0123"} and Origin("me/it").options == {}


def test_type_checkers_read_the_names_that_are_public():
    source = ast.parse(Path(bootdiff.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    read = {alias.name: line.module for line in block.body for alias in line.names}
    assert read == bootdiff._PUBLIC and {*read} == {*bootdiff.__all__}
    assert (Path(bootdiff.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_a_type_checker_finds_a_misspelt_setting(tmp_path):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(USER)
    # Of what the package stands on it need not know the types.
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\npython_version = 3.11\nmypy_path = {SOURCE}\n[mypy-{OTHERS}]\nfollow_imports = skip\n"
    )
    words = ["--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache", tmp_path / "user.py"]
    found, failed, _ = api.run([str(word) for word in words])
    assert not failed
    said = [line.partition("user.py:")[2] for line in found.splitlines()]
    assert said[0].startswith('4: error: Unexpected keyword argument "stepz"')
    assert said[1].startswith("5: note: Revealed type is") and "bootdiff.teachers.base.Teacher" in said[1]
    assert said[2].startswith('6: error: Module has no attribute "nothing"')
    assert found.splitlines()[3:] == ["Found 2 errors in 1 file (checked 1 source file)"]


def test_no_is_a_word_for_every_setting_that_has_it():
    """YAML reads an unquoted no as false."""
    assert TeacherSettings(mixed_precision=False, with_student=False).mixed_precision == "no"
    assert TeacherSettings(mixed_precision=False, with_student=False).with_student == "no"
