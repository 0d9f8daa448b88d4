#!/usr/bin/env bash
# Triton 3.6.0's interpreter fails with NumPy 2.4 on loops over arguments of a launch.
#
# Versions: triton 3.6.0 with numpy 2.3.5 and with numpy 2.4.6; Python 3.11 or 3.12 on Linux.
#
# Behaviour: with TRITON_INTERPRET=1 a kernel may loop over `range(first, end)` if both bounds
# are arguments of the launch. Triton 3.6.0 converts each bound to a Python number by int() of
# an array of one dimension. NumPy warns of such conversions since 1.25, and refuses them since
# 2.4. pip installs the two together without a warning, since Triton does not depend on NumPy.
#
# Seen: with numpy 2.3.5 the kernel runs ("ran 3 turns"); with numpy 2.4.6 it ends with
# InterpreterError("TypeError('only 0-dimensional arrays can be converted to Python scalars')").
# Triton 3.7.1 runs the kernel with both. Kernels compiled for a GPU are not affected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
cat > kernel.py <<'PYTHON'
import triton
import triton.language as tl


@triton.jit
def count(first, end):
    turns = 0
    for _ in range(first, end):
        turns += 1
    tl.device_print("turns", turns)


count[(1,)](2, 5)
print("ran 3 turns")
PYTHON

try() { # triton numpy expected
    env/bin/python -m pip install --quiet --disable-pip-version-check "triton==$1" "numpy==$2"
    TRITON_INTERPRET=1 env/bin/python kernel.py >output 2>&1 || true
    grep -qF "$3" output || { echo "triton $1, numpy $2: changed" >&2; tail -5 output >&2; exit 1; }
    echo "triton $1, numpy $2: as stated"
}

try 3.6.0 2.3.5 "ran 3 turns"
try 3.6.0 2.4.6 "only 0-dimensional arrays can be converted to Python scalars"
try 3.7.1 2.4.6 "ran 3 turns"
