"""Samplers of several calls: few steps, consistency, editing; the noises between calls; the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bootdiff import EDM, BootdiffError, Cosine, Gaussian, Wanted, draw_samples, load_teacher, save_student
from bootdiff.core import device as devices
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import SampleNoise, noises_of, sample_noise
from bootdiff.samplers.base import sampled
from bootdiff.samplers.consistency import MultistepConsistency, noised_again
from bootdiff.samplers.edit import Edited
from bootdiff.samplers.few_step import FewStep, Step, even_steps, stock_steps
from bootdiff.samplers.one_call import PathSampler
from bootdiff.samplers.operators import Grey, LowPass, Mask, Strokes
from bootdiff.samplers.several import student_sampler, student_samplers
from bootdiff.sampling.layouts import Canvas, Interpolation, Plain
from bootdiff.schedules import BetaTable
from bootdiff.solvers import ddim, trailing_times
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.denoising import DenoisingStudent
from bootdiff.students.jump import JumpStudent
from bootdiff.students.path import PathStudent
from bootdiff.teachers.limits import NoLimit
from test_student_kinds import shaken

MEAN, DEVIATION = 0.3, 0.5


@pytest.fixture(scope="module")
def digits():
    return load_teacher("digits").denoiser


# --- noises ----------------------------------------------------------------------------------------------------------


def test_fresh_noises_do_not_depend_on_how_samples_are_batched():
    whole = SampleNoise(5, 0, 6, (3, 5))
    parts = [SampleNoise(5, 0, 2, (3, 5)), SampleNoise(5, 2, 3, (3, 5)), SampleNoise(5, 3, 6, (3, 5))]
    for call in (1, 2, 7):
        assert torch.equal(whole.again(call), torch.cat([part.again(call) for part in parts]))
    assert torch.equal(whole.eps, sample_noise(5, 0, 6, (3, 5)))
    assert torch.equal(whole.first(2).again(3), whole.again(3)[:2]) and len(whole.first(2)) == 2
    assert torch.equal(
        SampleNoise(7, 0, 1, (3, 5)).again(1), whole.again(1)[2:3]
    )  # sample 2 of seed 5 is sample 0 of seed 7


def test_fresh_noises_are_those_that_a_generator_draws_next():
    generator = torch.Generator().manual_seed(9)
    drawn = [torch.randn(1, 8, 8, generator=generator) for _ in range(4)]
    noise = SampleNoise(9, 0, 1, (1, 8, 8))
    assert all(torch.equal(noise.again(call)[0], drawn[call]) for call in (1, 2, 3))
    assert torch.equal(SampleNoise(9, 0, 1, (1, 8, 8), drawn=2).again(1)[0], drawn[2])
    assert torch.equal(noise.again(1), noises_of(9, [0], (1, 8, 8), after=(1, 8, 8)))


def test_fresh_noises_are_independent_of_each_other_and_of_the_first():
    noise = SampleNoise(0, 0, 2000, (4,))
    parts = torch.stack([noise.eps, noise.again(1), noise.again(2)]).flatten(1)
    assert_close(torch.corrcoef(parts), torch.eye(3), atol=0.05, rtol=0)


# --- few steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [1, 2, 4, 7])
def test_a_denoising_student_is_its_teachers_ddim_at_first(calls, digits):
    student, eps = DenoisingStudent.from_teacher(digits), sample_noise(0, 0, 3, digits.shape)
    times = trailing_times(calls, *digits.t_range)
    student.limit = NoLimit()  # with a limit a step's noise is stock DDIM's, tested with the export
    ours = FewStep(student, even_steps(calls, *digits.t_range))(eps)
    assert_close(ours, ddim(digits, eps, times), atol=2e-4, rtol=1e-3)


def test_a_jump_student_is_its_teachers_ddim_at_first_and_is_told_where_it_goes(digits):
    student, eps = JumpStudent.from_teacher(digits), sample_noise(0, 0, 3, digits.shape)
    student.limit, times = NoLimit(), trailing_times(3, *digits.t_range)
    assert_close(student_sampler(student, 3).sample(eps), ddim(digits, eps, times), atol=2e-4, rtol=1e-3)
    student = shaken(student)
    x, grid = eps * student.schedule.start_scale(student.t_max), [*trailing_times(2, student.t_min, student.t_max)]
    t, s = (torch.full((3,), v) for v in grid)
    x_0 = student(student.jump(x, t, s), s, torch.full((3,), student.t_min))
    assert_close(student_sampler(student, 2).sample(eps), x_0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 7, 8, 50])
@pytest.mark.parametrize("length", [1000, 981])
def test_stock_steps_are_those_of_diffusers(calls, length):
    from diffusers import DDIMScheduler

    schedule = BetaTable(np.linspace(1e-4, 0.02, 1000).tolist())
    scheduler = DDIMScheduler(num_train_timesteps=length, timestep_spacing="trailing")
    scheduler.set_timesteps(calls)
    steps = stock_steps(calls, schedule, (length - 1) / 999)
    assert [round(step.t * 999) for step in steps] == scheduler.timesteps.tolist()
    before = [t - length // calls for t in scheduler.timesteps.tolist()]
    assert [None if step.s is None else round(step.s * 999) for step in steps] == [None if t < 0 else t for t in before]


def test_more_calls_come_nearer_to_the_path_of_an_analytic_teacher():
    class Exact(torch.nn.Module):
        def forward(self, x, timestep, target, condition):
            return teacher.x0(x, teacher.schedule.time(timestep))

    teacher = Gaussian(MEAN, DEVIATION, (4,))
    student = DenoisingStudent(Exact(), teacher, 0.01, 0.95)
    eps = sample_noise(0, 0, 256, (4,))
    end = teacher.path(eps, torch.full((256,), 0.01), 0.95).float()
    errors = [(called.sample(eps) - end).square().mean().item() for called in student_samplers(student)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 10


def of_noise():
    return PathStudent.from_teacher(Gaussian(0, 1, (4,)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: FewStep(s, []), "at least one step"),
        (lambda s: FewStep(s, [Step(0.5, 0.3), Step(0.6, None)]), "falling times"),
        (lambda s: FewStep(s, [Step(1.0, None)]), "falling times"),
        (lambda s: FewStep(of_noise(), [Step(0.5, None)]), "got a path student"),
        (lambda s: MultistepConsistency(s, [0.5]), "got a denoising student"),
        (lambda s: student_sampler(s, 0), "from 1 to 1000, got 0"),
        (lambda s: student_sampler(s, True), "from 1 to 1000, got True"),
        (
            lambda s: student_sampler(PathStudent.from_teacher(Gaussian(0, 1, (4,))), 3),
            "answers for noise only.*--refine 2",
        ),
        (lambda s: stock_steps(2000, Cosine(), 0.5), "more than this student's"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(make, message):
    student = DenoisingStudent.from_teacher(Gaussian(0, 1, (4,)), 0.05, 0.8)
    with pytest.raises(BootdiffError, match=message) as error:
        make(student)
    assert "\n" not in str(error.value)


# --- consistency sampling --------------------------------------------------------------------------------------------


class Exact(ConsistencyStudent):
    """The exact consistency function of a Gaussian teacher: every x_t goes to its path's end, over alpha."""

    def forward(self, x_t, t, condition=None):
        m, c, one = MEAN, DEVIATION, lambda v: v[:, None]
        alpha, sigma = (one(v) for v in self.schedule.alpha_sigma(t))
        low, noise = (one(v) for v in self.schedule.alpha_sigma(torch.full_like(t, self.t_min)))
        ratio = ((low**2 * c**2 + noise**2) / (alpha**2 * c**2 + sigma**2)).sqrt()
        return (low * m + ratio * (x_t - alpha * m)) / low


