#!/usr/bin/env bash
# install_tool.sh v1
# Installs bnnverify with everything it needs into .venv beside this script. Needs Python 3.11 or newer and a package
# index; PYTHON names another interpreter, VENV another folder.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ "${1:-}" != "v1" ]; then
    echo "install_tool.sh: expected the version v1 as first argument, got '${1:-}'" >&2
    exit 1
fi
venv="${VENV:-$here/.venv}"
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet -c "$here/../constraints.txt" "$here/..[formats,cp]"
"$venv/bin/bnnverify" --version
