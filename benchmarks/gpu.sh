#!/bin/sh
# Everything that is measured on a GPU, in one call of under ten minutes; benchmarks/gpu.py says what and how.
#
#   benchmarks/gpu.sh [TABLE] [--out .out/gpu.json] [--minutes 9] [--jobs 8] [--dry-run]
#
# It needs this tree, Python with the packages of the extras `gpu` and `train`, and a GPU. PYTHON names another Python.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" OPENBLAS_NUM_THREADS=1
exec "${PYTHON:-$python}" "$root/benchmarks/gpu.py" "$@"
