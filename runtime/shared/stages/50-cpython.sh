#!/bin/bash
# libpython3.13.a and its bundled C libraries for wasm32-wasip1.
# uses: recipe/shared/stages/config.site recipe/shared/profile/cpython.profdata.xz
. /guest/recipe/shared/stages/common.sh
wasi_toolchain
rm -rf $WORK/cpython && mkdir $WORK/cpython && cd $WORK/cpython
# CONFIG_SITE takes one file: a second one is ignored without a word.
cat $CPYTHON/Tools/wasm/config.site-wasm32-wasi $RECIPE/stages/config.site > config.site
# CPython asks for -fno-strict-overflow, which since clang 20 also lets pointers wrap around: then no offset of
# a field can be part of a load or store, and each access is an addition more.
run configure.log env CONFIG_SITE=$PWD/config.site PKG_CONFIG=/bin/false HOSTRUNNER=/bin/true \
    CFLAGS="$OPT -fno-wrapv-pointer -fno-strict-aliasing -Wno-int-conversion -Wno-everything" \
    CPPFLAGS="-I$PREFIX/include" LDFLAGS="-L$PREFIX/lib" \
    ZLIB_CFLAGS="-I$PREFIX/include" ZLIB_LIBS="-L$PREFIX/lib -lz" \
    BZIP2_CFLAGS="-I$PREFIX/include" BZIP2_LIBS="-L$PREFIX/lib -lbz2" \
    LIBLZMA_CFLAGS="-I$PREFIX/include" LIBLZMA_LIBS="-L$PREFIX/lib -llzma" \
    LIBSQLITE3_CFLAGS="-I$PREFIX/include" LIBSQLITE3_LIBS="-L$PREFIX/lib -lsqlite3 -lm" \
    $CPYTHON/configure --host=wasm32-unknown-wasip1 --build=x86_64-pc-linux-gnu \
    --with-build-python=$NATIVE_PYTHON --with-suffix=.wasm --prefix=/usr/local \
    --disable-test-modules --without-ensurepip --with-pymalloc --without-mimalloc --without-computed-gotos
# By a profile, and optimised as a whole when it is linked, but for the interpreter's loop: with all that would be put
# into it the compiler takes gigabytes. Not by CFLAGS: configure looks through objects, and builds of extension modules
# are told what is in there.
xz -dc $RECIPE/profile/cpython.profdata.xz > cpython.profdata
PROFILED="-fprofile-instr-use=$PWD/cpython.profdata -mllvm -enable-value-profiling -Wprofile-instr-out-of-date"
run loop.log make -j"$JOBS" EXTRA_CFLAGS="$PROFILED" Python/ceval.o
# pybuilddir.txt is for builds of extension modules.
run make.log make -j"$JOBS" EXTRA_CFLAGS="-flto $PROFILED" libpython3.13.a pybuilddir.txt
# Three in a hundred functions have other branches here than on the machine that counted; after a change of CPython's
# sources they are many, and clang leaves out what does not fit with no more than a warning.
awk '/profile data may be out of date/ { all += $10; other += $12 }
    END { print other, "of", all, "functions do not fit the profile"; exit other * 20 > all }' make.log ||
    { echo "the profile is of other sources: make it anew (runtime/build.sh --profile)" >&2; exit 1; }
ls -l libpython3.13.a
