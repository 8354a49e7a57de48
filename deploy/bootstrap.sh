#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine, and nothing that is there: a second run changes nothing.
# Usage: deploy/bootstrap.sh run|test
set -euo pipefail
cd "$(dirname "$0")/.."

want=${1:-run}
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# package:what proves that it is there (a path or a command)
packages=(
    "python3-venv:/usr/lib/python3.11/ensurepip/__init__.py"
    "python3-bpfcc:/usr/lib/python3/dist-packages/bcc/__init__.py"
    "linux-headers-amd64:/usr/share/doc/linux-headers-amd64"
    "openjdk-17-jre-headless:java"
    "maven:mvn"
    "gcc:gcc"
    "libc6-dev:/usr/include/stdio.h"
)
if [ "$want" = test ]; then
    packages+=(
        "g++:g++" "make:make" "iproute2:ip" "curl:curl" "chromium:chromium"
        "bpftrace:bpftrace" "systemd:systemd-analyze" "bpfcc-tools:/usr/sbin/profile-bpfcc" "golang-go:go" "rustc:rustc" "nodejs:node" "npm:npm"
        "openjdk-17-jdk-headless:javac" "etcd-server:etcd"
    )
fi

missing=()
for entry in "${packages[@]}"; do
    name=${entry%%:*} proof=${entry#*:}
    case $proof in
        /*) [ -e "$proof" ] || missing+=("$name") ;;
        *) command -v "$proof" >/dev/null 2>&1 || missing+=("$name") ;;
    esac
done
# An interpreter that brings its own ensurepip needs no python3-venv.
if python3 -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    kept=()
    for name in "${missing[@]:-}"; do [ -z "$name" ] || [ "$name" = python3-venv ] || kept+=("$name"); done
    missing=("${kept[@]:-}")
    [ -n "${missing[0]:-}" ] || missing=()
fi
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing packages; install them as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    apt-get update -qq
    # Tests start the programs that they need: none of them is to become a daemon of this machine.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    case " ${missing[*]} " in *" etcd-server "*) update-rc.d etcd disable >/dev/null ;; esac
fi

stamp=.venv/.installed
wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
kafka() { "$1" -c 'from deploy.class_archive import make; make()'; }
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    kafka .venv/bin/python
else
    python=$(command -v python3.11 || command -v python3)
    say "installing the locked Python packages into .venv"
    kafka "$python" &  # which needs the standard library only, and Java's time
    kafka=$!
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # pip would compile each file as it comes, on one CPU, for half its time. What does not compile is nobody's error here.
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-compile --require-hashes \
        -r requirements.lock
    .venv/bin/python -m compileall -qq -j 0 .venv/lib/python3.11/site-packages || true
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    wait "$kafka"
    echo "$wanted" >"$stamp"
fi

# Ours as well, or each process would compile what it imports wherever PYTHONDONTWRITEBYTECODE is set.
.venv/bin/python -m compileall -q collectors dashboards deploy runtime sinks streams tests
