"""What an installed wheel must do, asked by the environment's own Python from a folder outside the repository.

    cd SOMEWHERE && ENVIRONMENT/bin/python -P tests/wheel_check.py

Every module is imported, the files that are no code are there, and the installed command runs the quickstart in few
steps. The standard library alone, so that nothing has to be installed beside the wheel.
"""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

FILES = ("py.typed", "report/page.html", "report/page.css", "builtin/digits/corrected.yaml")
WEIGHTS = ("digits", "digits-class", "digits-text", "digits-cascade", "digits-cascade-upscaler")
FEW = ["steps=2", "boot.steps=2", "fake_warmup=1"]


def main() -> None:
    """Check all; the first fault ends it with words."""
    import bootdiff

    package = Path(bootdiff.__file__).parent
    if not package.is_relative_to(sys.prefix):
        sys.exit(f"bootdiff comes from {package}, which is not in this environment.")
    names = [module.name for module in pkgutil.walk_packages(bootdiff.__path__, "bootdiff.")]
    for name in names:
        importlib.import_module(name)
    weights = [f"builtin/{name}/teacher/unet/diffusion_pytorch_model.safetensors" for name in WEIGHTS]
    missing = [name for name in (*FILES, *weights) if not (package / name).is_file()]
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}.")
    run = Path("quickstart")
    words = [Path(sys.executable).with_name("bootdiff"), "quickstart", "--output", run, "--num", "8"]
    subprocess.run([*words, *(f"--set={setting}" for setting in FEW)], check=True)
    left = [
        name for name in ("report.html", "evaluation.json", "student/model_index.json") if not (run / name).exists()
    ]
    if left:
        sys.exit(f"the quickstart left no {', '.join(left)}.")
    print(f"the wheel holds {len(names)} modules, which import, and runs the quickstart.")


if __name__ == "__main__":
    main()
