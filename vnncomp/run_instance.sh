#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
# Writes sat, unsat, unknown or timeout to RESULTS, and after sat the counterexample; "error" where bnnverify could not
# answer. TIMEOUT is in seconds; two of them are kept for the start and the end of the program.
# BNNVERIFY names the program; default: the one that install_tool.sh made. JOBS: processes, default all cores.
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ "$#" -ne 6 ] || [ "$1" != "v1" ]; then
    echo "run_instance.sh: expected v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT, got '$*'" >&2
    exit 1
fi
program="${BNNVERIFY:-$here/.venv/bin/bnnverify}"
model="$3" property="$4" results="$5" limit="$6"
seconds="$(awk -v t="$limit" 'BEGIN { t -= 2; print (t > 1 ? t : 1) }')"
rm -f "$results"
timeout --kill-after=5 "$limit" \
    "$program" verify "$model" "$property" --timeout "$seconds" --jobs "${JOBS:-$(nproc)}" --result "$results"
code=$?
if [ ! -s "$results" ]; then
    case "$code" in
        124 | 137) echo timeout >"$results" ;;
        *) echo error >"$results" ;;
    esac
fi
case "$(head -n 1 "$results")" in
    error) exit 1 ;;
    *) exit 0 ;;
esac
