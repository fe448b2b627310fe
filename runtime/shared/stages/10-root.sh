#!/bin/bash
# A minimal Debian root for the toolchain, whose programs need a newer C library than most machines have.
# It uses the mirror that this machine's own apt is set up with.
set -euo pipefail
ready=$GUEST_ROOT/guest/.ready
made_by=$(sha256sum < "$0")$GUEST_SUITE
[ "$(cat "$ready" 2> /dev/null)" = "$made_by" ] && exit 0
[ ! -e "$ready" ] || { echo "another recipe made the build root: delete the build directory, $GUEST_BUILD" >&2; exit 1; }
command -v debootstrap > /dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends debootstrap; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -1)
[ -n "$mirror" ] || { echo "no Debian mirror is configured: apt-get indextargets lists none" >&2; exit 1; }
mkdir -p "$GUEST_BUILD"
rm -rf --one-file-system "$GUEST_ROOT" # of a build that was interrupted
debootstrap --variant=minbase "$GUEST_SUITE" "$GUEST_ROOT" "$mirror"
cp /etc/resolv.conf "$GUEST_ROOT/etc/"
cp /etc/apt/apt.conf.d/99* "$GUEST_ROOT/etc/apt/apt.conf.d/" 2> /dev/null || true
for suite in trixie forky sid; do echo "deb-src $mirror $suite main"; done > "$GUEST_ROOT/etc/apt/sources.list.d/sources.list"
chroot "$GUEST_ROOT" apt-get update -q
mkdir -p "$GUEST_ROOT/guest/sources" "$GUEST_ROOT/guest/debs"

# One crate asks for a package that the suite does not have, for a feature that nothing here uses:
# an empty package of that name satisfies it.
empty=$GUEST_ROOT/guest/empty-crate/DEBIAN
mkdir -p "$empty"
cat > "$empty/control" << 'C'
Package: local-empty-crate
Version: 1.0
Architecture: all
Maintainer: wasm-sandbox <runtime@localhost>
Provides: librust-typed-path-0.12+default-dev, librust-typed-path-0.12-dev
Description: stands for an optional crate that is not used
C
chroot "$GUEST_ROOT" bash -c 'cd /guest && dpkg-deb -b empty-crate empty-crate.deb && dpkg -i empty-crate.deb'
echo "$made_by" > "$ready"
