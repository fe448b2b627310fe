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
MODE=${1:-}

in_root() { chroot "$GUEST_ROOT" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin JOBS="$JOBS" "$@"; }
mount_root() {
    mountpoint -q "$GUEST_ROOT/proc" || mount -t proc proc "$GUEST_ROOT/proc"
    mountpoint -q "$GUEST_ROOT/dev" || mount --bind /dev "$GUEST_ROOT/dev"
}
unmount_root() { umount -q "$GUEST_ROOT/dev" "$GUEST_ROOT/proc" 2>/dev/null || true; }
stage() { echo "== $1"; }

[ "$(id -u)" = 0 ] || { echo "runtime/build.sh makes a build root with debootstrap: run it as root" >&2; exit 1; }
trap unmount_root EXIT

stage "build root"
"$RECIPE/stages/10-root.sh"
mount_root
if [ "$MODE" = --lock ]; then
    python3 "$RECIPE/stages/lock.py" "$RECIPE/toolchain.txt" "$RECIPE/toolchain.lock" "$GUEST_ROOT"
    exit
fi

stage "pinned files"
python3 "$RECIPE/stages/fetch.py" "$RECIPE" "$GUEST_ROOT" "${GUEST_SOURCES:-}"
rm -rf "$GUEST_ROOT/guest/recipe" && mkdir -p "$GUEST_ROOT/guest/recipe"
cp -r "$RECIPE"/{stages,patches,reactor,manifest.toml,toolchain.lock} "$GUEST_ROOT/guest/recipe/"
mkdir "$GUEST_ROOT/guest/recipe/guest"
cp "$RECIPE"/../wasm_sandbox/inside/_sandbox_*.py "$GUEST_ROOT/guest/recipe/guest/" # Python of ours in the guest

for script in 25-toolchain 30-native-python 40-libraries 50-cpython 60-pydantic-core 70-reactor; do
    stage "$script"
    in_root bash "/guest/recipe/stages/$script.sh"
done

stage "artifact"
python3 "$RECIPE/stages/package.py" "$RECIPE" "$GUEST_ROOT/guest/reactor/guest.wasm" "$MODE"
