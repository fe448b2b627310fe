#!/bin/bash
# The C++ library, and what builds numpy and pandas: meson, ninja and Cython, which run in the native interpreter.
# uses: recipe/science/toolchain.lock recipe/science/stages/common.sh flavours/science/tools/*
. /guest/recipe/science/stages/common.sh
run $OWN_WORK/toolchain.log env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $OWN_WORK/debs/*.deb
rm -rf $TOOLS && mkdir -p $TOOLS/bin
for wheel in $OWN_WORK/tools/*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" $TOOLS; done
cp $TOOLS/ninja-*.data/scripts/ninja $TOOLS/bin/
chmod +x $TOOLS/bin/ninja
