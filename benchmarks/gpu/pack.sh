#!/usr/bin/env bash
# Gathers in benchmarks/gpu/packed what a GPU machine without a network lacks: wheels, images, the fashion-32 teacher.
#
#   benchmarks/gpu/pack.sh [--python 3.12] [--data FOLDER] [--teacher FOLDER]
#
# FOLDERs by default: ../shared/data/cifar10-jpeg and ../shared/teachers/fashion-32. Nothing of it is committed: the
# images' licence is not stated. Budgets in MiB: WHEELS_MIB (12), IMAGES_MIB (8), TRACKED_MIB (40), TRAVELS_MIB (64).
set -euo pipefail

cd "$(dirname "$0")/../.."
here=benchmarks/gpu
packed=${PACKED:-$here/packed}
python_version=3.12
data=../shared/data/cifar10-jpeg
teacher=../shared/teachers/fashion-32
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || { echo "pack.sh: expected a value after '$1'." >&2; exit 2; }
  case $1 in
    --python) python_version=$2 ;;
    --data) data=$2 ;;
    --teacher) teacher=$2 ;;
    *) echo "pack.sh: expected --python VERSION, --data FOLDER or --teacher FOLDER, got '$1'." >&2; exit 2 ;;
  esac
  shift 2
done

# What that machine lacks and a stage imports. diffusers asks for importlib_metadata and imports it on no Python that we
# support; huggingface_hub, safetensors, numpy and transformers are there, in versions that this diffusers accepts.
missing=(diffusers pydantic pydantic_core annotated-types typing-inspection typing_extensions)

fail() { echo "pack.sh: $1" >&2; exit 1; }
bytes() { du -cb "$@" | tail -1 | cut -f1; }
mib() { awk -v b="$1" 'BEGIN { printf "%.2f", b / 1048576 }'; }
within() { # what, bytes, budget in MiB
  awk -v b="$2" -v m="$3" 'BEGIN { exit !(b <= m * 1048576) }' \
    || fail "$1 take $(mib "$2") MiB, and the budget is $3 MiB; leave something out."
}

wanted=()
for name in "${missing[@]}"; do
  line=$(grep -i "^$name==" constraints.txt) || fail "constraints.txt has no line for $name; pin it there."
  wanted+=("$line")
done
platforms=()
for platform in manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64; do
  platforms+=(--platform "$platform")
done

[[ $python_version =~ ^3\.[0-9]+$ ]] || { echo "pack.sh: expected a Python version such as 3.12, got '$python_version'." >&2; exit 2; }
[ -f "$teacher/model_index.json" ] || fail "no teacher in $teacher; name the folder of fashion-32 with --teacher FOLDER."
"$python" -c 'import PIL, pyarrow' 2>/dev/null \
  || fail "$python has no pillow or no pyarrow, which the images are read with; run make install, or set PYTHON."
[ -f "$data/train.parquet" ] || fail "no train.parquet in $data; name the folder of CIFAR-10 with --data FOLDER."
# Aside first: what was packed before stays until the new wheels are whole.
fresh=$packed/wheels.new
rm -rf "$fresh"
mkdir -p "$fresh"
said=$("$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
  --python-version "$python_version" "${platforms[@]}" --dest "$fresh" "${wanted[@]}" 2>&1) \
  || { rm -rf "$fresh"; fail "the wheels cannot be downloaded for Python $python_version: $(tail -1 <<<"$said")"; }
within "the wheels" "$(bytes "$fresh"/*)" "${WHEELS_MIB:-12}"
rm -rf "$packed/wheels"
mv "$fresh" "$packed/wheels"

rm -rf "$packed/teachers/fashion-32"
mkdir -p "$packed/teachers"
cp -r "$teacher" "$packed/teachers/fashion-32"
chmod -R u+w "$packed/teachers/fashion-32"

"$python" $here/sheets.py "$data" "$packed/images" --mib "${IMAGES_MIB:-8}" || fail "the images cannot be packed."
within "the images" "$(bytes "$packed"/images/*)" "${IMAGES_MIB:-8}"

tracked=$(git ls-files -z | xargs -0 du -cb | tail -1 | cut -f1)
within "the tracked files" "$tracked" "${TRACKED_MIB:-40}"
git rev-parse --short=8 HEAD >"$packed/commit"
[ -z "$(git status --porcelain --untracked-files=no -- . ':!docs')" ] || sed -i 's/$/+/' "$packed/commit"
all=$(find "$packed" -type f -print0 | xargs -0 du -cb | tail -1 | cut -f1)
within "tracked and packed files" "$((tracked + all))" "${TRAVELS_MIB:-64}"
echo "packed for Python $python_version at $(cat "$packed/commit"): wheels $(mib "$(bytes "$packed"/wheels/*)") MiB," \
  "images $(mib "$(bytes "$packed"/images/*)") MiB, with the tracked files $(mib "$((tracked + all))") MiB"
