"""Whether everything runs on this device at all: every family of pipelines, and the suite's own GPU tests.

A family's tiny random pipeline is loaded, BOOT learns for five steps, the student is sampled, exported, and opened
again by stock diffusers. Two figures of every family are differences relative to the range of the images: the same
float32 student here and on the CPU (TF32 off, in convolutions too), and the stock pipeline's images beside ours.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import device
from context import Context, said
from records import ROOT, Row
from torch.nn.attention import SDPBackend, sdpa_kernel

from bootdiff.core.errors import Interrupted

STEPS, BATCH = 5, 4
#: what float32 on two devices may differ by, relative to the range
ALLOWED = 1e-3
#: the toy's families: one of pixels, one of latents
TOYS = ("classes", "dit")
#: seconds that the suite's own tests may still need when the families are through
PATIENCE = 45.0
#: with less time, in seconds, no further family is begun
LEAST = 5.0


def run(context: Context) -> None:
    """Tables ``families`` and ``suite``."""
    import family_table

    names = TOYS if context.toy else tuple(family_table.FAMILIES)
    context.work.mkdir(parents=True, exist_ok=True)
    base: Path | None = None
    with suite() as tests, full_float32():
        for number, name in enumerate(names):
            if context.left < LEAST:
                context.add("families", {"family": name, "verdict": "not tried: no time is left"})
                continue
            row = family(context, name, context.work / f"{number}-{name.replace(' ', '-')}", base)
            base = row.pop("run", None) if name == "if" else base
            row.pop("run", None)
            context.add("families", row)
            context.say(", ".join(f"{key} {value}" for key, value in row.items() if value is not None))
        context.put("suite", [suite_row(tests, min(PATIENCE, context.left - 2))])


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 anywhere: it has three digits, and we compare with a processor that has seven."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def family(context: Context, name: str, folder: Path, base: Path | None) -> dict[str, Any]:
    """A family's row; what fails is named in it, and the stage goes on."""
    row: dict[str, Any] = {"family": name}
    started = time.perf_counter()
    try:
        _family(row, name, folder, base)
        good = all(row[key] <= ALLOWED for key in ("CPU − here", "stock − ours"))
        row["verdict"] = "not in bf16" if row["bf16"] != "finite" else "passed" if good else f"above {ALLOWED:g}"
    except Interrupted:
        raise
    except Exception as error:
        traceback.print_exc()
        row["verdict"] = f"failed: {said(error)}"
    row["seconds"] = round(time.perf_counter() - started, 1)
    return row


def _family(row: dict[str, Any], name: str, folder: Path, base: Path | None) -> None:
    import family_table as families
    from bootdiff import distill
    from bootdiff.core.randomness import sample_noise

    _, teacher = families.opened(name, fresh(folder / "teacher"))
    student = distill(teacher, fresh(folder / "run"), settings_for(name, teacher, folder, base))
    row["run"] = folder / "run"
    row["steps"] = STEPS
    condition = families.conditions(teacher)
    eps = sample_noise(families.SEED, 0, families.COUNT, student.shape)
    on_cpu = student.sample(eps, condition)
    here = student.to(device()).sample(eps.to(device()), condition.to(device()))
    row["CPU − here"] = gap(here, on_cpu)
    pipe = families.stock_pipeline(folder / "run" / "student").to(device())
    stock = families.stock_images(name, pipe).float()
    row["stock − ours"] = gap(stock, families.in_stock_range(name, student.decode(here)))
    row["bf16"] = half(name, folder, base, eps, condition)
    if row["bf16"] != "finite":  # is it the attention's kernel?
        with sdpa_kernel(SDPBackend.MATH):
            row["bf16, plain attention"] = half(name, folder, base, eps, condition)


def half(name: str, folder: Path, base: Path | None, eps: torch.Tensor, condition: Any) -> str:
    """Whether a student that bf16 trained makes finite images: "finite", or what happened instead."""
    import family_table as families
    from bootdiff import distill
    from bootdiff.core.errors import NonFiniteLossError

    _, teacher = families.opened(name, fresh(folder / "teacher"))
    settings = settings_for(name, teacher, folder, base, mixed_precision="bf16")
    try:
        student = distill(teacher, fresh(folder / "bf16"), settings)
    except NonFiniteLossError as error:
        return said(error)
    images = student.to(device()).sample(eps.to(device()), condition.to(device()))
    return "finite" if bool(torch.isfinite(images).all()) else "its images are not finite"


def settings_for(name: str, teacher: Any, folder: Path, base: Path | None, **more: Any) -> Any:
    """BOOT's settings for a few steps on this family."""
    import family_table as families
    from bootdiff import BootSettings
    from bootdiff.teachers import adapter_of

    adapter: Any = adapter_of(teacher)
    words: dict[str, Any] = {"t_max": families.FAMILIES[name].t_max}
    if adapter.takes == "prompts":
        path = folder / "prompts.txt"
        path.write_text("\n".join(families.WORDS), encoding="utf-8")
        words["prompts"] = str(path)
    if adapter.upscales:
        if base is None:
            raise RuntimeError("its base stage's run is missing, because that family failed")
        words["base"] = str(base)
    quiet = {"sample_every": 0, "watch_every": 0, "log_every": STEPS}
    return BootSettings(steps=STEPS, batch_size=BATCH, learning_rate=1e-3, ema_decay=0, **words, **quiet, **more)


def fresh(folder: Path) -> Path:
    """A folder's path, with nothing there yet."""
    from bootdiff.storage.files import remove

    remove(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the range of the second."""
    one, other = one.detach().float().cpu(), other.detach().float().cpu()
    return float((one - other).abs().max() / (other.max() - other.min()).clamp(min=1e-6))


@contextmanager
def suite() -> Iterator[tuple[subprocess.Popen[str] | None, list[str]]]:
    """The suite's tests with the mark ``gpu``, beside the families: (the process, its files); it ends with them."""
    tests = ROOT / "tests"
    files = sorted(str(p) for p in tests.glob("test_*.py") if "mark.gpu" in p.read_text(encoding="utf-8"))
    if not files:
        yield None, []
        return
    # Only the files that have such tests: others ask for packages that a GPU machine may lack.
    words = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    try:
        yield process, files
    finally:
        process.kill()


def suite_row(started: tuple[subprocess.Popen[str] | None, list[str]], seconds: float) -> Row:
    """How many of the suite's tests passed, and which did not."""
    process, files = started
    if process is None:
        return {"tests": "pytest tests -m gpu", "what": "no test has the mark gpu"}
    try:
        output = process.communicate(timeout=max(1.0, seconds))[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return {"tests": f"{len(files)} files", "what": f"not done after {seconds:.0f} s more than the families took"}
    print(output, flush=True)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", output)}
    broken = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    words = {5: "no test has the mark gpu", 0: "passed"}.get(process.returncode, ", ".join(broken) or "failed")
    return {"tests": f"{len(files)} files", **counts, "what": words}
