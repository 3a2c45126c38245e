"""The report of one run and of several: what it says, and how a real browser takes it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from diffusers import UNet2DModel

from bootdiff.distillation.distill import distill
from bootdiff.evaluation.equivalence import equivalence
from bootdiff.evaluation.table import FORMAT
from bootdiff.methods.boot import BootSettings
from bootdiff.report import charts, samples
from bootdiff.report.build import build_comparison, build_report
from bootdiff.report.charts import Chart, Series, draw
from bootdiff.samplers.rows import Row
from bootdiff.sampling import gallery
from browser import find_browser, look_at
from tiny_unet import save_teacher

#: of a phone and of a desk
WIDTHS = (360, 1280)
needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium here: apt-get install chromium")


def watch(folder: Path, errors: list[float]) -> None:
    """Replace a run's looks: its last one again and again, as good as its teacher but for these path errors."""
    path = folder / "watch.jsonl"
    seen = json.loads(path.read_text().splitlines()[-1])
    fine = {"diversity": seen["teacher_diversity"], "saturation": seen["teacher_saturation"]}
    looks = [
        {**seen, **fine, "step": step, "path_error": error, "frechet_distance": 10 * error}
        for step, error in enumerate(errors, 1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in looks))


def row(told: Row, distance: float, figures: dict | None = None) -> dict:
    """A row of ``evaluation.json``."""
    known = {"frechet_distance": distance, "frechet_distances": [distance], "path_error": 0.25, "faithfulness": None}
    more = {"name": told.name, "best_of": told.best_of, "images_per_second": 5000.0, "call_equivalence": None}
    return {**told.identity, **known, **more, "figures": figures or {}}


def measure(folder: Path, features: str, distance: float, num: int = 2000, figures: dict | None = None) -> None:
    """An evaluation by hand: one row of the teacher's, one of the student's."""
    teacher = [Row("teacher", "ddim", calls, calls, "trailing", best_of=calls) for calls in (4, 16)]
    rows = [row(teacher[0], distance + 1), row(teacher[1], 0.5 * distance)]
    rows.append(row(Row("student", "one call", 1, 1, method="boot"), distance, figures))
    rows[-1]["call_equivalence"] = equivalence(rows[-1], rows).as_json()
    facts = {"format": FORMAT, "features": features, "reference": "digits", "num": num, "repeats": 1, "rows": rows}
    (folder / "evaluation.json").write_text(json.dumps(facts))


def figure(value: float, **more: object) -> dict:
    """An entry of a row's ``figures``."""
    return {"value": value, "low": value - 1, "high": value + 1, "num": 4321, "estimator": "by hand", **more}


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """Two runs of one teacher and one of another, measured in two feature spaces; tests must not change them."""
    folder = tmp_path_factory.mktemp("report")
    colour = save_teacher(folder / "colour", channels=3)
    for name, teacher, seed in (("first", tiny, 0), ("second", tiny, 1), ("third", colour, 0)):
        settings = BootSettings(steps=2, batch_size=4, log_every=1, watch_every=1, seed=seed)
        distill(str(teacher), folder / name, settings)
        measure(folder / name, "other" if name == "third" else "space", 2.0 + seed)
    watch(folder / "first", [0.03] * 12)
    watch(folder / "second", [0.03 * step for step in range(1, 13)])
    (folder / "third" / "watch.jsonl").unlink()
    return folder


@pytest.fixture
def runs(made, tmp_path):
    """Copies of the three."""
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        shutil.copytree(made / folder.name, folder)
    return folders


@pytest.fixture(scope="module")
def pages(made):
    """The report of one run, and that of all three."""
    three = [made / name for name in ("first", "second", "third")]
    return {"one": build_report(three[0]), "three": build_comparison(three, made / "all.html")}


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def part(page: BeautifulSoup, title: str):
    """The section under a heading; None where there is none."""
    return next((s for s in page.find_all("section") if s.h2.text == title), None)


def cells(section) -> list[list[str]]:
    """A table's rows, without the small print."""
    for small in section.find_all("small"):
        small.extract()
    return [[cell.text for cell in line.find_all(["td", "th"])] for line in section.find_all("tr")]


