"""Several threads sample at a time: each gets the bits that it gets alone, because a call changes nothing."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import sample_noise
from bootdiff.data.conditions import Classes
from bootdiff.export.diffusers import export_student
from bootdiff.samplers.kinds import kinds_for
from bootdiff.samplers.refine import Refined
from bootdiff.samplers.stock import candidates
from bootdiff.samplers.students import PathSampler, StockStudent
from bootdiff.schedules import Cosine
from bootdiff.students import Student
from bootdiff.system.quiet import quietly
from bootdiff.teachers import CallableTeacher, Clip, Limited, Mixture
from bootdiff.teachers.encoding import PromptEncoder
from bootdiff.teachers.guidance import guided
from family_table import conditions, disturbed, opened

THREADS = 8


class Meeting:
    """A hook that lets no thread go on before all are there: whatever a call leaves to another, it now finds."""

    def __init__(self, module: nn.Module) -> None:
        self.barrier = threading.Barrier(THREADS)
        self.hook = module.register_forward_pre_hook(self)

    def __deepcopy__(self, memo: dict) -> Meeting:
        return self

    def __call__(self, module: nn.Module, inputs: object) -> None:
        self.barrier.wait(timeout=60)

    def close(self) -> None:
        self.barrier.abort()
        self.hook.remove()


def check_threads(calls: Sequence[Callable[[], torch.Tensor]], inside: nn.Module) -> None:
    """Every call, with all others under way inside this module, gives the bits that it gives alone."""
    with torch.no_grad():
        expected = [call() for call in calls]
    assert len({value.sum().item() for value in expected}) == len(calls) == THREADS, "the calls are alike"
    meeting = Meeting(inside)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            found = [future.result() for future in [pool.submit(torch.no_grad()(call)) for call in calls]]
    finally:
        meeting.close()
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got, wanted)


def asked(teacher, of: Callable[[int, torch.Tensor, Condition], torch.Tensor]) -> list[Callable[[], torch.Tensor]]:
    """A call for each thread, with its own noise and condition."""
    both = conditions(teacher) if teacher.denoiser.adapter is not None else Condition()

    def call(number: int) -> torch.Tensor:
        order = torch.tensor([number % 2, (number // 2) % 2])
        return of(number, sample_noise(number, 0, 2, teacher.shape), both.index(order) if both else both)

    return [lambda number=number: call(number) for number in range(THREADS)]


def clock(student: Student) -> nn.Module:
    """What the network calls before its embedding is shifted."""
    return student.network.adapter.clocks(student.network.network)[0].proj


class Plain(nn.Module):
    """A network of one's own, whose layers may be checkpointed by itself."""

    def __init__(self, checkpoints: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))
        self.table, self.checkpoints = nn.Embedding(3, 1), checkpoints

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        out = checkpoint(self.layers, x, use_reentrant=False) if self.checkpoints else self.layers(x)
        return out if classes is None else out + self.table(classes)[:, :, None, None]


def plain_teacher(checkpoints: bool = False) -> CallableTeacher:
    return CallableTeacher(Plain(checkpoints), Cosine(), "sample", (1, 8, 8))


@pytest.mark.parametrize("name", ["classes", "dit", "sd", "sd3"])
def test_a_student_that_threads_share_gives_each_its_own_image(tmp_path, name):
    """Other noises, conditions and times at once: on the path, folded, and in the exported pipeline."""
    _, teacher = opened(name, tmp_path / "teacher")
    student = disturbed(Student.from_teacher(teacher).requires_grad_(False), 0.1)
    times = torch.linspace(student.t_min, student.t_max, THREADS).tolist()
    check_threads(asked(teacher, lambda n, eps, c: student.sample(eps, c, times[n])), clock(student))
    check_threads(asked(teacher, lambda n, eps, c: PathSampler(student, times[n])(eps, c)), clock(student))
    folded = student.one_step()
    check_threads(asked(teacher, lambda n, eps, c: folded(eps, c)), student.adapter.clocks(folded.network)[0].proj)
    export_student(student, tmp_path / "student", {})
    stock = StockStudent(tmp_path / "student")
    check_threads(asked(teacher, lambda n, eps, c: stock(eps, c)), stock.adapter.clocks(stock.network)[0].proj)


