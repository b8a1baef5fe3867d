#!/usr/bin/env bash
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Checks that the model is a binarized network that bnnverify reads. A model that is not is skipped by exit code 1.
# Nothing about the instance is kept. BNNVERIFY names the program; default: the one that install_tool.sh made.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ "$#" -ne 4 ] || [ "$1" != "v1" ]; then
    echo "prepare_instance.sh: expected v1 CATEGORY ONNX VNNLIB, got '$*'" >&2
    exit 1
fi
program="${BNNVERIFY:-$here/.venv/bin/bnnverify}"
for file in "$3" "$4"; do
    if [ ! -r "$file" ]; then
        echo "prepare_instance.sh: cannot read $file" >&2
        exit 1
    fi
done
"$program" import "$3" --input-range 0 255 --samples 1 --quiet >/dev/null
