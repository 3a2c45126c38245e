"""Teachers and feature spaces that functions of a Python file are, on the command line; and samples of any shape."""

import json
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bootdiff
from bootdiff.core.errors import BootdiffError
from bootdiff.data.pictures import on_scale, own_scale
from bootdiff.evaluation.measurement import Measurement
from bootdiff.evaluation.references import find_reference, open_features
from bootdiff.metrics.features import load_features
from bootdiff.report.build import build_report
from bootdiff.storage.runs import Run
from bootdiff.teachers.features import TeacherFeatures

SOURCE = """
    import torch
    from torch import nn

    import bootdiff
    from beside import SHAPES


    class Network(nn.Module):
        def __init__(self, shape):
            super().__init__()
            kind = {1: nn.Linear, 3: nn.Conv2d, 4: nn.Conv3d}[len(shape)]
            more = {} if len(shape) == 1 else {"kernel_size": 3, "padding": 1}
            self.first, self.middle, self.last = (kind(a, b, **more) for a, b in
                ((shape[0], 8), (8, 8), (8, shape[0])))

        def forward(self, x, timestep):
            return self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))


    def made(shape):
        torch.manual_seed(0)
        return bootdiff.CallableTeacher(Network(shape), bootdiff.Cosine(), "sample", shape)


    def picture():
        return made(SHAPES["picture"])


    def flat():
        return made(SHAPES["flat"])


    def channels():
        return made(SHAPES["channels"])


    def volume():
        return made(SHAPES["volume"])


    def other():
        torch.manual_seed(1)
        return bootdiff.CallableTeacher(Network((1, 8, 8)), bootdiff.Cosine(), "sample", (1, 8, 8))


    def pipeline():
        from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
        torch.manual_seed(0)
        network = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8),
                              norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                              up_block_types=("UpBlock2D",) * 2)
        return DDIMPipeline(network, DDIMScheduler(prediction_type="v_prediction"))


    def broken():
        raise KeyError("weights")


    def a_dictionary():
        return {"network": None}


    def a_name():
        return "digits"


    def half():
        teacher = made((1, 8, 8))
        network = teacher.network.half()
        network.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(module.first.weight.dtype), inputs[1]))
        return teacher


    def changed():
        teacher = made((1, 8, 8))
        teacher.network.last.bias.data += 1
        return teacher


    def read_otherwise():
        return bootdiff.CallableTeacher(made((1, 8, 8)).network, bootdiff.Linear(), "epsilon", (1, 8, 8))


    def closed_form():
        return bootdiff.Gaussian(shape=(1, 4, 4))


    class Frozen(Network):
        @torch.no_grad()
        def forward(self, x, timestep):
            return super().forward(x, timestep)


    class OneAtATime(Network):
        def forward(self, x, timestep):
            if len(x) > 1:
                raise ValueError("one image at a time")
            return super().forward(x, timestep)


    def without_gradients():
        return bootdiff.CallableTeacher(Frozen((1, 8, 8)), bootdiff.Cosine(), "sample", (1, 8, 8))


    def one_at_a_time():
        return bootdiff.CallableTeacher(OneAtATime((1, 8, 8)), bootdiff.Cosine(), "sample", (1, 8, 8))


    def negative():
        return made((1, -8, 8))


    async def later():
        return made((1, 8, 8))


    def loud():
        print("loading")
        return made((1, 8, 8))


    def no_columns(images):
        return images.flatten(1)[:, :0]


    def features(images):
        return images.flatten(1)[:, :6]


    def three_features(images):
        return images.flatten(1)[0, :3]


    value = 3
"""
SHAPES = {"picture": (1, 8, 8), "flat": (2,), "channels": (5, 8, 8), "volume": (1, 4, 4, 4)}
FEW = ("--steps", "4", "--batch-size", "4")


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    Path("beside.py").write_text(f"SHAPES = {SHAPES!r}\n", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    monkeypatch.setattr("sys.path", list(sys.path))
    return tmp_path


def test_a_function_s_teacher_goes_through_every_command(cli, own):
    told = ("--teacher", "own.py:picture")
    distilled = cli("distill", "own.py:picture", "--output", "run", *FEW)
    assert distilled.code == 0, distilled.err
    assert "No samples here" not in Path("run/report.html").read_text(encoding="utf-8")
    again = cli("distill", "own.py:picture", "--output", "run", *FEW)
    assert again.code == 0 and "is finished" in again.out
    assert cli("sample", "run", *told, "--num", "4", "--output", "a.npz").code == 0
    images = np.load("a.npz")["images"]
    assert images.shape == (4, 1, 8, 8) and images.dtype == np.float32
    assert cli("sample", "run", *told, "--num", "4", "--refine", "1", "--output", "a.png").code == 0
    assert cli("sample", "run", *told, "--times", "0.9,0.1", "--num", "2", "--output", "path.png").code == 0
    measured = cli("evaluate", "run", *told, "--num", "64", "--calls", "1,2", "--features", "own.py:features",
                   "--reference", "digits", "--output", "e.json")  # fmt: skip
    assert measured.code == 0, measured.err
    found = json.loads(Path("e.json").read_text(encoding="utf-8"))
    assert found["features"].startswith("own.py:features-") and found["teacher"] == "own.py:picture"
    alone = cli("evaluate", "own.py:picture", "--num", "64", "--calls", "1,2", "--output", "alone.json")
    assert alone.code == 0 and json.loads(Path("alone.json").read_text(encoding="utf-8"))["student"] is None
    assert cli("compare", "run", *told, "--num", "16", "--calls", "1,2", "--output", "compared").code == 0
    assert Path("compared/samples.png").is_file()
    assert cli("report", "run", *told, "--output", "r.html").code == 0
    assert "Teacher and student" in Path("r.html").read_text(encoding="utf-8")
    assert cli("inspect", "own.py:picture").code == 0


@pytest.mark.parametrize("name", ["flat", "channels", "volume"])
def test_a_shape_that_no_picture_fits_is_no_error(cli, own, name):
    told = ("--teacher", f"own.py:{name}")
    distilled = cli("distill", f"own.py:{name}", "--output", "run", *FEW, "--set", "watch_every=2")
    assert distilled.code == 0 and "not made" not in distilled.err, distilled.err
    refused = cli("sample", "run", *told, "--output", "a.png", "--num", "2")
    assert refused.code == 2 and "FILE.npz" in refused.err and not Path("a.png").exists()
    assert cli("sample", "run", *told, "--output", "a.npz", "--num", "64").code == 0
    assert np.load("a.npz")["images"].shape == (64, *SHAPES[name])
    options = (*told, "--num", "64", "--calls", "1,2")
    for features in ("pixels", "teacher"):
        words = ("--features", features, "--reference", "a.npz", "--output", f"{features}.json")
        measured = cli("evaluate", "run", *options, *words)
        assert measured.code == 0, measured.err
        rows = json.loads(Path(f"{features}.json").read_text(encoding="utf-8"))["rows"]
        # The reference is what the student makes of the same noises.
        assert rows[-1]["kind"] == "student" and rows[-1]["frechet_distance"] == pytest.approx(0, abs=1e-4)
        assert rows[0]["frechet_distance"] > 10 * rows[-1]["frechet_distance"]
    assert cli("compare", "run", *options, "--output", "compared").code == 0
    assert cli("report", "run", *told, "--output", "r.html").code == 0


def test_a_pipeline_that_a_function_puts_together_is_exported(cli, own):
    assert cli("distill", "own.py:pipeline", "--output", "run", *FEW).code == 0
    assert Path("run/student/model_index.json").is_file()
    # Its student's folder holds all that sampling needs; its teacher is asked for by name.
    assert cli("sample", "run", "--num", "2", "--output", "a.png").code == 0
    refused = cli("sample", "run", "--refine", "1", "--num", "2", "--output", "b.png")
    assert refused.code == 2 and "runs only where the command line names it" in refused.err
    told = ("--teacher", "own.py:pipeline")
    assert cli("sample", "run", *told, "--refine", "1", "--num", "2", "--output", "b.png").code == 0


def test_another_teacher_s_weights_do_not_go_on_with_a_run(cli, own):
    assert cli("distill", "own.py:picture", "--output", "run", *FEW).code == 0
    Path("own.py").write_text(Path("own.py").read_text().replace("manual_seed(0)", "manual_seed(5)"))
    refused = cli("distill", "own.py:picture", "--output", "run", *FEW)
    assert refused.code == 2 and "teacher" in refused.err


@pytest.mark.parametrize(("word", "said"), [
    ("own.py:pictur", "Did you mean 'picture'?"),
    ("own.py:value", "has no function 'value'"),
    ("own.py:broken", "raised KeyError"),
    ("own.py:a_dictionary", "returned no teacher"),
    ("own.py:a_name", "returned a string"),
    ("own.py:without_gradients", "no gradient reaches the weights"),
    ("own.py:one_at_a_time", "one image at a time"),
    ("own.py:negative", "expected the shape of one sample"),
    ("own.py:later", "is a coroutine"),
    ("missing.py:teacher", "no Python file at missing.py"),
    ("syntax.py:teacher", "raised SyntaxError"),
    ("exits.py:teacher", "raised SystemExit"),
    ("folder.py:teacher", "is a folder"),
])  # fmt: skip
def test_a_fault_in_a_file_is_one_line(cli, own, word, said):
    Path("syntax.py").write_text("def teacher(:\n")
    Path("exits.py").write_text("raise SystemExit(3)\n")
    Path("folder.py").mkdir()
    failed = cli("distill", word, "--output", "run", *FEW)
    assert failed.code == 2 and said in failed.err
    assert failed.err.count("\n") == 1 and "Traceback" not in failed.err and not Path("run").exists()


def test_a_file_s_own_content_runs_not_a_cached_compilation(tmp_path):
    """Beside it lies the compiled file of another source, as old as it is long."""
    import importlib.util
    import os
    import py_compile

    from bootdiff.cli.functions import named_features

    file = tmp_path / "own.py"
    file.write_text("def f(images):\n    return 'cached'\n")
    cached = importlib.util.cache_from_source(str(file))
    py_compile.compile(str(file), cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    file.write_text("def f(images):\n    return 'theirs'\n")
    assert os.path.exists(cached)
    assert named_features(f"{file}:f").function(None) == "theirs"
    file.write_text("def f(images):\n    return 'other!'\n")
    assert named_features(f"{file}:f").function(None) == "other!"


def test_a_network_that_prints_leaves_the_inspection_json(cli, own):
    (own / "speaks.py").write_text(
        "import torch, bootdiff\nclass Speaks(torch.nn.Module):\n    def forward(self, x, timestep):\n"
        "        print('debug')\n        return 0 * x\n"
        "def t():\n    return bootdiff.CallableTeacher(Speaks(), bootdiff.Cosine(), 'sample', (2,))\n"
    )
    shown = cli("inspect", f"{own / 'speaks.py'}:t", "--json")
    assert shown.code == 0 and json.loads(shown.out)["network"] == "Speaks"


def test_options_of_loading_mean_nothing_to_a_function(cli, own):
    failed = cli("distill", "own.py:picture", "--dtype", "float16", "--output", "run", *FEW)
    assert failed.code == 2 and "dtype" in failed.err and not Path("run").exists()


def test_nothing_but_the_command_line_runs_a_file(cli, own):
    """A config, a card or a run that names a file is refused, and the file does not run."""
    assert cli("distill", "own.py:pipeline", "--output", "run", *FEW).code == 0
    assert "Teacher and student" in Path("run/report.html").read_text(encoding="utf-8")
    Path("own.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(BootdiffError, match="runs only where the command line names it"):
        bootdiff.load_teacher("own.py:picture")
    Path("grid.yaml").write_text(
        "teacher: own.py:picture\nsettings: {steps: 2}\nvary: {learning_rate: [1.0e-3]}\nmeasure: {num: 16}\n"
    )
    refused = cli("ablate", "grid.yaml", "--output", "grid")
    assert refused.code == 2 and "it ran" not in refused.err and not Path("grid").exists()
    for words in (["report", "run"], ["evaluate", "run", "--output", "e.json"], ["compare", "run", "--output", "c"]):
        refused = cli(*words)  # the run's card and config name the file
        assert refused.code == 2 and "runs only where the command line names it" in refused.err
    with pytest.raises(BootdiffError, match="runs only where the command line names it"):
        load_features("own.py:features", (1, 8, 8))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("three_features", "should be a tensor"),
        ("no_columns", "should be a tensor"),
        ("no_features", "no function"),
        ("missing", "no Python file"),
    ],
)
def test_a_feature_function_is_checked(cli, own, function, said):
    file = "missing" if function == "missing" else "own"
    words = ("--num", "16", "--calls", "1", "--features", f"{file}.py:{function}", "--reference", "digits")
    failed = cli("evaluate", "own.py:picture", *words, "--output", "e.json")
    assert failed.code == 2 and said in failed.err and not Path("e.json").exists()


def test_pictures_of_other_values_are_on_their_own_scale(cli, own):
    assert own_scale([torch.tensor([-1.0, 1.0])]) is None
    assert own_scale([torch.tensor([0.0, 3.0])]) == (0.0, 3.0)
    assert on_scale(torch.tensor([0.0, 1.5, 3.0]), (0.0, 3.0)).tolist() == [-1, 0, 1]
    Path("own.py").write_text(Path("own.py").read_text().replace("self.last(torch", "40 + 30 * x + self.last(torch"))
    assert cli("distill", "own.py:picture", "--output", "run", *FEW).code == 0
    told = ("--teacher", "own.py:picture", "--num", "9")
    drawn = cli("sample", "run", *told, "--output", "a.png")
    assert drawn.code == 0 and "are pictured on that scale" in drawn.out
    pixels = np.asarray(Image.open("a.png").convert("L"))
    inside = pixels[pixels < 250]
    assert inside.std() > 0 and len(np.unique(pixels)) > 50  # clipped, all would be white
    folder = cli("sample", "run", *told, "--output", "files")
    assert folder.code == 0 and "9 of them have values outside [−1, 1]" in folder.out
    assert cli("sample", "run", *told, "--output", "a.npz").code == 0
    assert np.load("a.npz")["images"].max() > 1


def test_from_python_the_teacher_itself_and_functions_are_taken(own):
    from bootdiff.sampling.sample import Wanted, draw_samples

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))

    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, timestep):
            return self.network(x)

    teacher = bootdiff.CallableTeacher(Told(), bootdiff.Cosine(), "sample", (2,))
    bootdiff.distill(teacher, "run", bootdiff.BootSettings(steps=3, batch_size=4))
    # The run's command is the program's own, not one of bootdiff's that nobody typed.
    assert not Run("run").meta["command"].startswith("bootdiff ")
    assert draw_samples("run", Wanted(num=3, teacher=teacher)).images.shape == (3, 2)
    space = open_features(lambda images: images**2, teacher)
    np.savez("reference.npz", images=np.random.default_rng(0).normal(size=(50, 2)))
    assert find_reference("reference.npz", space, (2,)).statistics.mean.shape == (2,)
    asked = Measurement(lambda images: images**2, "reference.npz", num=32, calls=(1,))
    from bootdiff.evaluation.evaluate import evaluate_student

    assert evaluate_student("run", asked, "e.json", teacher=teacher)["rows"][-1]["frechet_distance"] > 0
    assert build_report("run", teacher).is_file()
    features = TeacherFeatures.of_any(teacher, 0.1)
    assert features.middle is network[2]
    assert features.read(torch.zeros(3, 2), bootdiff.core.condition.Condition()).shape == (3, 2)


