"""The plots of docs/choosing.md that set distance against calls and against path error, from a finished comparison.

python docs/figures/choosing.py runs/compared FOLDER
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from bootdiff.evaluation.comparison_files import quality_chart

compared, folder = Path(sys.argv[1]), Path(sys.argv[2])
rows = json.loads((compared / "compare.json").read_text())["rows"]
folder.mkdir(parents=True, exist_ok=True)
quality_chart(rows).savefig(folder / "calls.png", dpi=110)

figure = Figure(figsize=(6.2, 4), layout="constrained")
axes = figure.subplots()
students = [row for row in rows if row["kind"] == "student" and row["frechet_distance"] is not None]
for name in dict.fromkeys(row["title"] for row in students):
    # The student, and the same with a few of its teacher's calls after it.
    own = [row for row in students if row["title"] == name]
    points, calls = [(r["path_error"], r["frechet_distance"]) for r in own], [r["calls"] for r in own]
    (line,) = axes.plot(*zip(*points, strict=True), "--", marker=".", label=name)
    axes.plot(*points[0], "*", markersize=15, color=line.get_color())
    for point, count in zip(points, calls, strict=True):
        axes.annotate(str(count), point, textcoords="offset points", xytext=(6, 4), fontsize=8)
axes.set(xlabel="path error", ylabel="Fréchet distance")
axes.grid(alpha=0.3)
axes.legend(frameon=False, fontsize=8)
figure.savefig(folder / "path-or-distribution.png", dpi=110)