# In a browser.


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("name", ["one", "three"])
def test_a_browser_shows_the_page_whole_and_quietly_and_fetches_nothing(pages, tmp_path, name):
    seen = look_at(pages[name], tmp_path / "browser", WIDTHS)
    assert (seen.console, seen.outside, seen.broken, seen.excess, seen.scripts) == ([], [], 0, 0, 0)
    assert seen.pictures == {"one": 4 + 6 + 2, "three": 5 + 6 + 4}[name]


UNGUARDED = re.compile(r"<meta http-equiv=[^>]*>")
#: what is put into a page, with or without its guard against fetching, and what then must not be as it was
WRONG = {
    "fetches": ('<img src="http://example.invalid/a.png">', False, "outside"),
    "is kept from fetching": ('<img src="http://example.invalid/a.png">', True, "console"),
    "shows a broken picture": ('<img src="data:image/png;base64,AAAA">', True, "broken"),
    "is wide": ('<div style="width: 500px">wide</div>', True, "excess"),
    "runs a script": ("<script>console.error('no')</script>", False, "scripts"),
}


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("fault", WRONG)
def test_a_page_with_a_fault_would_be_seen(pages, tmp_path, fault):
    more, guarded, what = WRONG[fault]
    page = pages["one"].read_text(encoding="utf-8").replace("</body>", f"{more}</body>")
    wrong = tmp_path / "wrong.html"
    wrong.write_text(page if guarded else UNGUARDED.sub("", page), encoding="utf-8")
    assert getattr(look_at(wrong, tmp_path / "browser", WIDTHS), what)


@pytest.mark.parametrize("name", ["one", "three"])
def test_the_page_names_nothing_outside_and_refuses_to_fetch(pages, name):
    text = pages[name].read_text(encoding="utf-8")
    assert not re.search(r"""https?:|(src|href)=["'](?!data:)|url\(|@import|<script|<link""", text)
    assert "default-src 'none'" in soup(pages[name]).find("meta", {"http-equiv": True})["content"]


@pytest.mark.parametrize("name", ["one", "three"])
def test_every_picture_has_words(pages, name):
    assert all(len(image["alt"]) > 5 for image in soup(pages[name]).find_all("img"))


# What it says first.


@pytest.mark.parametrize(("name", "word"), [("one", "Converged"), ("three", "Converged")])
def test_the_verdict_comes_first(pages, name, word):
    text = soup(pages[name]).body.get_text(" ")
    assert word in text[:400]
    assert text.index(word) < text.index("Figures")


def test_every_run_has_its_verdict_and_headline(pages):
    boxes = soup(pages["three"]).find_all(class_="verdict")
    assert [box.h2.text for box in boxes] == ["first", "second", "third"]
    assert "Converged" in boxes[0].text and "Converged" not in boxes[1].text
    assert boxes[2].find(class_="word") is None  # it was not watched
    for box, distance in zip(boxes, ("2", "3", "2"), strict=True):
        assert "One call is worth" in box.text and "of the teacher's best calls: DDIM with" in box.text
        assert f"Its Fréchet distance is {distance}." in box.text


def test_a_run_that_was_not_watched_has_no_verdict_and_no_curves(runs):
    page = soup(build_report(runs[2]))
    assert page.find(class_="word") is None and part(page, "Convergence") is None
    assert "Fréchet distance is 2." in page.find(class_="verdict").text


def test_a_run_that_was_not_measured_says_what_to_do(runs):
    (runs[0] / "evaluation.json").unlink()
    page = soup(build_report(runs[0]))
    assert "bootdiff evaluate" in page.find(class_="verdict").text and part(page, "Figures") is None


def test_the_nearest_of_runs_in_one_space_is_named(pages):
    words = soup(pages["three"]).find("strong").text
    assert words == "first is nearest to the reference, with a Fréchet distance of 2 (features space against digits)."


def test_distances_of_other_sample_sizes_are_not_ranked(runs):
    measure(runs[1], "space", 1.0, num=500)
    page = soup(build_comparison(runs, runs[0].parent / "all.html"))
    assert "500 and 2,000 samples, so their distances do not compare" in page.find("strong").text


# Figures.


