#!/bin/bash
# Build a guest module from pinned sources, in one command, as root on a Debian-like machine.
#
#   runtime/build.sh                  build into $GUEST_BUILD (runtime/build by default) and check the hash
#   runtime/build.sh --update         the same, and make the result the repository's artifact
#   runtime/build.sh --lock           only renew toolchain.lock from what the registry has now
#   runtime/build.sh --profile        only make the profile anew by which CPython is compiled (shared/profile)
#   runtime/build.sh --flavour NAME   of another flavour than "plain"; with the others, or alone
#
# GUEST_SOURCES  directories (colon-separated) searched for pinned files before the registries
# GUEST_SUITE    Debian suite of the build root (sid)
# JOBS           parallel compiler processes (2)
set -euo pipefail
REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
RUNTIME=$REPOSITORY/runtime
TOOLS=$RUNTIME/shared/tools
export GUEST_BUILD=${GUEST_BUILD:-$RUNTIME/build} GUEST_SUITE=${GUEST_SUITE:-sid} JOBS=${JOBS:-2}
export GUEST_ROOT=$GUEST_BUILD/root
WORK=$GUEST_ROOT/guest
FLAVOUR=plain MODE=
while [ $# -gt 0 ]; do
    case $1 in
        --update | --lock | --profile) MODE=$1 ;;
        --flavour) FLAVOUR=${2:?"--flavour needs a name"}; shift ;;
        *) echo "usage: runtime/build.sh [--flavour NAME] [--update | --lock | --profile]" >&2; exit 2 ;;
    esac
    shift
done
OWN=$RUNTIME/$FLAVOUR                # what the flavour adds
OWN_WORK=$WORK/flavours/$FLAVOUR     # and what is made of it
[ -e "$OWN/flavour.toml" ] || { echo "there is no flavour $FLAVOUR: $OWN/flavour.toml is missing" >&2; exit 2; }

in_root() {
    chroot "$GUEST_ROOT" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        JOBS="$JOBS" FLAVOUR="$FLAVOUR" "$@"
}
mount_root() {
    mountpoint -q "$GUEST_ROOT/proc" || mount -t proc proc "$GUEST_ROOT/proc"
    mountpoint -q "$GUEST_ROOT/dev" || mount --bind /dev "$GUEST_ROOT/dev"
}
unmount_root() { umount -q "$GUEST_ROOT/dev" "$GUEST_ROOT/proc" 2>/dev/null || true; }
title() { echo "== $1"; }

# make_stage DONE SCRIPT: run a stage, unless it was done before with the same script, with the same files (its line
# "# uses:" has their patterns, below /guest), after the same stages. A stage that is run begins anew: it uses nothing
# that it once left. What was done is kept in the directory DONE.
before=
make_stage() {
    local name done key uses
    name=$(basename "$2" .sh)
    done=$1/$name
    uses=$(sed -n 's/^# uses: //p' "$WORK/$2")
    key=$(cd "$WORK" && { echo "$before"; sha256sum recipe/shared/stages/common.sh "$2" $uses; } | sha256sum)
    before=$key
    title "$name"
    [ "$(cat "$done" 2> /dev/null)" = "$key" ] && return
    rm -f "$done"
    in_root bash "/guest/$2"
    mkdir -p "$1"
    echo "$key" > "$done"
}
make_stages() {
    local script
    for script in $(cd "$WORK" && echo ${@:2}); do make_stage "$1" "$script"; done
}

[ "$(id -u)" = 0 ] || { echo "runtime/build.sh makes a build root with debootstrap: run it as root" >&2; exit 1; }
trap unmount_root EXIT

title "build root"
"$RUNTIME/shared/stages/10-root.sh"
mount_root
if [ "$MODE" = --lock ]; then
    # A flavour's lock is of what it needs beside the shared toolchain, which must be installed.
    place=$OWN
    [ -e "$OWN/toolchain.txt" ] || place=$RUNTIME/shared
    python3 "$TOOLS/lock.py" "$place/toolchain.txt" "$place/toolchain.lock" "$GUEST_ROOT"
    exit
fi

# The stages read a copy of the recipe: what is edited while they run is found out at the end (package.py).
rm -rf "$WORK/recipe" && mkdir -p "$WORK/recipe/guest" "$OWN_WORK"
python3 "$TOOLS/inputs.py" "$REPOSITORY" "$FLAVOUR" > "$WORK/recipe/inputs.json"
cp -r "$RUNTIME/shared" "$OWN" "$WORK/recipe/"
cp "$REPOSITORY"/wasm_sandbox/inside/_sandbox_*.py "$WORK/recipe/guest/" # Python of ours in the guest

title "pinned files"
python3 "$TOOLS/fetch.py" "$RUNTIME/shared" "$GUEST_ROOT" "$WORK" "${GUEST_SOURCES:-}"
[ ! -e "$OWN/manifest.toml" ] || python3 "$TOOLS/fetch.py" "$OWN" "$GUEST_ROOT" "$OWN_WORK" "${GUEST_SOURCES:-}"

if [ "$MODE" = --profile ]; then
    make_stages "$WORK/done" 'recipe/shared/stages/[23]*.sh'
    title "profile"
    rm -rf "$WORK/profile" && mkdir "$WORK/profile"
    python3 -m pip download -q --no-deps --require-hashes -r "$RUNTIME/shared/profile/requirements.txt" \
        -d "$WORK/profile/wheels" --only-binary :all: --python-version 3.13 --platform manylinux_2_17_x86_64
    in_root bash /guest/recipe/shared/profile/make.sh
    xz -9e -c "$WORK/profile/cpython.profdata" > "$RUNTIME/shared/profile/cpython.profdata.xz"
    exit
fi

make_stages "$WORK/done" 'recipe/shared/stages/[2-6]*.sh'
[ ! -e "$OWN/stages" ] || make_stages "$OWN_WORK/done" "recipe/$FLAVOUR/stages/[0-9]*.sh"
make_stages "$OWN_WORK/done" 'recipe/shared/stages/[7-9]*.sh'

title "artifact"
python3 "$TOOLS/package.py" "$REPOSITORY" "$FLAVOUR" "$OWN_WORK/reactor/guest.wasm" "$WORK/recipe/inputs.json" "$MODE"