def test_a_guidance_weight_belongs_to_its_call(tmp_path):
    _, teacher = opened("dit", tmp_path)
    student = disturbed(Student.from_teacher(teacher, guidance=(1.0, 5.0)).requires_grad_(False), 0.1)

    def call(number: int, eps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return student.sample(eps, condition.add(guidance=torch.full((2,), 1.0 + number / 2)))

    check_threads(asked(teacher, call), clock(student))


def test_networks_of_ones_own_and_analytic_teachers(tmp_path):
    teacher = plain_teacher()
    student = disturbed(Student.from_teacher(teacher).requires_grad_(False), 0.1)
    times = torch.linspace(student.t_min, student.t_max, THREADS).tolist()
    inside = student.network.network.layers[0]
    check_threads(asked(teacher, lambda n, eps, c: student.sample(eps, c, times[n])), inside)
    folded = student.one_step()
    check_threads(asked(teacher, lambda n, eps, c: folded(eps, c)), folded.network.layers[0])
    teacher = Mixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.1, Cosine())
    analytic = disturbed(Student.from_teacher(teacher).requires_grad_(False), 0.1)
    check_threads(asked(teacher, lambda n, eps, c: analytic.sample(eps, c, times[n])), analytic.network.first)


def test_teachers_after_a_student_and_their_stock_samplers():
    teacher = plain_teacher()
    student = PathSampler(disturbed(Student.from_teacher(teacher).requires_grad_(False), 0.1))
    null = Classes([2]).listed(0, 0, 1)
    model = guided(Limited(teacher, Clip(30.0)), null, 3.0)
    refined = Refined(student, model, 2, 0.5)

    def call(sampler) -> list[Callable[[], torch.Tensor]]:
        conditions = [Classes([0, 1]).listed(0, n % 2, n % 2 + 2) for n in range(THREADS)]
        return asked(teacher, lambda n, eps, c: sampler(eps, conditions[n]))

    check_threads(call(refined), teacher.network.layers[0])
    for name in ("ddpm", "pndm", "dpm-solver++", "unipc"):
        candidate = candidates(model, name, 4)[0]
        check_threads(call(candidate.sample), teacher.network.layers[0])
    assert {"ddpm", "pndm"} < kinds_for(model).keys()


def test_hooks_and_weights_stay_where_they_are_during_a_call(tmp_path, monkeypatch):
    """The first call on a device moves the weights; no later one does, and none places or removes a hook."""
    _, teacher = opened("classes", tmp_path / "teacher")
    pipeline = disturbed(Student.from_teacher(teacher).requires_grad_(False))
    export_student(pipeline, tmp_path / "student", {})
    own = plain_teacher()
    plain = Student.from_teacher(own).requires_grad_(False)
    samplers = [
        (PathSampler(pipeline), conditions(teacher), pipeline.network),
        (StockStudent(tmp_path / "student"), conditions(teacher), None),
        (PathSampler(plain), Condition(), plain.network),
        (Refined(PathSampler(plain), own, 1, 0.5), Condition(), plain.network),
    ]
    for sampler, condition, network in samplers:
        network = sampler.network if network is None else network
        eps = sample_noise(0, 0, 2, sampler.shape)
        sampler(eps, condition)
        seen: list[object] = []

        def hooks(network=network) -> list[list[object]]:
            return [list(module._forward_hooks.values()) for module in network.modules()]

        before = hooks()
        layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        watching = layer.register_forward_pre_hook(lambda *_, hooks=hooks, seen=seen: seen.append(hooks()))
        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, "_apply", lambda *_, **__: pytest.fail("weights are moved at every call"))
            sampler(eps, condition)
        watching.remove()
        assert seen and seen[0] == before