def test_an_array_of_another_shape_is_no_reference(own):
    np.savez("reference.npz", images=np.zeros((4, 3)))
    space = open_features(lambda images: images, bootdiff.Gaussian(shape=(2,)))
    with pytest.raises(BootdiffError, match=r"shape \(2,\), got \(4, 3\)"):
        find_reference("reference.npz", space, (2,))


def test_a_trained_score_network_is_distilled(cli, own):
    """The example: a small score network of a kind that diffusers has no class for, trained here."""
    shutil.copy(Path(__file__).parent.parent / "examples" / "score_network.py", "score_network.py")
    sys.path.insert(0, str(own))
    import score_network

    score_network.train(steps=300)
    errors = []
    for steps in (1, 150):
        words = ("--steps", str(steps), "--batch-size", "32", "--set", "learning_rate=2e-3")
        assert cli("distill", "score_network.py:teacher", "--output", f"run-{steps}", *words).code == 0
        told = ("--teacher", "score_network.py:teacher", "--features", "digits", "--reference", "digits")
        asked = ("--num", "256", "--calls", "1", "--output", f"{steps}.json")
        assert cli("evaluate", f"run-{steps}", *told, *asked).code == 0
        student = json.loads(Path(f"{steps}.json").read_text(encoding="utf-8"))["rows"][-1]
        errors.append(student["figures"]["path_error"]["value"])
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("name", ["half", "closed_form", "loud"])
def test_a_network_in_half_precision_and_a_closed_form_are_distilled(cli, own, name):
    inspected = cli("inspect", f"own.py:{name}", "--json")
    assert inspected.code == 0 and json.loads(inspected.out)
    assert cli("distill", f"own.py:{name}", "--output", "run", "--dry-run", *FEW).code == 0
    distilled = cli("distill", f"own.py:{name}", "--output", "run", *FEW)
    assert distilled.code == 0, distilled.err
    assert cli("sample", "run", "--teacher", f"own.py:{name}", "--num", "2", "--output", "a.npz").code == 0


