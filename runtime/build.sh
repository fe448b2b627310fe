#!/bin/bash
# Rebuild the guest module from pinned sources, in one command, as root on a Debian-like machine.
#
#   runtime/build.sh               build into $GUEST_BUILD (runtime/build by default) and check the hash
#   runtime/build.sh --update      the same, and make the result the repository's artifact
#   runtime/build.sh --lock        only renew toolchain.lock from what the registry has now
#
# GUEST_SOURCES  directories (colon-separated) searched for pinned files before the registries
# GUEST_SUITE    Debian suite of the build root (sid)
# JOBS           parallel compiler processes (2)
set -euo pipefail
RECIPE=$(cd "$(dirname "$0")" && pwd)
export GUEST_BUILD=${GUEST_BUILD:-$RECIPE/build} GUEST_SUITE=${GUEST_SUITE:-sid} JOBS=${JOBS:-2}
export GUEST_ROOT=$GUEST_BUILD/root
WORK=$GUEST_ROOT/guest
MODE=${1:-}
case $MODE in "" | --update | --lock) ;; *) echo "usage: runtime/build.sh [--update | --lock]" >&2; exit 2 ;; esac

in_root() { chroot "$GUEST_ROOT" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin JOBS="$JOBS" "$@"; }
mount_root() {
    mountpoint -q "$GUEST_ROOT/proc" || mount -t proc proc "$GUEST_ROOT/proc"
    mountpoint -q "$GUEST_ROOT/dev" || mount --bind /dev "$GUEST_ROOT/dev"
}
unmount_root() { umount -q "$GUEST_ROOT/dev" "$GUEST_ROOT/proc" 2>/dev/null || true; }
stage() { echo "== $1"; }

# make_stage NAME PATTERN...: run a stage, unless it was done before with the same script, with the same files (patterns
# below /guest), after the same stages. A stage that is run begins anew: it uses nothing that it once left.
before=
make_stage() {
    local done=$WORK/done/$1 key
    key=$(cd "$WORK" && { echo "$before"; sha256sum recipe/stages/{common,"$1"}.sh ${@:2}; } | sha256sum)
    before=$key
    stage "$1"
    [ "$(cat "$done" 2> /dev/null)" = "$key" ] && return
    rm -f "$done"
    in_root bash "/guest/recipe/stages/$1.sh"
    echo "$key" > "$done"
}

[ "$(id -u)" = 0 ] || { echo "runtime/build.sh makes a build root with debootstrap: run it as root" >&2; exit 1; }
trap unmount_root EXIT

stage "build root"
"$RECIPE/stages/10-root.sh"
mount_root
if [ "$MODE" = --lock ]; then
    python3 "$RECIPE/stages/lock.py" "$RECIPE/toolchain.txt" "$RECIPE/toolchain.lock" "$GUEST_ROOT"
    exit
fi

# The stages read a copy of the recipe: what is edited while they run is found out at the end (package.py).
rm -rf "$WORK/recipe" && mkdir -p "$WORK/recipe/guest" "$WORK/done"
python3 "$RECIPE/stages/inputs.py" "$RECIPE" > "$WORK/recipe/inputs.json"
cp -r "$RECIPE"/{stages,patches,reactor,manifest.toml,toolchain.lock} "$WORK/recipe/"
cp "$RECIPE"/../wasm_sandbox/inside/_sandbox_*.py "$WORK/recipe/guest/" # Python of ours in the guest

stage "pinned files"
python3 "$RECIPE/stages/fetch.py" "$RECIPE" "$GUEST_ROOT" "${GUEST_SOURCES:-}"

make_stage 25-toolchain recipe/toolchain.lock
make_stage 30-native-python 'sources/python3.*' 'recipe/patches/cpython-*'
make_stage 40-libraries 'recipe/patches/sqlite-*' 'sources/zlib_*' 'sources/bzip2_*' 'sources/xz-utils_*' 'sources/sqlite3_*'
make_stage 50-cpython recipe/stages/config.site
make_stage 60-pydantic-core 'sources/pydantic_core-*.tar.gz' recipe/stages/relax_crates.py
make_stage 70-reactor 'recipe/stages/*.py' 'recipe/reactor/*' 'recipe/guest/*' 'sources/*.whl'

stage "artifact"
python3 "$RECIPE/stages/package.py" "$RECIPE" "$WORK/reactor/guest.wasm" "$WORK/recipe/inputs.json" "$MODE"