def exact(schedule, t_min, t_max):
    teacher = Gaussian(MEAN, DEVIATION, (4,), schedule)
    return Exact(PathStudent.from_teacher(teacher, t_min, t_max).network, teacher, t_min, t_max)


@pytest.mark.parametrize("calls", [1, 2, 4])
@pytest.mark.parametrize("name", ["cosine", "edm"])
def test_consistency_sampling_keeps_the_mean_and_the_variance_of_a_gaussian(calls, name):
    # t_min is far from the clean image, so that noise that is left twice, or not at all, would be seen.
    schedule, t_min, t_max = (Cosine(), 0.3, 1.0) if name == "cosine" else (EDM(0.4, 80.0), 0.0, 1.0)
    student, noise = exact(schedule, t_min, t_max), SampleNoise(0, 0, 20_000, (4,))
    times = [t_max, 0.75, 0.6, 0.45][:calls]
    made = sampled(MultistepConsistency(student, times), noise, Condition())
    alpha, sigma = (v.item() for v in schedule.alpha_sigma(torch.tensor([t_min])))
    variance = DEVIATION**2 + (sigma / alpha) ** 2  # of x_m / alpha_m
    assert made.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert made.var().item() == pytest.approx(variance, rel=0.02)


def test_noising_again_leads_to_the_marginal_of_the_path():
    student, noise = exact(Cosine(), 0.3, 1.0), SampleNoise(0, 0, 20_000, (4,))
    x = student.sample(noise.eps)
    alpha, sigma = (v.item() for v in student.schedule.alpha_sigma(torch.tensor([0.6])))
    x_tau = noised_again(student, x, noise.again(1), 0.6)
    assert x_tau.var().item() == pytest.approx(alpha**2 * DEVIATION**2 + sigma**2, rel=0.02)
    assert x_tau.mean().item() == pytest.approx(alpha * MEAN, abs=0.015)