def test_figures_of_different_feature_spaces_never_share_a_column(pages):
    spaces, names, *rows = cells(part(soup(pages["three"]), "Figures"))
    assert spaces == ["", "features space against digits", "features other against digits", ""]
    assert names == ["student of", "Fréchet distance", "Fréchet distance", "path error", "images/s"]
    assert [line[:3] for line in rows] == [["first", "2", "–"], ["second", "3", "–"], ["third", "–", "2"]]


def test_the_same_features_against_another_reference_are_another_column(runs):
    facts = json.loads((runs[1] / "evaluation.json").read_text())
    (runs[1] / "evaluation.json").write_text(json.dumps({**facts, "reference": "elsewhere/mine.npz"}))
    spaces, *_ = cells(part(soup(build_comparison(runs[:2], runs[0].parent / "all.html")), "Figures"))
    assert spaces[1:3] == ["features space against digits", "features space against mine.npz"]


def test_scores_of_different_models_are_different_columns(runs):
    for folder, model in zip(runs[:2], ("small", "large"), strict=True):
        score = figure(20.0, estimator=f"mean cosine by {model}; ± 1.96 standard errors")
        measure(folder, "space", 2.0, figures={"clip_score": score})
    page = soup(build_comparison(runs[:2], runs[0].parent / "all.html"))
    spaces, names, *rows = cells(part(page, "Figures"))
    assert spaces == ["", "features space against digits", "mean cosine by small", "mean cosine by large", ""]
    assert names[1:4] == ["Fréchet distance", "CLIP score", "CLIP score"]
    assert [line[1:4] for line in rows] == [["2", "20", "–"], ["2", "–", "20"]]
    assert len(page.find_all("strong")) == 1


def test_figures_that_exist_are_shown_with_their_interval_and_estimator(runs):
    figures = {"kid": figure(5.0), "recall": figure(0.5, low=None, high=None), "my_own": figure(7.0, num=99)}
    measure(runs[0], "space", 2.0, figures=figures)
    section = part(soup(build_report(runs[0])), "Figures")
    assert [small.text for small in section.find_all("small")] == ["4 – 6", "6 – 8"]
    notes = [item.text for item in section.find_all("li")]
    assert notes[:3] == [f"{name}: 4,321 samples, by hand." for name in ("KID", "Recall")] + [
        "My own: 99 samples, by hand."
    ]
    names, teacher, _, student = cells(section)
    assert names == ["sampler", "calls", "Fréchet distance", "KID", "recall", "my own", "path error", "images/s"]
    assert teacher == ["best within 4 calls: DDIM 4, trailing", "4", "3", "–", "–", "–", "0.25", "5,000"]
    assert student == ["student", "1", "2", "5", "0.5", "7", "0.25", "5,000"]


def test_a_figure_with_its_interval_stands_for_the_plain_one(runs):
    measure(runs[0], "space", 2.0, figures={"frechet_distance": figure(2.5)})
    assert cells(part(soup(build_report(runs[0])), "Figures"))[3][2] == "2.5"


# Several runs.


def test_only_settings_that_differ_are_listed(pages, made, tiny):
    names, *rows = cells(part(soup(pages["three"]), "Settings that differ"))
    assert names == ["setting", "first", "second", "third"]
    assert rows == [["teacher", tiny.name, tiny.name, "colour"], ["seed", "0", "1", "0"]]


def test_runs_of_the_same_settings_say_so(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "again")
    page = soup(build_comparison([runs[0], tmp_path / "again"], tmp_path / "all.html"))
    assert "None" in part(page, "Settings that differ").text


def test_students_of_one_teacher_stand_below_it_and_those_of_another_apart(pages):
    figures = part(soup(pages["three"]), "Samples").find_all("figure")
    labels = [[label.text for label in figure.find_all(class_="label")] for figure in figures]
    assert labels == [["Teacher, 50 DDIM steps", "first", "second"], ["Teacher, 50 DDIM steps", "third"]]


def test_a_row_of_samples_starts_from_the_same_noises_whatever_stands_beside_it(pages, runs):
    alone = soup(build_comparison([runs[1], runs[2]], runs[0].parent / "two.html"))
    pictures = [{i["alt"]: i["src"] for i in part(p, "Samples").find_all("img")} for p in (soup(pages["three"]), alone)]
    assert pictures[0]["Samples: second"] == pictures[1]["Samples: second"]
    assert pictures[0]["Samples: second"] != pictures[0]["Samples: first"]


