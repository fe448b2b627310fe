#!/bin/bash
# The native interpreter that CPython's cross build needs (same version), and that compiles the frozen library.
# uses: sources/python3.* recipe/shared/patches/cpython-*
. /guest/recipe/shared/stages/common.sh
unpack python3.13_3.13.15.orig.tar.xz $CPYTHON
for p in $RECIPE/patches/cpython-*.patch; do patch -d $CPYTHON -p1 < "$p"; done
rm -rf $WORK/native && mkdir $WORK/native && cd $WORK/native
run configure.log env CC=clang-21 CFLAGS="-O1 -g0" PKG_CONFIG=/bin/false \
    $CPYTHON/configure --disable-test-modules --without-ensurepip --without-mimalloc
run make.log make -j"$JOBS"
$NATIVE_PYTHON -VV
