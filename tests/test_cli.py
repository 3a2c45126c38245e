"""The command line, called as a user calls it."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from diffusers import UNet2DModel
from PIL import Image

from tiny_unet import save_teacher

SMALL = ["--steps", "2", "--batch-size", "4", "--set", "sample_every=1", "--set", "log_every=1"]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    from bootdiff.distillation.distill import distill
    from bootdiff.methods.boot import BootSettings

    folder = tmp_path_factory.mktemp("cli") / "run"
    distill(str(tiny), folder, BootSettings(steps=2, batch_size=4, sample_every=1))
    return folder


def files(folder) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*"))


def test_help_does_not_import_torch():
    code = "import sys, bootdiff.cli.main; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_distill_sample_evaluate_report(cli, tiny, tmp_path):
    run = tmp_path / "run"
    assert cli("distill", tiny, "--output", run, *SMALL).code == 0
    assert (run / "student" / "model_index.json").exists() and (run / "samples" / "step-00000002.png").exists()
    again = cli("distill", tiny, "--output", run, *SMALL)
    assert again.code == 0 and again.out.startswith("done")

    for student in (run, run / "student", run / "student-path"):
        assert cli("sample", student, "--num", 4, "--seed", 3, "--output", tmp_path / "a.png").code == 0
        assert Image.open(tmp_path / "a.png").size == (98, 98)
    assert cli("sample", run, "--num", 3, "--output", tmp_path / "files").code == 0
    assert len(files(tmp_path / "files")) == 3
    assert cli("sample", run, "--num", 2, "--times", "0.9,0.5,0.1", "--output", tmp_path / "p.png").code == 0
    assert Image.open(tmp_path / "p.png").size == (148, 98)

    measured = cli("evaluate", run, "--num", 8, "--output", tmp_path / "e.json")
    assert measured.code == 0, measured.err
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["DDIM 1", "DDIM 4", "Heun's exact path 50", "student"]
    assert "student" in measured.out and (run / "evaluation.json").exists()

    assert cli("report", run).code == 0
    page = (run / "report.html").read_text()
    assert page.count('<img src="data:image/png') == 4 and "DDIM 4" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


def test_samples_do_not_depend_on_the_batch_size(cli, run, tmp_path):
    cli("sample", run, "--num", 5, "--seed", 7, "--output", tmp_path / "a", "--batch-size", 5)
    cli("sample", run, "--num", 2, "--seed", 10, "--output", tmp_path / "b", "--batch-size", 1)
    pixels = [Image.open(tmp_path / name).tobytes() for name in ("a/00004.png", "b/00001.png")]
    assert max(abs(a - b) for a, b in zip(*pixels, strict=True)) <= 1


def test_a_dry_run_shows_the_plan_and_writes_nothing(cli, tiny, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("delta: 0.1\nlearning_rate: 3e-4\nsteps: 7\n")
    words = ["distill", tiny, "--output", tmp_path / "run", "--config", config, "--set", "solver=heun", "--steps", 9]
    result = cli(*words, "--dry-run")
    assert result.code == 0
    for line in ("delta: 0.1", "learning_rate: 0.0003", "solver: heun", "steps: 9", "t_min: 0.0"):
        assert line in result.out
    assert not (tmp_path / "run").exists()


def test_the_config_is_kept_resolved(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["settings"]["t_max"] == pytest.approx(0.987, abs=1e-3) and config["method"] == "boot"


def test_inspect(cli, tiny):
    facts = json.loads(cli("inspect", tiny, "--json").out)
    assert facts["network"] == "UNet2DModel" and facts["prediction"] == "sample" and facts["shape"] == [1, 8, 8]
    assert facts["memory_gib"] > 0 and facts["step_seconds"] > 0
    assert "UNet2DModel" in cli("inspect", tiny).out


def test_help_lists_the_method_s_settings(cli):
    words = cli("distill", "--method", "boot", "--help").out
    for key in ("delta", "boundary_every", "gradient_accumulation", "keep_last", "time_sampling"):
        assert key in words


def test_help_of_train_teacher_lists_its_settings(cli):
    words = cli("train-teacher", "--help").out
    assert "channels" in words and "image_size" in words


def test_train_teacher_makes_a_pipeline_that_can_be_distilled(cli, tmp_path):
    pytest.importorskip("sklearn")
    teacher = tmp_path / "teacher"
    words = ["train-teacher", "digits", "--output", teacher, "--steps", 2, "--batch-size", 8]
    words += ["--prediction", "v_prediction", "--schedule", "linear", "--set", "channels=[8, 8]"]
    assert cli(*words).code == 0
    assert cli(*words).out.startswith("done")
    facts = json.loads(cli("inspect", teacher, "--json").out)
    assert facts["prediction"] == "v_prediction" and facts["beta_schedule"] == "linear"
    assert cli("distill", teacher, "--output", tmp_path / "run", *SMALL).code == 0


def test_a_teacher_s_dtype_belongs_to_the_run(cli, tiny, tmp_path):
    run = tmp_path / "run"
    words = ["distill", tiny, "--output", run, *SMALL]
    assert cli(*words, "--dtype", "bfloat16").code == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["teacher_options"] == {"dtype": "bfloat16"}
    assert cli(*words, "--dtype", "bfloat16").out.startswith("done")
    other = cli(*words)
    assert other.code == 2 and "another run" in other.err
    assert cli("evaluate", run, "--num", 4, "--no-heun", "--output", tmp_path / "e.json").code == 0
    assert json.loads(cli("inspect", tiny, "--dtype", "bfloat16", "--json").out)["dtype"] == "bfloat16"


def test_a_folder_goes_before_a_builtin_name(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_teacher(tmp_path / "digits", channels=3)
    assert json.loads(cli("inspect", "digits", "--json").out)["shape"] == [3, 8, 8]


BAD = {
    "no such teacher": (["distill", "nowhere", "--output", "OUT"], "nowhere"),
    "no such path": (["distill", "./nowhere/at/all", "--output", "OUT"], "nowhere"),
    "misspelt builtin": (["distill", "digit", "--output", "OUT"], "Did you mean 'digits'"),
    "folder is no pipeline": (["distill", "HERE", "--output", "OUT"], "model_index.json"),
    "misspelt setting": (["distill", "TINY", "--output", "OUT", "--set", "dleta=0.1"], "Did you mean 'delta'"),
    "unknown setting": (["distill", "TINY", "--output", "OUT", "--set", "xyzzy=1"], "xyzzy"),
    "no equals sign": (["distill", "TINY", "--output", "OUT", "--set", "delta"], "key=value"),
    "times swapped": (["distill", "TINY", "--output", "OUT", "--set", "t_min=0.9", "--set", "t_max=0.1"], "t_min"),
    "t_min above the default t_max": (["distill", "TINY", "--output", "OUT", "--set", "t_min=0.99"], "t_min"),
    "delta zero": (["distill", "TINY", "--output", "OUT", "--set", "delta=0"], "delta"),
    "delta negative": (["distill", "TINY", "--output", "OUT", "--set", "delta=-0.1"], "delta"),
    "delta too long": (["distill", "TINY", "--output", "OUT", "--set", "delta=0.99"], "delta"),
    "delta no number": (["distill", "TINY", "--output", "OUT", "--set", "delta=small"], "delta"),
    "delta nan": (["distill", "TINY", "--output", "OUT", "--set", "delta=nan"], "delta"),
    "batch zero": (["distill", "TINY", "--output", "OUT", "--batch-size", "0"], "batch_size"),
    "batch a fraction": (["distill", "TINY", "--output", "OUT", "--set", "batch_size=1.5"], "batch_size"),
    "steps zero": (["distill", "TINY", "--output", "OUT", "--steps", "0"], "steps"),
    "rate zero": (["distill", "TINY", "--output", "OUT", "--set", "learning_rate=0"], "learning_rate"),
    "seed negative": (["distill", "TINY", "--output", "OUT", "--seed", "-1"], "seed"),
    "unknown solver": (["distill", "TINY", "--output", "OUT", "--set", "solver=rk4"], "solver"),
    "unknown weight": (["distill", "TINY", "--output", "OUT", "--set", "loss_weight=cubic"], "loss_weight"),
    "unknown method": (["distill", "TINY", "--output", "OUT", "--method", "bot"], "Did you mean 'boot'"),
    "unknown tracker": (["distill", "TINY", "--output", "OUT", "--report-to", "paper"], "tracker"),
    "tracker not installed": (["distill", "TINY", "--output", "OUT", "--report-to", "wandb"], "not installed"),
    "half precision on a CPU": (["distill", "TINY", "--output", "OUT", "--set", "mixed_precision=fp16"], "fp16"),
    "no config": (["distill", "TINY", "--output", "OUT", "--config", "none.yaml"], "none.yaml"),
    "config is a list": (["distill", "TINY", "--output", "OUT", "--config", "LIST"], "key: value"),
    "config is no yaml": (["distill", "TINY", "--output", "OUT", "--config", "NOYAML"], "YAML"),
    "config runs code": (["distill", "TINY", "--output", "OUT", "--config", "CODE"], "YAML"),
    "output is a file": (["distill", "TINY", "--output", "LIST"], "is a file"),
    "output holds something else": (["distill", "TINY", "--output", "HERE"], "no bootdiff run"),
    "output holds another run": (["distill", "TINY", "--output", "RUN", "--steps", "3"], "another run"),
    "uneven split": (["distill", "TINY", "--output", "OUT", "--set", "gradient_accumulation=3"], "multiple of 3"),
    "sample: no folder": (["sample", "nowhere", "--output", "a.png"], "nowhere"),
    "sample: no student": (["sample", "HERE", "--output", "a.png"], "neither"),
    "sample: a teacher": (["sample", "TINY", "--output", "a.png"], "no one-step student"),
    "teacher: no channels": (["train-teacher", "PICTURES", "--output", "OUT", "--set", "channels=[]"], "channels"),
    "teacher: channel zero": (["train-teacher", "PICTURES", "--output", "OUT", "--set", "channels=[0]"], "channels"),
    "teacher: no such level": (["train-teacher", "PICTURES", "--output", "OUT", "--set", "attention_levels=[9]"],
                               "attention_levels"),
    "sample: folder with samples": (["sample", "RUN", "--output", "PICTURES"], "other files"),
    "distill: a student": (["distill", "STUDENT", "--output", "OUT"], "not a teacher"),
    "seed too large": (["distill", "TINY", "--output", "OUT", "--seed", "99999999999999999999"], "seed"),
    "sample: a teacher's path": (["sample", "TINY", "--times", "0.5", "--output", "a.png"], "neither"),
    "sample: times outside": (["sample", "RUN", "--times", "2", "--output", "a.png"], "outside"),
    "sample: times no numbers": (["sample", "RUN", "--times", "a,b", "--output", "a.png"], "numbers"),
    "sample: num zero": (["sample", "RUN", "--num", "0", "--output", "a.png"], "num"),
    "sample: other suffix": (["sample", "RUN", "--output", "a.tiff"], "png"),
    "sample: only a suffix": (["sample", "RUN", "--output", "m/.png"], "a suffix without a name"),
    "sample: a grid too large": (["sample", "RUN", "--num", "60000", "--output", "a.png"], "a grid of 60,000 images"),
    "sample: folder in use": (["sample", "RUN", "--output", "HERE"], "other files"),
    "evaluate: no json": (["evaluate", "RUN", "--output", "a.txt"], "json"),
    "evaluate: no features": (["evaluate", "RUN", "--features", "inception", "--reference", "digits", "--output",
                               "a.json"], "feature space"),
    "evaluate: reference alone": (["evaluate", "RUN", "--reference", "digits", "--output", "a.json"], "--features"),
    "evaluate: no reference": (["evaluate", "RUN", "--features", "digits", "--reference", "no.npz", "--output",
                                "a.json"], "no reference"),
    "evaluate: bad calls": (["evaluate", "RUN", "--calls", "0,a", "--output", "a.json"], "--calls"),
    "evaluate: other shape": (["evaluate", "RUN", "--teacher", "COLOUR", "--output", "a.json"], "another teacher"),
    "report: no run": (["report", "HERE"], "no distillation run"),
    "report: no folder": (["report", "nowhere"], "nowhere"),
    "inspect: classes of another kind": (["inspect", "LABELS"], "class_embed_type"),
    "teacher: no data": (["train-teacher", "nowhere", "--output", "OUT"], "no data set"),
    "teacher: empty folder": (["train-teacher", "EMPTY", "--output", "OUT"], "no images"),
    "teacher: bad schedule": (["train-teacher", "PICTURES", "--output", "OUT", "--schedule", "step"], "schedule"),
    "teacher: odd size": (["train-teacher", "PICTURES", "--output", "OUT"], "image_size"),
    "zero SNR: noise prediction at t = 1": (["distill", "MADE", "--output", "OUT", "--set", "t_max=1"], "lower t_max"),
    "a date for a number": (["distill", "TINY", "--output", "OUT", "--set", "t_max=2024-13-45"], "t_max"),
    "no finite decay": (["distill", "TINY", "--output", "OUT", "--set", "weight_decay=.inf"], "weight_decay"),
    "output is a folder": (["sample", "RUN", "--output", "KEEP"], "is a folder"),
    "damaged run": (["report", "DAMAGED"], "damaged"),
    "NaN weights: anywhere": (["distill", "MADE", "--output", "OUT"], "not finite"),
    "revision of a folder": (["distill", "TINY", "--output", "OUT", "--revision", "main"], "revision"),
    "no such variant": (["distill", "TINY", "--output", "OUT", "--variant", "fp16"], "variant 'fp16'"),
    "unknown dtype": (["inspect", "TINY", "--dtype", "float8"], "dtype"),
    "lpips without weights": (["distill", "TINY", "--output", "OUT", "--set", "distance=lpips"], "lpips_weights"),
    "lpips with other weights": (["distill", "TINY", "--output", "OUT", "--set", "distance=lpips", "--set",
                                  "lpips_weights=RUN/student-path/unet"], "lacks conv0"),
    "lpips weights nowhere": (["distill", "TINY", "--output", "OUT", "--set", "distance=lpips", "--set",
                               "lpips_weights=nowhere"], "nowhere"),
    "digits distance of colour": (["distill", "MADE", "--output", "OUT", "--set", "distance=digits"], "(1, 8, 8)"),
    "threshold ratio zero": (["distill", "TINY", "--output", "OUT", "--set", "dynamic_ratio=0"], "dynamic_ratio"),
    "reference: other size": (["evaluate", "RUN", "--features", "pixels", "--reference", "PICTURES", "--output",
                               "a.json"], "(1, 9, 9)"),
    "reference: other channels": (["evaluate", "RUN", "--features", "pixels", "--reference", "COLOURED", "--output",
                                   "a.json"], "(3, 8, 8)"),
    "reference: unreadable": (["evaluate", "RUN", "--features", "pixels", "--reference", "BROKEN", "--output",
                               "a.json"], "b.png cannot be read"),
    "reference: mixed sizes": (["evaluate", "RUN", "--features", "pixels", "--reference", "MIXED", "--output",
                                "a.json"], "b.png is 4×4"),
    "reference: other height": (["evaluate", "RUN", "--features", "digits", "--reference", "TALL", "--output",
                                 "a.json"], "(1, 12, 8)"),
    "revision of a builtin": (["inspect", "digits", "--revision", "main"], "no revisions"),
    "reference: empty": (["evaluate", "RUN", "--features", "pixels", "--reference", "EMPTY", "--output", "a.json"],
                         "no images"),
}  # fmt: skip


#: scheduler configs at impossible values: what is written over a good one, and the field that must be named
BAD_SCHEDULERS = {
    "no timesteps": ({"num_train_timesteps": 0}, "num_train_timesteps"),
    "one timestep": ({"num_train_timesteps": 1}, "num_train_timesteps"),
    "timesteps a fraction": ({"num_train_timesteps": 10.5}, "num_train_timesteps"),
    "timesteps a word": ({"num_train_timesteps": "many"}, "num_train_timesteps"),
    "beta_start zero": ({"beta_start": 0, "beta_schedule": "linear"}, "beta_start"),
    "beta_start negative": ({"beta_start": -0.1, "beta_schedule": "linear"}, "beta_start"),
    "beta_start nan": ({"beta_start": float("nan"), "beta_schedule": "linear"}, "beta_start"),
    "beta_end one": ({"beta_end": 1.0, "beta_schedule": "linear"}, "beta_end"),
    "betas fall": ({"beta_start": 0.02, "beta_end": 0.001, "beta_schedule": "linear"}, "beta_start"),
    "unknown betas": ({"beta_schedule": "parabolic"}, "beta_schedule"),
    "betas of another length": ({"trained_betas": [0.1, 0.2, 0.3]}, "trained_betas"),
    "a beta above one": ({"num_train_timesteps": 2, "trained_betas": [0.1, 1.2]}, "trained_betas"),
    "betas no list": ({"trained_betas": 0.1}, "trained_betas"),
    "unknown prediction": ({"prediction_type": "image"}, "prediction_type"),
    "flow prediction": ({"prediction_type": "flow_prediction"}, "flow"),
    "flow sigmas": ({"use_flow_sigmas": True}, "flow"),
    "a score model": ({"_class_name": "ScoreSdeVeScheduler"}, "ScoreSdeVe"),
    "unknown spacing": ({"timestep_spacing": "random"}, "timestep_spacing"),
    "continuous time": ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type"),
    "offset negative": ({"steps_offset": -1}, "steps_offset"),
    "offset past the end": ({"steps_offset": 1000}, "steps_offset"),
    "zero SNR a word": ({"rescale_betas_zero_snr": "yes"}, "rescale_betas_zero_snr"),
    "unknown variance": ({"variance_type": "guessed"}, "variance_type"),
    "clip a word": ({"clip_sample": "yes"}, "clip_sample"),
    "clip to nothing": ({"clip_sample_range": 0}, "clip_sample_range"),
    "clip to infinity": ({"clip_sample_range": float("inf")}, "clip_sample_range"),
    "threshold ratio above one": ({"thresholding": True, "dynamic_thresholding_ratio": 2}, "dynamic_threshold"),
    "threshold below one": ({"thresholding": True, "sample_max_value": 0.5}, "sample_max_value"),
    "unknown scheduler": ({"_class_name": "MyScheduler"}, "MyScheduler"),
    "a consistency model": ({"_class_name": "CMStochasticIterativeScheduler"}, "CMStochastic"),
    "class no word": ({"_class_name": 5}, "cannot be read"),
    "sigma_data zero": ({"_class_name": "EDMEulerScheduler", "sigma_data": 0}, "sigma_data"),
    "sigma_min zero": ({"_class_name": "EDMEulerScheduler", "sigma_min": 0}, "sigma_min"),
    "sigmas swapped": ({"_class_name": "EDMEulerScheduler", "sigma_min": 9.0, "sigma_max": 3.0}, "sigma_min"),
    "rho negative": ({"_class_name": "EDMEulerScheduler", "rho": -7}, "rho"),
    "unknown sigmas": ({"_class_name": "EDMEulerScheduler", "sigma_schedule": "linear"}, "sigma_schedule"),
    "EDM of samples": ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "prediction_type"),
    "sigma_max infinite": ({"_class_name": "EDMEulerScheduler", "sigma_max": float("inf")}, "sigma_max"),
}  # fmt: skip
#: networks that a teacher's folder may hold, and what the answer must name
BAD_NETWORKS = {
    "more channels out than in": ({"out_channels": 3}, "channels"),
    "variance without a scheduler that learns it": ({"out_channels": 2}, "variance_type"),
    "a size that cannot be halved": ({"sample_size": 9}, "sample_size"),
    "no size": ({"sample_size": None}, "sample_size"),
    "a table of another length": ({"time_embedding_type": "learned", "num_train_timesteps": 50}, "num_train_timesteps"),
    "three sides": ({"sample_size": (8, 8, 8)}, "sample_size"),
    "a norm that fails": ({"norm_eps": -5.0}, "not finite"),
    "sigma embedding without sigmas": ({"time_embedding_type": "fourier"}, "fourier"),
}  # fmt: skip
BAD.update({f"scheduler: {name}": (["inspect", "MADE"], words) for name, (_, words) in BAD_SCHEDULERS.items()})
BAD.update({f"network: {name}": (["distill", "MADE", "--output", "OUT"], w) for name, (_, w) in BAD_NETWORKS.items()})


def make_teacher(folder, name):
    kind, _, which = name.partition(": ")
    if kind == "scheduler":
        return save_teacher(folder, scheduler=BAD_SCHEDULERS[which][0])
    if kind == "network":
        return save_teacher(folder, unet=BAD_NETWORKS[which][0])
    if kind == "NaN weights":
        network = UNet2DModel.from_pretrained(save_teacher(folder) / "unet")
        network.conv_in.weight.data[0] = float("nan")
        network.save_pretrained(folder / "unet")
        return folder
    if kind == "zero SNR":
        return save_teacher(folder, prediction_type="epsilon", rescale_betas_zero_snr=True)
    return save_teacher(folder, channels=3)


@pytest.fixture
def places(tiny, run, tmp_path):
    here = tmp_path / "here"
    for name in ("here", "empty", "pictures", "coloured", "broken", "mixed", "tall"):
        (tmp_path / name).mkdir()
    (here / "note.txt").write_text("mine")
    for name, text in (("list", "- 1\n"), ("noyaml", "a: [1"), ("code", "a: !!python/object/apply:os.getcwd []")):
        (tmp_path / f"{name}.yaml").write_text(text)
    Image.new("L", (9, 9)).save(tmp_path / "pictures" / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "coloured" / "a.png")
    for name in ("broken", "mixed"):
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "keep.png").mkdir()
    (tmp_path / "keep.png" / "mine.txt").write_text("precious")
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "meta.json").write_text("{}")
    (tmp_path / "broken" / "b.png").write_bytes(b"no picture")
    Image.new("L", (4, 4)).save(tmp_path / "mixed" / "b.png")
    Image.new("L", (8, 12)).save(tmp_path / "tall" / "a.png")
    return {
        "OUT": tmp_path / "out", "HERE": here, "TINY": tiny, "RUN": run, "EMPTY": tmp_path / "empty",
        "LIST": tmp_path / "list.yaml", "NOYAML": tmp_path / "noyaml.yaml", "CODE": tmp_path / "code.yaml",
        "PICTURES": tmp_path / "pictures", "STUDENT": run / "student", "COLOURED": tmp_path / "coloured",
        "BROKEN": tmp_path / "broken", "MIXED": tmp_path / "mixed", "TALL": tmp_path / "tall",
        "KEEP": tmp_path / "keep.png", "DAMAGED": tmp_path / "damaged",
    }  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(cli, places, tmp_path, monkeypatch, name):
    words, expected = BAD[name]
    if "MADE" in words:
        places["MADE"] = make_teacher(tmp_path / "made", name)
    if "COLOUR" in words:
        places["COLOUR"] = save_teacher(tmp_path / "colour", channels=3)
    if "LABELS" in words:
        places["LABELS"] = save_teacher(tmp_path / "labels", unet={"class_embed_type": "timestep"})
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path), files(places["RUN"])
    result = cli(*[str(places.get(word, word)).replace("RUN/", f"{places['RUN']}/") for word in words])
    assert result.code == 2, result
    assert expected in result.err and "Traceback" not in result.err
    if result.err.startswith("bootdiff: error:"):
        assert len(result.err.strip().splitlines()) == 1
    assert (files(tmp_path), files(places["RUN"])) == before


def test_the_version(cli):
    import bootdiff

    assert cli("--version").out.strip() == f"bootdiff {bootdiff.__version__}"


@pytest.mark.parametrize("count, columns", [(1, 1), (4, 2), (7, 3), (8, 4), (10, 5), (16, 4)])
def test_a_grid_is_whole_where_it_can_be(count, columns):
    """Columns of tiles of 48 pixels and gaps of 2."""
    import torch

    from bootdiff.data.pictures import grid

    picture = grid(torch.zeros(count, 1, 8, 8))
    assert (picture.width + 2) // 50 == columns and (picture.height + 2) // 50 == -(-count // columns)


def test_an_interruption_before_the_work_is_told(cli, monkeypatch, tmp_path):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bootdiff.cli.distill.run_distill", stop)
    stopped = cli("distill", "digits", "--output", tmp_path / "run")
    assert stopped.code == 130 and len(stopped.err.splitlines()) == 1 and "interrupted" in stopped.err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_command_that_is_ended_says_so(cli, monkeypatch, name):
    """Also one that trains nothing, and so has nothing to save."""
    number = getattr(signal, name)
    before = signal.getsignal(number)
    monkeypatch.setattr("bootdiff.teachers.load_teacher", lambda *words, **options: signal.raise_signal(number))
    ended = cli("inspect", "digits")
    assert ended.code == 130 and "interrupted; run the same command again" in ended.err
    assert signal.getsignal(number) == before
