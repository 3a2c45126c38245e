"""Every family of pipelines: read, grown, folded, exported, opened again by stock diffusers, from one table."""

from __future__ import annotations

import pytest
import torch

from bootdiff.core.randomness import sample_noise
from bootdiff.export.diffusers import export_student
from bootdiff.samplers.choice import Choice, conditions_for
from bootdiff.samplers.students import open_student
from bootdiff.students import Student
from bootdiff.students.files import load_student, save_student
from family_table import (
    COUNT,
    FAMILIES,
    SEED,
    WORDS,
    conditions,
    disturbed,
    grown,
    in_stock_range,
    opened,
    stock_images,
    stock_pipeline,
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_student_is_its_teacher_exactly(tmp_path, name):
    _, teacher = opened(name, tmp_path)
    # Frozen like its teacher: torch multiplies by another kernel where a weight wants gradients.
    student, condition = Student.from_teacher(teacher).requires_grad_(False), conditions(teacher)
    eps = sample_noise(0, 0, COUNT, teacher.shape)
    with torch.no_grad():
        expected = teacher.denoiser.x0(eps, torch.full((COUNT,), student.t_max), condition)
        for t in (student.t_min, 0.4, student.t_max):
            assert float((student(eps, torch.full((COUNT,), t), condition) - expected).abs().max()) == 0
        swapped = student(eps, torch.full((COUNT,), 0.4), condition.index(torch.tensor([1, 0])))
    assert float((swapped - expected).abs().max()) > 1e-4, "the condition has no effect"


@pytest.mark.parametrize("name", ["classes", "dit", "sd3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_a_batch_and_leave_nothing_behind(tmp_path, name, checkpointing):
    """Two terms one after the other, as in the loop; blocks that run again find the shift of their own pass."""
    _, teacher = opened(name, tmp_path)
    student, condition = disturbed(Student.from_teacher(teacher)), conditions(teacher)
    eps, network = sample_noise(0, 0, COUNT, teacher.shape), student.network
    times = [torch.full((COUNT,), t) for t in (0.3, 0.8)]

    def gradients() -> list[torch.Tensor]:
        student.zero_grad()
        for t in times:
            student(eps, t, condition).square().mean().backward()
        return [p.grad.clone() for p in student.parameters() if p.grad is not None]

    expected = gradients()
    assert network.shift.value is None and float(network.target.linear_1.weight.grad.abs().max()) > 0
    if checkpointing:
        network.network.enable_gradient_checkpointing()
    for got, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max() + 1e-12))


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_diffusers_makes_our_images(tmp_path, name):
    _, teacher = opened(name, tmp_path / "teacher")
    student, condition = disturbed(grown(name, teacher).requires_grad_(False)), conditions(teacher)
    eps = sample_noise(SEED, 0, COUNT, student.shape)
    assert float((student.sample(eps, condition) - student.sample(eps, condition, t=0.5)).abs().max()) > 1e-4
    ours = in_stock_range(name, student.decode(student.sample(eps, condition)))
    export_student(student, tmp_path / "student", {})
    pipe = stock_pipeline(tmp_path / "student")
    assert type(pipe).__name__ in (teacher.denoiser.adapter.parts.pipeline_class, "ConsistencyModelPipeline")
    stock = stock_images(name, pipe)
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5 * max(1.0, float(ours.abs().max())))
    if FAMILIES[name].refuses:
        with pytest.raises(ValueError):
            stock_images(name, pipe, num_inference_steps=4)
    else:  # nothing moves before the last step
        torch.testing.assert_close(stock_images(name, pipe, num_inference_steps=4), stock, rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_a_weight_that_is_an_input_is_served_by_the_stock_pipeline(tmp_path, name):
    family, teacher = opened(name, tmp_path / "teacher")
    student = disturbed(Student.from_teacher(teacher, guidance=(1.0, 5.0)).requires_grad_(False), 0.05)
    condition, eps = conditions(teacher), sample_noise(SEED, 0, COUNT, student.shape)
    export_student(student, tmp_path / "student", {})
    pipe = stock_pipeline(tmp_path / "student")
    images = []
    for weight in (1.5, 4.0):
        ours = student.decode(student.sample(eps, condition.add(guidance=torch.full((COUNT,), weight))))
        images.append(stock_images(name, pipe, guidance_scale=weight))
        torch.testing.assert_close(images[-1], in_stock_range(name, ours), rtol=0, atol=1e-5)
    assert float((images[0] - images[1]).abs().max()) > 1e-3, "the weight has no effect"
    if family.refuses:
        with pytest.raises(ValueError):
            pipe(**{**family.call, "num_inference_steps": 2})


@pytest.mark.parametrize("name", FAMILIES)
def test_files_bring_the_student_back(tmp_path, name):
    _, teacher = opened(name, tmp_path / "teacher")
    student, condition = disturbed(grown(name, teacher).requires_grad_(False)), conditions(teacher)
    eps = sample_noise(0, 0, COUNT, student.shape)
    save_student(student, tmp_path / "run/student-path")
    export_student(student, tmp_path / "run/student", {})
    again = load_student(tmp_path / "run")
    for t in (student.t_min, 0.4):
        assert torch.equal(again.sample(eps, condition, t=t), student.sample(eps, condition, t=t))
    expected = student.sample(eps, condition)
    size = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(student.one_step()(eps, condition), expected, rtol=0, atol=1e-5 * size)
    sampler, facts = open_student(str(tmp_path / "run/student"))
    torch.testing.assert_close(sampler(eps, condition), expected, rtol=0, atol=2e-5 * size)
    if not hasattr(student.adapter, "upscaled"):
        choice = Choice(prompts=WORDS) if student.adapter.takes == "prompts" else Choice(classes=[1, 3])
        listed = conditions_for(sampler, facts, choice).listed(0, 0, COUNT)
        torch.testing.assert_close(sampler(eps, listed), expected, rtol=0, atol=2e-5 * size)
