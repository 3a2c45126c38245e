"""The systems that the paper compares with: their mathematics on analytic teachers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from bootdiff import BootdiffError, Cosine, Gaussian, load_teacher, save_student
from bootdiff.core.condition import Condition
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch
from bootdiff.distillation.distill import distill
from bootdiff.losses.grids import Grid, GridSettings
from bootdiff.methods.registry import find_method
from bootdiff.solvers import ddim_step, noisy, teacher_step
from bootdiff.students.boundary import Naive, Skip
from bootdiff.students.consistency import ConsistencyStudent

TEACHER = Gaussian(0.5, 0.5, (2,))
X = torch.tensor([[0.3, -0.4], [1.0, 0.2], [0.5, 0.5], [-0.1, 0.9]])
NOISE = torch.tensor([[0.5, -1.0], [-0.2, 0.4], [1.5, 0.1], [0.3, 0.3]])
RUN = {"steps": 100, "batch_size": 4, "ema_decay": 0}


@dataclass
class Draws:
    """Draws that a test has chosen, by name."""

    chosen: dict[str, Tensor] = field(default_factory=dict)
    device: str = "cpu"

    def normal(self, name: str, shape) -> Tensor:
        return self.chosen["noise"]

    def integers(self, name: str, high: int) -> Tensor:
        return self.chosen["step"].clamp(max=high - 1)

    def uniform(self, name: str) -> Tensor:
        return self.chosen["t"]


def turn(**chosen) -> Turn:
    return Turn("student", 0, 0.0, Draws({"noise": NOISE, **chosen}))


def noting(seen: dict, name: str) -> Calls:
    """A network that answers with x and notes what it was asked."""
    return Calls(lambda x, t, c: (seen.__setitem__(name, (x, t)), x)[1])


class Source:
    kind, data_free = "pairs", True

    def batch(self, draw):
        return Batch(NOISE, data=X)


def objective(method: str, teacher=TEACHER, **words):
    kind = find_method(method)
    asked = kind.settings(**{**RUN, **words})
    asked = asked.model_copy(update=dict(zip(("t_min", "t_max"), asked.path_ends(teacher), strict=True)))
    return kind.build(teacher, kind.stages_of(asked)[0].settings if kind.stages else asked, Source())


def loss_of(asked, networks, at: Turn, batch: Batch | None = None) -> float:
    (term,) = asked.losses(networks, at, batch or Batch(NOISE, data=X))
    return float(term().total.detach())


class Calls(nn.Module):
    """A network that is a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


# Progressive distillation


def two_steps(x: Tensor, t: float, s: float | None) -> Tensor:
    """x̃ by hand: two DDIM steps of the teacher from t to s, or to the image, as the x_0 of one step; in float64."""
    end = TEACHER.t_range[0] if s is None else s

    def levels(time: float) -> tuple[float, float]:
        if time is None:
            return 1.0, 0.0
        alpha, sigma = TEACHER.schedule.split(TEACHER.schedule.lambda_(torch.tensor([time], dtype=torch.float64)))
        return float(alpha), float(sigma)

    middle, z = (t + end) / 2, x.double()
    for here, there in ((t, middle), (middle, s)):
        (a, b), (c, d) = levels(here), levels(there)
        x_0 = TEACHER.x0(z, torch.tensor([here], dtype=torch.float64))
        z = c * x_0 + d * (z - a * x_0) / b
    (a, b), (c, d) = levels(t), levels(s)
    return (z - d / b * x.double()) / (c - d / b * a)


def test_progressive_distillations_target_is_two_steps_of_ddim():
    asked = objective("progressive", start_calls=4)
    low, high = TEACHER.t_range
    times = [high - i * (high - low) / 4 for i in range(4)]
    ends = [*times[1:], None]
    steps = torch.arange(4)
    z_t = noisy(X, NOISE, torch.tensor(times), TEACHER.schedule)
    exact = torch.stack([two_steps(z_t[i], times[i], ends[i]) for i in range(4)]).float()
    told = []
    network = Calls(lambda z, t, c: told.append((z, t)) or exact)
    assert loss_of(asked, {"student": network}, turn(step=steps)) < 1e-10
    torch.testing.assert_close(told[0][0], z_t)
    torch.testing.assert_close(told[0][1], torch.tensor(times))
    # The weight is max(SNR, 1), or SNR + 1.
    alpha, sigma = TEACHER.schedule.alpha_sigma(torch.tensor(times))
    snr = (alpha / sigma) ** 2
    off = Calls(lambda z, t, c: exact + 1)
    assert loss_of(asked, {"student": off}, turn(step=steps)) == pytest.approx(float(snr.clamp(min=1).mean()), rel=1e-4)
    plus = objective("progressive", start_calls=4, snr_weight="plus-one")
    assert loss_of(plus, {"student": off}, turn(step=steps)) == pytest.approx(float((snr + 1).mean()), rel=1e-4)


