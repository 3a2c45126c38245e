"""What the commands do, as functions of public names: they return what the commands print and write."""

import json

import pytest
import torch

import bootdiff


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three steps on the builtin digits."""
    folder = tmp_path_factory.mktemp("functions") / "run"
    settings = bootdiff.BootSettings(steps=3, batch_size=4, watch_every=0, sample_every=0)
    bootdiff.distill("digits", folder, settings)
    return folder


def test_samples_are_those_of_the_student(run):
    samples = bootdiff.draw_samples(run, bootdiff.Wanted(num=4, seed=7))
    noise = bootdiff.sample_noise(7, 0, 4, (1, 8, 8))
    torch.testing.assert_close(samples.images, bootdiff.load_student(run).sample(noise))
    path = bootdiff.draw_samples([run], bootdiff.Wanted(num=4, seed=7), times=[0.9, 0.1])
    assert path.images.shape == (8, 1, 8, 8) and path.columns == 2


def test_samples_of_nothing_are_refused():
    with pytest.raises(bootdiff.BootdiffError, match="expected a student"):
        bootdiff.draw_samples([])


def test_figures_are_what_the_file_holds(run, tmp_path):
    asked = bootdiff.Measurement(num=16, calls=(1,), heun=False)
    figures = bootdiff.evaluate_student(run, asked, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == figures["rows"]
    assert json.loads((run / "evaluation.json").read_text()) == json.loads((tmp_path / "figures.json").read_text())
    table = bootdiff.compare_students([run, run / "student"], asked, tmp_path / "compared")
    values = [row["frechet_distance"] for row in table["rows"] if row["kind"] == "student"]
    assert len(values) == 2 and values == pytest.approx([figures["rows"][-1]["frechet_distance"]] * 2, rel=1e-3)


def test_a_report_is_a_page(run, tmp_path):
    page = bootdiff.build_report(run, output=tmp_path / "page.html")
    assert page == tmp_path / "page.html" and "One-step student of digits" in page.read_text()