@pytest.mark.parametrize("name", ["dit", "sd3"])
def test_a_block_that_is_computed_again_finds_the_shift_of_its_own_pass(tmp_path, name):
    """In another thread, as autograd's own for a GPU, and after another call of the same network."""
    _, teacher = opened(name, tmp_path)
    student, condition = disturbed(Student.from_teacher(teacher), 0.1), conditions(teacher)
    eps = sample_noise(0, 0, 2, teacher.shape)

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        student.zero_grad()
        if checkpointing:
            student.network.network.enable_gradient_checkpointing()
        losses = [student(eps, torch.full((2,), t), condition).square().mean() for t in (0.2, 0.9)]
        with ThreadPoolExecutor(1) as pool:
            for loss in losses:
                pool.submit(loss.backward).result()
        return [p.grad.clone() for p in student.parameters() if p.grad is not None]

    expected = gradients(checkpointing=False)
    for got, wanted in zip(gradients(checkpointing=True), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max() + 1e-12))


def test_a_checkpointing_that_would_lose_the_target_time_is_refused():
    student = disturbed(Student.from_teacher(plain_teacher(checkpoints=True)))
    loss = student(torch.randn(2, 1, 8, 8), torch.full((2,), 0.5)).square().mean()
    with pytest.raises(BootdiffError, match=r"Conv2d of the student's network is computed again .* switch that off"):
        loss.backward()


def test_copies_and_pickles_have_a_call_of_their_own(tmp_path):
    _, teacher = opened("classes", tmp_path)
    for student in (Student.from_teacher(teacher).network, Student.from_teacher(plain_teacher()).network):
        disturbed(student, 0.1)
        x, t = torch.randn(2, *teacher.shape if hasattr(student, "adapter") else (1, 8, 8)), torch.full((2,), 500.0)
        condition = conditions(teacher) if hasattr(student, "adapter") else Condition()
        copies = [copy.deepcopy(student)]
        if not hasattr(student, "adapter"):  # an adapter holds a pipeline, which nobody pickles
            copies.append(pickle.loads(pickle.dumps(student)))
        with torch.no_grad():
            expected = student(x, t, t / 2, condition)
            for made in copies:
                assert torch.equal(made(x, t, t / 2, condition), expected)
                for parameter in made.parameters():
                    parameter.zero_()
                assert torch.equal(student(x, t, t / 2, condition), expected)


def test_folding_takes_its_own_hooks_away_and_nobody_elses(tmp_path):
    _, teacher = opened("classes", tmp_path)
    student = Student.from_teacher(teacher)
    layer = student.network.network.time_embedding.linear_2
    layer.register_forward_hook(lambda module, inputs, output: output)  # as peft or accelerate may have placed one
    assert len(student.network.network.time_embedding.linear_2._forward_hooks) == 2
    assert len(student.fold().time_embedding.linear_2._forward_hooks) == 1
    folded = Student.from_teacher(plain_teacher()).fold()
    assert not any(module._forward_hooks for module in folded.modules())


def test_what_quiet_switches_off_is_on_again_when_the_last_thread_leaves():
    log = logging.getLogger("diffusers")
    before = log.level
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with quietly():
            inside.set()
            leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        with quietly():
            staying = pool.submit(stay)
            assert inside.wait(60)
        assert log.level == logging.CRITICAL, "one thread ended the silence of another"
        leave.set()
        staying.result()
    assert log.level == before


def test_tokenizers_answer_one_thread_at_a_time(tmp_path, monkeypatch):
    """They are told how to cut and fill at each question, and refuse to be told by two."""
    _, teacher = opened("sd", tmp_path)
    adapter = teacher.denoiser.adapter
    encoder, encode, asking = PromptEncoder(adapter), type(adapter).encode, threading.Semaphore(1)

    def alone(*asked):
        assert asking.acquire(blocking=False), "two threads ask at a time"
        try:
            return encode(*asked)
        finally:
            asking.release()

    monkeypatch.setattr(type(adapter), "encode", alone)
    prompts = [["a " * (n + 1), "b"] for n in range(THREADS)]
    expected = [encoder(words)["text"] for words in prompts]
    ready = threading.Barrier(THREADS)

    def ask(words: list[str]) -> torch.Tensor:
        ready.wait(60)
        return encoder(words)["text"]

    with ThreadPoolExecutor(THREADS) as pool:
        for got, wanted in zip(pool.map(ask, prompts), expected, strict=True):
            assert torch.equal(got, wanted)