def test_variance_exploding_noise_is_that_of_the_paper():
    student, z = exact(EDM(0.4, 80.0), 0.0, 1.0), torch.ones(1, 4)
    tau = student.schedule.alpha_sigma(torch.tensor([0.5]))[1].item()
    added = noised_again(student, torch.zeros(1, 4), z, 0.5)
    assert_close(added, (tau**2 - 0.4**2) ** 0.5 * z, atol=1e-5, rtol=1e-4)


def test_consistency_samples_do_not_depend_on_the_batch(digits):
    sampler = student_sampler(shaken(ConsistencyStudent.from_teacher(digits)), 3).sample
    whole = sampled(sampler, SampleNoise(3, 0, 5, digits.shape), Condition())
    parts = [sampled(sampler, SampleNoise(3, *span, digits.shape), Condition()) for span in ((0, 2), (2, 5))]
    assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)
    with pytest.raises(BootdiffError, match="need fresh noise"):
        sampler(sample_noise(3, 0, 5, digits.shape))


# --- editing ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured():
    torch.manual_seed(0)
    return shaken(ConsistencyStudent.from_teacher(Gaussian(0.1, 0.4, (3, 8, 8)), 0.01, 0.95))


@pytest.mark.parametrize(
    "operator, kept",
    [
        (Mask((torch.arange(8) > 3).float().expand(1, 1, 8, 8)), lambda x: x[..., :4]),
        (Grey(), lambda x: (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)),
        (LowPass(4), lambda x: torch.nn.functional.avg_pool2d(x, 4)),
    ],
)
@pytest.mark.parametrize("calls", [1, 3])
def test_editing_keeps_what_is_kept_and_nothing_else(operator, kept, calls, coloured):
    picture, noise = torch.rand(1, 3, 8, 8) - 0.5, SampleNoise(0, 0, 4, (3, 8, 8))
    sampler = Edited(coloured, trailing_times(calls, 0.01, 0.9), picture, operator)
    made = sampled(sampler, noise, Condition())
    assert_close(kept(made), kept(picture.expand_as(made)), atol=1e-5, rtol=1e-4)
    assert (made - picture).abs().mean() > 0.02 and not torch.allclose(made[0], made[1], atol=1e-3)