def test_a_teacher_that_has_gone_is_left_out_of_a_comparison(runs):
    for folder in runs[:2]:
        config = folder / "config.yaml"
        facts = json.loads((folder / "student-path" / "bootdiff.json").read_text())
        (folder / "student-path" / "bootdiff.json").write_text(json.dumps({**facts, "teacher": "gone/away"}))
        config.write_text(re.sub(r"teacher: .*", "teacher: gone/away", config.read_text(), count=1))
    labels = part(soup(build_comparison(runs[:2], runs[0].parent / "all.html")), "Samples").find_all(class_="label")
    assert [label.text for label in labels] == ["first", "second"]


def test_a_student_that_cannot_be_opened_is_named_and_the_others_are_shown(runs):
    (runs[0] / "student-path" / "slots.safetensors").write_bytes(b"damaged")
    section = part(soup(build_comparison(runs[:2], runs[0].parent / "all.html")), "Samples")
    assert "No samples of first: " in section.text and "slots.safetensors" in section.text
    assert [label.text for label in section.find_all(class_="label")] == ["Teacher, 50 DDIM steps", "second"]


def test_students_of_other_guidance_stand_below_a_row_of_that_guidance(tmp_path):
    folders = [tmp_path / name for name in ("plain", "guided", "ranged")]
    given = ({"guidance_scale": 1.0}, {"guidance_scale": 3.0}, {"guidance_range": [2.0, 4.0]})
    for folder, weight in zip(folders, given, strict=True):
        distill("digits-class", folder, BootSettings(steps=1, batch_size=2, watch_every=0, **weight))
    section = part(soup(build_comparison(folders, tmp_path / "all.html")), "Samples")
    labels = [label.text for label in section.find_all(class_="label")]
    teacher = "Teacher, 50 DDIM steps, guidance weight"
    assert labels == [f"{teacher} 1", "plain", f"{teacher} 3", "guided", "ranged"]
    assert section.figcaption.text == "The same noises, column by column. Classes: 0; 1; 2; 3; 4; 5; 6; 7; 8; 9."


def test_runs_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    places = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    for place, folder in zip(places, runs, strict=False):
        shutil.copytree(folder, place)
    boxes = soup(build_comparison(places, tmp_path / "all.html")).find_all(class_="verdict")
    assert [box.h2.text for box in boxes] == ["a/run", "b/run"]


def test_curves_of_all_runs_lie_over_each_other(pages):
    words = [image["alt"] for image in part(soup(pages["three"]), "Convergence").find_all("img")]
    assert words[0] == "Path error by step. first: 0.03 at step 1, 0.03 at 12; second: 0.03 at step 1, 0.36 at 12."
    assert "Not watched: third." in part(soup(pages["three"]), "Convergence").text


def test_commands_of_all_runs_are_listed(pages, made):
    section = part(soup(pages["three"]), "Commands")
    assert [head.text for head in section.find_all("h3")] == ["first", "second", "third"]
    assert len(section.find_all("code")) == 3


# The command.


