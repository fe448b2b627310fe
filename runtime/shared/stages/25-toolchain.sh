#!/bin/bash
# Install the pinned packages that fetch.py has put, verified, into /guest/debs.
# uses: recipe/shared/toolchain.lock
. /guest/recipe/shared/stages/common.sh
# What an older lock installed stays installed, and crates are taken from whatever is there.
if [ -e $WORK/toolchain.lock ] && ! cmp -s $RECIPE/toolchain.lock $WORK/toolchain.lock; then
    echo "another toolchain.lock made the build root: delete the build directory" >&2
    exit 1
fi
cp $RECIPE/toolchain.lock $WORK/
run $WORK/toolchain.log env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends --allow-downgrades $WORK/debs/*.deb