def test_an_operator_is_a_projection():
    x, picture = torch.randn(2, 3, 8, 8), torch.randn(1, 3, 8, 8)
    for operator in (Grey(), LowPass(2), Strokes(), Mask((torch.arange(8) > 3).float().expand(1, 1, 8, 8))):
        once = operator.agreed(x, picture)
        assert_close(operator.agreed(once, picture), once, atol=1e-5, rtol=1e-5)
        assert_close(operator.agreed(picture, picture), picture, atol=1e-5, rtol=1e-5)


def test_strokes_are_where_sampling_starts(coloured):
    noise, strokes = SampleNoise(0, 0, 2, (3, 8, 8)), torch.full((1, 3, 8, 8), 0.8)
    made = sampled(Edited(coloured, [0.3], strokes, Strokes()), noise, Condition())
    other = sampled(Edited(coloured, [0.3], -strokes, Strokes()), noise, Condition())
    assert not torch.allclose(made, other, atol=1e-2)


def test_what_cannot_be_kept_is_refused(coloured):
    with pytest.raises(BootdiffError, match="expected a picture of shape"):
        Edited(coloured, [0.5], torch.zeros(1, 1, 8, 8), Grey())
    with pytest.raises(BootdiffError, match="3 channels"):
        Grey().agreed(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(BootdiffError, match="a factor from 2 on"):
        LowPass(3).agreed(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))


# --- sample ----------------------------------------------------------------------------------------------------------


def test_samples_are_drawn_in_as_many_calls_as_asked(digits, tmp_path, cli):
    student = shaken(ConsistencyStudent.from_teacher(digits))
    save_student(student, tmp_path / "student")
    drawn = draw_samples(tmp_path / "student", Wanted(num=3, seed=4, batch_size=2, calls=2))
    ours = sampled(student_sampler(student, 2).sample, SampleNoise(4, 0, 3, digits.shape), Condition())
    assert_close(drawn.images, ours, atol=1e-5, rtol=1e-4)
    assert "2 calls an image" in drawn.told
    done = cli(
        "sample", tmp_path / "student", "--num", 2, "--calls", 2, "--output", tmp_path / "x.png", "--device", "cpu"
    )
    assert done.code == 0 and "2 calls an image" in done.out, done.err
    devices.use_device(None)


def test_a_path_student_is_refused_more_than_one_call(digits, tmp_path, cli):
    save_student(PathStudent.from_teacher(digits), tmp_path / "student")
    done = cli("sample", tmp_path / "student", "--calls", 4, "--output", tmp_path / "x.png")
    assert done.code == 2 and "answers for noise only" in done.err and "--refine 3" in done.err
    assert len(done.err.strip().splitlines()) == 1
    with pytest.raises(BootdiffError, match="--times names the times of every call, and --calls says 2"):
        draw_samples(tmp_path / "student", Wanted(calls=2), times=[0.5])
    with pytest.raises(BootdiffError, match="calls, a whole number"):
        Wanted(calls=0)