@pytest.mark.parametrize("name", ["changed", "read_otherwise", "flat"])
def test_another_teacher_is_not_taken_for_the_student_s(cli, own, name):
    """A plain module's student is built and read by its teacher, so that another one would give other images."""
    assert cli("distill", "own.py:picture", "--output", "run", *FEW).code == 0
    told = ("--teacher", f"own.py:{name}", "--num", "16")
    for words in (
        ["sample", "run", "--output", "a.npz"],
        ["sample", "run", "--times", "0.5", "--output", "a.npz"],
        ["evaluate", "run", "--calls", "1", "--output", "e.json"],
        ["compare", "run", "--calls", "1", "--output", "c"],
    ):
        refused = cli(*words, *told)
        assert refused.code == 2 and "the student of another teacher" in refused.err, (words, refused.err)
    assert not any(Path(name).exists() for name in ("a.npz", "e.json", "c"))


def test_a_function_s_pipeline_may_be_named_again_and_an_export_says_what_it_cannot(cli, own):
    assert cli("distill", "own.py:pipeline", "--output", "run", *FEW).code == 0
    assert cli("sample", "run", "--teacher", "own.py:pipeline", "--num", "2", "--output", "a.png").code == 0
    assert cli("distill", "own.py:picture", "--output", "plain", *FEW).code == 0
    refused = cli("export", "plain", "--output", "exported")
    assert refused.code == 2 and "no stock pipeline holds" in refused.err and "--teacher" not in refused.err


def test_whole_numbers_are_no_reference(own):
    np.savez("reference.npz", images=np.zeros((4, 2), dtype=np.uint8))
    with pytest.raises(BootdiffError, match="got whole numbers"):
        find_reference("reference.npz", open_features(lambda images: images, bootdiff.Gaussian(shape=(2,))), (2,))


@pytest.mark.parametrize(
    "header", ["(" * 5000, "{'descr': '<f4', 'fortran_order': False, 'shape': (4, True, 2)}", "-" * 9000 + "1"]
)
def test_a_crafted_header_is_one_line(own, header):
    import struct
    from zipfile import ZipFile

    body = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode()
    with ZipFile("reference.npz", "w") as file:
        file.writestr("images.npy", body)
    with pytest.raises(BootdiffError, match="cannot be read"):
        find_reference("reference.npz", open_features(lambda images: images, bootdiff.Gaussian(shape=(2,))), (2,))