def test_one_run_s_report_goes_into_it_and_several_runs_here(cli, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("report", "first").out == "report: first/report.html\n"
    assert cli("report", "first", "second").out == "report: report.html\n"
    assert "2 runs side by side" in (tmp_path / "report.html").read_text()
    assert cli("report", "second", "--output", "report.html").code == 0  # over a report
    assert "One-step student" in (tmp_path / "report.html").read_text()


BAD = {
    "no folder": (["first", "nowhere"], "no run folder at 'nowhere'"),
    "no run": (["first", "."], "holds no distillation run"),
    "unfinished": (["first", "begun"], "the run in begun is not finished"),
    "the same twice": (["first", "second", "first/"], "first is named twice"),
    "another file": (["first", "second", "--output", "notes.html"], "notes.html exists and is no bootdiff report"),
    "one run over another file": (["first", "--output", "notes.html"], "notes.html exists and is no bootdiff report"),
    "no page": (["first", "second", "--output", "all.pdf"], "ends in .html"),
    "a folder": (["first", "second", "--output", "shelf.html"], "is a folder"),
    "a teacher of several": (["first", "second", "--teacher", "digits"], "--teacher is one run's"),
    "damaged looks": (["first", "odd"], "holds a damaged file"),
    "damaged figures": (["first", "unreadable"], "evaluation.json cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_everything_as_it_was(cli, runs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for other in ("begun", "odd", "unreadable"):
        shutil.copytree(runs[0], other)
    shutil.rmtree("begun/student-path")
    Path("odd/watch.jsonl").write_text('{"step": 1}\n' * 12)
    Path("unreadable/evaluation.json").write_text("{")
    Path("notes.html").write_text("<html>mine</html>")
    Path("shelf.html").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = cli("report", *BAD[name][0])
    assert result.code == 2 and BAD[name][1] in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# Charts and colours.


def test_a_chart_is_well_formed_and_takes_the_page_s_ink():
    drawn = draw(Chart("A <b> & c", "", [Series("x < y", [(1, 0.5), (2, 0.25)]), Series("&", [(1, 0.3)], 1)], log=True))
    root = ElementTree.fromstring(drawn)
    words = " ".join(root.itertext())
    assert "x < y" in words and "step" in words
    assert "currentColor" in drawn and charts.INK not in drawn and "prefers-color-scheme:dark" in drawn
    assert set(re.findall(r"https?://[^\"<]*", drawn)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_values_that_a_chart_cannot_show_are_left_out():
    points = [(1, float("nan")), (2, 0.0), (3, -1.0), (4, 0.5), (5, float("inf"))]
    assert [s.points for s in Chart("", "", [Series("a", points)], log=True).drawn] == [[(4, 0.5)]]
    assert [s.points for s in Chart("", "", [Series("a", points)]).drawn] == [[(2, 0.0), (3, -1.0), (4, 0.5)]]
    assert Chart("", "", [Series("a", points[:3])], log=True).drawn == []


def luminance(colour: str) -> float:
    """Relative, of #rrggbb (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_and_lines_stand_out_in_light_and_dark(scheme):
    style = (Path(charts.__file__).parent / "page.css").read_text()
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", style.split("@media")[scheme]))
    for name in ("ink", "soft", "mark", "good", "bad"):
        for ground in ("paper", "tint"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert (charts.LIGHT, charts.DARK)[scheme] == colours["ink"]
    assert all(contrast(line, colours["paper"]) >= 3 for line in charts.COLOURS)


def test_runs_of_many_colours_still_differ():
    looks = {(charts.COLOURS[n % len(charts.COLOURS)], n % len(charts.DASHES)) for n in range(28)}
    assert len(looks) == 28


def test_the_pictures_take_as_many_calls_of_the_teacher_as_they_say(runs, few_teacher_steps, monkeypatch):
    """Of ten columns: 50 DDIM steps; the path's begin and 50 Heun steps of two calls each; and the student's one."""
    for name, value in few_teacher_steps.items():
        monkeypatch.setattr(gallery, name, value)
    sizes, forward = [], UNet2DModel.forward
    monkeypatch.setattr(
        UNet2DModel, "forward", lambda *words, **more: sizes.append(len(words[1])) or forward(*words, **more)
    )
    labels = part(soup(build_report(runs[0])), "Teacher and student").find_all(class_="label")
    assert [label.text for label in labels] == [samples.TEACHER, samples.PATH_END, samples.STUDENT]
    assert "50 DDIM steps" in samples.TEACHER and "50 Heun steps" in samples.PATH_END
    assert sizes.count(10) == 50 + (1 + 2 * 50) + 1


def test_the_student_of_a_plain_module_is_reported_without_samples(cli, tmp_path):
    from bootdiff.distillation.distill import distill
    from bootdiff.methods.boot import BootSettings
    from bootdiff.teachers import Gaussian

    distill(Gaussian(0.0, 0.5, (1, 8, 8)), tmp_path / "run", BootSettings(steps=2, batch_size=2, sample_every=0))
    done = cli("report", tmp_path / "run")
    assert done.code == 0, done.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "name a function that returns it, by --teacher" in page and "Settings" in page