def test_the_ends_of_an_interpolation_have_the_fresh_noises_of_their_seeds(digits):
    sampler = PathSampler(PathStudent.from_teacher(digits))
    from bootdiff.data.conditions import Unconditional

    canvas = Canvas(sampler, Unconditional(), 5, 0, 0, 2)
    work = [noise for noise, _ in Interpolation((3, 8)).work(canvas)]
    eps, again = torch.cat([one.eps for one in work]), torch.cat([one.again(2) for one in work])
    assert_close(
        eps[[0, -1]].cpu(), torch.cat([sample_noise(3, 0, 1, digits.shape), sample_noise(8, 0, 1, digits.shape)])
    )
    ends = torch.cat([SampleNoise(3, 0, 1, digits.shape).again(2), SampleNoise(8, 0, 1, digits.shape).again(2)])
    assert_close(again[[0, -1]].cpu(), ends)
    assert [len(noise) for noise, _ in Plain().work(canvas)] == [2, 2, 1]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_table_has_the_rows_of_a_student_at_each_number_of_calls(digits, tmp_path):
    from bootdiff.evaluation.entries import rows_beside
    from bootdiff.evaluation.measure import Listed
    from bootdiff.sampling.opening import open_pair

    def rows(kind):
        save_student(kind.from_teacher(digits), tmp_path / kind.kind)
        opened = open_pair(str(tmp_path / kind.kind))
        return [e.candidate for e in rows_beside(str(tmp_path / kind.kind), opened, Listed(opened.conditions), None)]

    assert [(c.row.name, c.row.calls) for c in rows(PathStudent)] == [("student", 1)]
    several = rows(ConsistencyStudent)
    assert [(c.row.sampler, c.row.steps, c.row.calls) for c in several] == [
        ("one call", 1, 1), ("consistency", 2, 2), ("consistency", 4, 4), ("consistency", 8, 8),
    ]  # fmt: skip
    assert [c.row.name for c in several][1] == "student, 2 calls" and not several[1].same_path
    assert [c.row.sampler for c in rows(JumpStudent)] == ["one call", *["few steps"] * 3]


def test_the_engine_measures_several_calls_whatever_the_batch(digits, monkeypatch):
    from bootdiff.data.conditions import Unconditional
    from bootdiff.evaluation.measure import Listed, measure, work_of
    from bootdiff.samplers.rows import CONSISTENCY, Candidate, Row

    called = student_sampler(shaken(ConsistencyStudent.from_teacher(digits)), 2)
    made = []

    def sample(noise, condition):
        made.append(called.sample(noise, condition))
        return made[-1]

    sample.draws_noise = True
    for size in (4, 3):
        batches = work_of(digits, Listed(Unconditional()), 0, 8, size)
        from bootdiff.evaluation.tally import Judges

        measure(Candidate(Row("student", CONSISTENCY, 2, 2), sample), batches, Judges())
    assert_close(torch.cat(made[:2]), torch.cat(made[2:]), atol=1e-5, rtol=1e-4)


# --- device ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    def of(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    yield of
    devices.use_device(None)


def test_the_best_device_is_cuda_then_mps_then_the_cpu(machine):
    for words, best in (({"cuda": 2, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")):
        machine(**words)
        assert devices.best_device() == torch.device(best)


def test_a_device_that_is_asked_for_is_taken(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        devices.use_device(name)
        assert devices.best_device() == torch.device(name)
    devices.use_device(None)
    assert devices.best_device() == torch.device("cuda")


@pytest.mark.parametrize(
    "name, message",
    [
        ("gpu", "expects cpu, cuda, cuda:1 or mps, got 'gpu'"),
        ("cpu:0", "expects cpu"),
        ("cuda:x", "expects cpu"),
        ("cuda:", None),
        ("cuda:2", r"no such device \(it has 2"),
        ("mps", "torch sees no MPS"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message, machine):
    machine(cuda=2)
    if message is None:
        name, message = "cuda:-1", "expects cpu"
    with pytest.raises(BootdiffError, match=message) as error:
        devices.use_device(name)
    assert "\n" not in str(error.value)
    machine()
    with pytest.raises(BootdiffError, match="torch sees no CUDA GPU"):
        devices.use_device("cuda")


def test_float64_stays_off_apples_gpu(monkeypatch):
    class OnMps:
        device = torch.device("mps")
        moved = False

        def cpu(self):
            self.moved = True
            return torch.ones(2)

        def double(self):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    values = OnMps()
    assert devices.in_float64(values).dtype == torch.float64 and values.moved


@pytest.mark.parametrize("command", ["sample", "evaluate", "compare", "report", "ablate"])
def test_every_command_that_samples_takes_a_device(command, tmp_path, cli, machine):
    machine()
    words = [] if command == "report" else ["--output", tmp_path / ("x.json" if command == "evaluate" else "x.png")]
    done = cli(command, tmp_path / "none", *words, "--device", "cuda:1")
    assert done.code == 2 and "--device cuda:1: this machine has no such device" in done.err
