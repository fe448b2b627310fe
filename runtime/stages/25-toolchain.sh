#!/bin/bash
# Install the pinned packages that stage 20 has put, verified, into /guest/debs.
. /guest/recipe/stages/common.sh
cmp -s $RECIPE/toolchain.lock $WORK/.toolchain && exit 0
run $WORK/toolchain.log env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends --allow-downgrades $WORK/debs/*.deb
cp $RECIPE/toolchain.lock $WORK/.toolchain
