#!/bin/bash
# regex: its module of C, and its Python files.
# uses: flavours/science/sources/regex-* recipe/science/patches/regex-* recipe/science/stages/compiling.*
. /guest/recipe/science/stages/common.sh
. $OWN/stages/compiling.sh
SOURCE=$OWN_WORK/regex BUILD=$OWN_WORK/regex-build
rm -rf $BUILD $OWN_WORK/site/regex && mkdir -p $BUILD $OWN_WORK/site/regex
forget regex
unpack_from $OWN_WORK/sources/regex-2026.11.19.tar.gz $SOURCE
apply regex $SOURCE

cd $SOURCE
compiled_module regex._regex $C -DNDEBUG -- src/_regex.c src/_regex_unicode.c
$NATIVE_PYTHON $OWN/stages/casts.py $BUILD '' $OWN/stages/casts.allowed
cp regex/*.py $OWN_WORK/site/regex/