def test_progressive_times_are_stock_ddims_and_divide_the_table():
    teacher = load_teacher("digits")
    asked = objective("progressive", teacher, start_calls=16)
    last = teacher.schedule.num_timesteps - 1
    entries = asked.steps.points * last
    length = int(entries[0, 0].round()) + 1
    assert length % 16 == 0 and bool(teacher.usable(torch.tensor([(length - 1) / last])))
    assert not bool(teacher.usable(torch.tensor([(length + 15) / last])))
    torch.testing.assert_close(entries[:, 0], torch.arange(length - 1, -1, -length // 16).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(entries[:-1, 2], entries[1:, 0], atol=1e-3, rtol=0)
    assert asked.steps.points[-1, 2] == -1 and asked.student.module.calls == 16


@pytest.mark.parametrize("calls", [3, 12, 0])
def test_start_calls_that_cannot_be_halved_are_refused(calls):
    with pytest.raises(BootdiffError, match="start_calls"):
        find_method("progressive").settings(start_calls=calls)


# Consistency distillation and training


def exact_end(x: Tensor, t: Tensor, t_min: float, schedule=TEACHER.schedule) -> Tensor:
    """Where the Gaussian's own path from (x, t) is at t_min, in float64."""
    low = torch.full_like(t, t_min)
    (a, s), (b, r) = (schedule.split(schedule.lambda_(time)) for time in (t, low))
    m, c = TEACHER.mean, TEACHER.deviation
    return (b * m)[:, None] + ((b**2 * c**2 + r**2) / (a**2 * c**2 + s**2)).sqrt()[:, None] * (x - (a * m)[:, None])


def composed(grid: Grid, second_order: bool):
    """The function for which the loss of consistency distillation is zero: all of the solver's steps down to t_min."""

    def end(x: Tensor, t: Tensor, condition=None) -> Tensor:
        intervals = grid.count(0) - 1
        size = (grid.t_max - grid.t_min) / intervals
        out = []
        for row, time in zip(x, t.tolist(), strict=True):
            z, here = row[None], round((time - grid.t_min) / size)
            for number in range(here, 0, -1):
                ends = [torch.tensor([grid.t_min + n * size]) for n in (number, number - 1)]
                z = teacher_step(TEACHER, z, *ends, Condition(), second_order)
            out.append(z)
        return torch.cat(out)

    return end


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_consistency_distillation_is_zero_where_answers_are_the_solvers_own_ends(solver, side):
    asked = objective("consistency", grid=6, solver=solver, target_side=side)
    end = Calls(composed(asked.grid, solver == "heun"))
    at = turn(step=torch.tensor([0, 2, 3, 4]))
    assert loss_of(asked, {"student": end, "student@target": end}, at) < 1e-9
    assert loss_of(asked, {"student": Calls(lambda x, t, c: x), "student@target": end}, at) > 1e-3


def test_the_side_of_the_target_is_where_the_average_is_asked():
    times = {}
    for side in ("teacher", "student"):
        asked, seen = objective("consistency", grid=6, target_side=side), {}
        networks = {name: noting(seen, name) for name in ("student", "student@target")}
        loss_of(asked, networks, turn(step=torch.tensor([0, 1, 2, 3])))
        times[side] = {name: t for name, (_, t) in seen.items()}
    assert bool((times["teacher"]["student"] > times["teacher"]["student@target"]).all())
    torch.testing.assert_close(times["student"]["student"], times["teacher"]["student@target"])
    torch.testing.assert_close(times["student"]["student@target"], times["teacher"]["student"])


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2)])
def test_theorem_1_the_error_falls_with_the_solvers_order(solver, order):
    """The zero-loss function is O(Δt^p) from the path's exact ends (Song et al., Theorem 1)."""
    errors = []
    for count in (17, 33, 65):
        grid = objective("consistency", grid=count, solver=solver, t_min=0.1, t_max=0.9).grid
        t = torch.full((4,), grid.t_max)
        x_T = noisy(X, NOISE, t, TEACHER.schedule)
        ends = composed(grid, solver == "heun")(x_T.double(), t.double())
        errors.append(float((ends - exact_end(x_T.double(), t.double(), 0.1)).abs().max()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.1), (errors, slopes)


def test_theorem_2_the_two_losses_meet_faster_than_the_step_falls():
    """|L_CD − L_CT| / Δt → 0 with theta and theta⁻ a fixed distance apart, Euler steps and squared error."""
    m, c = TEACHER.mean, TEACHER.deviation
    # Four points give every moment of (x, noise) up to the second, which is all that linear answers ask for.
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    networks = {
        "student": Calls(lambda x, t, _: (1 - 0.5 * t[:, None]) * x + 0.1),
        "student@target": Calls(lambda x, t, _: (0.8 - 0.3 * t[:, None]) * x - 0.2 * t[:, None]),
    }
    shares = []
    for count in (9, 17, 33, 65, 129):
        interval = torch.arange(count - 1).repeat_interleave(4)
        x, z = ((signs[:, i].repeat(count - 1))[:, None].expand(-1, 2) for i in (0, 1))
        batch = Batch(z, data=m + c * x)
        at = turn(step=interval, noise=z)
        distilled, trained = objective("consistency", grid=count, solver="euler"), training(count)
        step = distilled.grid.t_max / (count - 1)
        shares.append(abs(loss_of(distilled, networks, at, batch) - loss_of(trained, networks, at, batch)) / step)
    assert all(b < 0.6 * a for a, b in pairwise(shares)), shares


def training(count: int):
    return objective("consistency-training", grid=count, images="digits")


def test_consistency_training_has_one_image_and_one_noise_for_both_points():
    asked, seen = training(6), {}
    networks = {name: noting(seen, name) for name in ("student", "student@target")}
    value = loss_of(asked, networks, turn(step=torch.tensor([0, 1, 2, 4])))
    for x, t in seen.values():
        torch.testing.assert_close(x, noisy(X, NOISE, t, TEACHER.schedule))
    expected = (seen["student"][0] - seen["student@target"][0]).square().mean()
    assert value == pytest.approx(float(expected), rel=1e-5) and not asked.frozen()


def test_the_grid_grows_as_the_papers_say():
    def counts(**words):
        settings = find_method("consistency").settings(**{**RUN, "steps": 1000}, **words)
        grid = Grid(Cosine(), 0.0, 1.0, settings, 1000)
        return grid, [grid.count(k) for k in (0, 250, 500, 999)]

    assert counts(grid=18)[1] == [18] * 4
    grid, grown = counts(grid=151, grid_start=2, grid_growth="square", target_decay=0.9)
    s_0, s_1 = 2, 150
    expected = [math.ceil(math.sqrt(k / 1000 * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1) + 1 for k in (0, 250, 500, 999)]
    assert grown == expected and grown[0] == 2
    assert grid.decay(500) == pytest.approx(math.exp(2 * math.log(0.9) / expected[2])) and grid.decay(0) == 0.9
    # s_0 = 10 and s_1 = 1280 double seven times, in eight equal parts of the training.
    _, doubled = counts(grid=1281, grid_start=11, grid_growth="doubling", target_decay=0)
    assert doubled == [11, 41, 161, 1281]


def test_lognormal_times_are_drawn_by_their_noise_level():
    """Each interval is drawn as often as the levels' normal distribution says (Song & Dhariwal, Section 3.5)."""
    settings = find_method("consistency").settings(**RUN, grid=9, grid_times="lognormal")
    grid = Grid(Cosine(), 0.02, 0.98, settings, 100)
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    t, s, _ = grid(Turn("student", 0, 0.0, Draws({"t": uniform})), "cpu")
    ends = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    normal = torch.distributions.Normal(-1.1, 2.0).cdf(Cosine().lambda_(ends))
    shares = normal.diff() / normal.diff().sum()
    found = torch.stack([((s - low).abs() < 1e-4).double().mean() for low in ends[:-1]])
    torch.testing.assert_close(found, shares.double(), atol=2e-4, rtol=0)
    assert bool((t > s).all())


def test_the_weight_of_a_pair_of_times_is_one_over_its_step():
    settings = find_method("consistency").settings(**RUN, grid=5, grid_weight="inverse-step")
    grid = Grid(Cosine(), 0.1, 0.9, settings, 100)
    t, s, weight = grid(turn(step=torch.tensor([0, 1, 2, 3])), "cpu")
    ratio = [Cosine().lambda_(time.double()).exp() for time in (t, s)]
    torch.testing.assert_close(weight.double(), 1 / (ratio[0] - ratio[1]), rtol=1e-4, atol=0)


def test_without_a_boundary_the_student_answers_as_its_network():
    assert isinstance(objective("consistency", boundary="naive").student.module.boundary, Naive)


# TRACT


def test_tract_is_progressive_distillation_where_a_group_is_two_steps_and_nothing_was_learned_yet():
    halving, tract = objective("progressive", start_calls=4), objective("tract", phases=[8, 4])
    network = Calls(lambda z, *rest: torch.zeros_like(z))
    teacher = Calls(lambda z, t, s, c: TEACHER.x0(z, t, c))
    numbers = torch.arange(4)
    expected = loss_of(halving, {"student": network}, turn(step=numbers))
    found = loss_of(tract, {"student": network, "student@target": teacher}, turn(step=2 * numbers))
    assert found == pytest.approx(expected, rel=1e-5) and expected > 0


def test_tracts_last_step_of_a_group_is_the_teachers_alone():
    asked = objective("tract", phases=[8, 2])
    nobody = Calls(lambda z, t, s, c: torch.full_like(z, torch.nan))
    seen = []
    network = Calls(lambda z, t, s, c: (seen.append((t, s)), TEACHER.x0(z, t, c))[1])
    assert loss_of(asked, {"student": network, "student@target": nobody}, turn(step=torch.tensor([3, 7, 3, 7]))) < 1e-9
    low, high = TEACHER.t_range
    torch.testing.assert_close(seen[0][1][:2], torch.tensor([high - (high - low) / 2, low]))
    inside = turn(step=torch.tensor([0, 1, 2, 4]))
    assert math.isnan(loss_of(asked, {"student": network, "student@target": nobody}, inside))  # where it is asked


def test_tract_is_zero_at_the_exact_composition():
    """A student that jumps as all the teacher's steps of its group do, and a self-teacher that is the same one."""
    asked = objective("tract", phases=[8, 2])
    low, high = TEACHER.t_range
    times = [high - i * (high - low) / 8 for i in range(8)]

    def jump(z: Tensor, t: Tensor, s: Tensor, c) -> Tensor:
        from bootdiff.solvers import Level, signal_of_step, step_between

        out = []
        for row, here, end in zip(z, t.tolist(), s.tolist(), strict=True):
            image = abs(end - low) < 1e-6
            path = [time for time in times if end - 1e-6 < time < here + 1e-6]
            path = [*path, end] if image or abs(path[-1] - end) > 1e-6 else path
            x = row[None]
            for a, b in pairwise(path):
                last = torch.tensor([image and b == end])
                levels = [Level.at(torch.tensor([v]), TEACHER.schedule, x, image=i) for v, i in ((a, None), (b, last))]
                x = step_between(x, TEACHER.x0(x, torch.tensor([a]), c), *levels)
            ends = [
                Level.at(torch.tensor([v]), TEACHER.schedule, x, image=torch.tensor([i]))
                for v, i in ((here, False), (end, image))
            ]
            out.append(signal_of_step(row[None], x, *ends))
        return torch.cat(out)

    exact = Calls(jump)
    at = turn(step=torch.tensor([0, 2, 5, 7]))
    assert loss_of(asked, {"student": exact, "student@target": exact}, at) < 1e-9


@pytest.mark.parametrize("phases", [[8], [8, 3], [4, 8], [8, 8], [8, 0]])
def test_phases_that_do_not_group_are_refused(phases):
    with pytest.raises(BootdiffError, match="phases"):
        find_method("tract").settings(phases=phases)


# ReFlow and DFNO


def test_reflow_is_the_error_of_the_velocity_on_the_straight_line():
    """In tau = sigma / (alpha + sigma) a pair's line is (1 − tau) x + tau eps, whose velocity is eps − x."""
    asked = objective("reflow", flows=1)
    share = torch.tensor([0.2, 0.5, 0.7, 0.9])
    low, high = TEACHER.t_range
    t = low + (high - low) * share
    alpha, sigma = (v[:, None] for v in TEACHER.schedule.alpha_sigma(t))
    tau = sigma / (alpha + sigma)
    answer = X + torch.tensor([[0.1, -0.2]])
    velocity = ((1 - tau) * X + tau * NOISE - answer) / tau  # of a flow that expects ``answer``
    expected = (velocity - (NOISE - X)).square().mean()
    found = loss_of(asked, {"student": Calls(lambda z, t, c: answer)}, turn(t=share))
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert loss_of(asked, {"student": Calls(lambda z, t, c: X)}, turn(t=share)) == 0


def test_reflows_last_round_is_one_call():
    kind = find_method("reflow")
    stages = kind.stages_of(kind.settings(**RUN, flows=2))
    assert [stage.name for stage in stages] == ["rounds/flow1", "rounds/flow2", ""]
    asked = kind.build(TEACHER, stages[-1].settings.model_copy(update={"t_min": 0.02, "t_max": 0.98}), Source())
    assert (asked.student.module.calls, asked.student.module.any_calls) == (1, False)
    seen = []
    network = Calls(lambda z, t, c: (seen.append((z, t)), X)[1])
    assert loss_of(asked, {"student": network}, turn()) == 0
    torch.testing.assert_close(seen[0][0], TEACHER.schedule.start_scale(0.98) * NOISE)
    assert bool((seen[0][1] == torch.tensor(0.98)).all())
    alone = kind.stages_of(kind.settings(**RUN, flows=1, one_call=False))
    assert [stage.name for stage in alone] == [""] and not alone[0].settings.one_call


def test_dfno_is_zero_at_the_teachers_states():
    asked = objective("dfno", trajectory_times=4)
    assert len(asked.student.module.times) == 4
    states = torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch(NOISE, data=states[:, -1], states=states)
    assert loss_of(asked, {"student": Calls(lambda eps, t, c: states)}, turn(), batch) == 0
    shifted = Calls(lambda eps, t, c: states + torch.tensor([1.0, 0, 0, 0])[None, :, None])
    assert loss_of(asked, {"student": shifted}, turn(), batch) == pytest.approx(0.25)


# All of them

SIBLINGS = ["progressive", "consistency", "tract", "reflow", "dfno"]


@pytest.mark.parametrize("method", [*SIBLINGS, "consistency-training"])
def test_gradients_reach_the_student_only(method):
    words = {"images": "digits"} if method == "consistency-training" else {}
    asked = objective(method, **words)
    student = asked.student.module
    networks = {"student": student, **{f"student@{name}": student for name in asked.student.averages}}
    states = X[:, None].expand(-1, 8, -1).clone()
    batch = Batch(NOISE, data=X.clone().requires_grad_(True), states=states)
    draws = turn(step=torch.tensor([0, 1, 2, 3]), t=torch.tensor([0.2, 0.4, 0.6, 0.8]))
    (term,) = asked.losses(networks, draws, batch)
    loss = term()
    assert set(loss.scalars) and bool(torch.isfinite(loss.total))
    loss.total.backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.parameters())
    for module in asked.frozen():
        assert all(p.grad is None for p in module.parameters())
    assert asked.turns(0) == ("student",) and list(asked.learners()) == ["student"]


def test_a_step_of_ddim_is_that_of_equation_2():
    t, s = torch.full((4,), 0.8), torch.full((4,), 0.5)
    x_t = noisy(X, NOISE, t, TEACHER.schedule)
    torch.testing.assert_close(ddim_step(x_t, X, t, s, TEACHER.schedule), noisy(X, NOISE, s, TEACHER.schedule))


def test_grid_settings_that_do_not_grow_are_refused():
    with pytest.raises(BootdiffError, match="grid_start 30 should not exceed grid, 18"):
        GridSettings(grid_growth="square", grid_start=30)


def test_a_student_of_an_earlier_boundary_is_gone_on_with(tmp_path):
    teacher = load_teacher("digits").denoiser
    student = ConsistencyStudent.from_teacher(teacher)
    student.boundary = Skip()
    save_student(student, tmp_path / "first")
    words = {
        "steps": 1,
        "batch_size": 2,
        "pairs": 2,
        "pair_steps": 2,
        "watch_every": 0,
        "start": str(tmp_path / "first"),
    }
    kind = find_method("consistency").settings
    again = distill("digits", tmp_path / "run", kind(**words), "consistency")
    assert again.boundary == Skip()
    with pytest.raises(BootdiffError, match="has the boundary skip, and naive is asked; leave it out"):
        distill("digits", tmp_path / "other", kind(**words, boundary="naive"), "consistency")
