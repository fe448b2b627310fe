#!/bin/bash
# Pillow with libjpeg-turbo, libwebp and FreeType, and the Python files.
# uses: flavours/science/sources/pillow-* flavours/science/sources/libjpeg-turbo_* flavours/science/sources/libwebp_* flavours/science/sources/freetype_* recipe/science/patches/pillow-* recipe/science/stages/compiling.*
. /guest/recipe/science/stages/common.sh
. $OWN/stages/compiling.sh
SOURCE=$OWN_WORK/pillow BUILD=$OWN_WORK/pillow-build JPEG=$OWN_WORK/libjpeg WEBP=$OWN_WORK/libwebp FREETYPE=$OWN_WORK/freetype
rm -rf $BUILD $OWN_WORK/site/PIL && mkdir -p $BUILD
forget PIL libjpeg libwebp freetype
unpack_from $OWN_WORK/sources/pillow-12.3.0.tar.gz $SOURCE
unpack_from $OWN_WORK/sources/libjpeg-turbo_3.1.3.orig.tar.gz $JPEG
unpack_from $OWN_WORK/sources/libwebp_1.6.0.orig.tar.gz $WEBP
unpack_from $OWN_WORK/sources/freetype_2.14.3+dfsg.orig.tar.xz $FREETYPE

# libjpeg-turbo: what its CMakeLists.txt compiles for samples of 8, 12 and 16 bits, without turbojpeg and SIMD.
cd $JPEG/src
sed -e 's/@JPEG_LIB_VERSION@/62/; s/@VERSION@/3.1.3/; s/@LIBJPEG_TURBO_VERSION_NUMBER@/3001003/' \
    -e 's/#cmakedefine \([CD]_ARITH_CODING_SUPPORTED\) 1/#define \1 1/; /#cmakedefine/d' jconfig.h.in > jconfig.h
sed -e 's/@BUILD@/0/; s/@HIDDEN@//; s/@INLINE@/inline/; s/@THREAD_LOCAL@//; s/@CMAKE_PROJECT_NAME@/libjpeg-turbo/' \
    -e 's/@VERSION@/3.1.3/; s/@SIZE_T@/4/; s/#cmakedefine HAVE_BUILTIN_CTZL/#define HAVE_BUILTIN_CTZL 1/' \
    -e 's/#cmakedefine \([CD]_ARITH_CODING_SUPPORTED\) 1/#define \1 1/; /#cmakedefine/d' jconfigint.h.in > jconfigint.h
sed -e 's/@COPYRIGHT_YEAR@/1991-2025/' jversion.h.in > jversion.h
with_16="jcapistd jccolor jcdiffct jclossls jcmainct jcprepct jcsample jdapistd jdcolor jddiffct jdlossls jdmainct
    jdpostct jdsample jutils"
with_12="$with_16 jccoefct jcdctmgr jdcoefct jddctmgr jdmerge jfdctfst jfdctint jidctflt jidctfst jidctint jidctred
    jquant1 jquant2"
with_8="$with_12 jcapimin jchuff jcicc jcinit jclhuff jcmarker jcmaster jcomapi jcparam jcphuff jctrans jdapimin jdatadst
    jdatasrc jdhuff jdicc jdinput jdlhuff jdmarker jdmaster jdphuff jdtrans jerror jfdctflt jmemmgr jmemnobs jpeg_nbits
    jaricom jcarith jdarith"
files() { printf '%s.c\n' "$@"; }
archive libjpeg-16 $C $JUMPS -DBITS_IN_JSAMPLE=16 -I$JPEG/src -- $(files $with_16)
archive libjpeg-12 $C $JUMPS -DBITS_IN_JSAMPLE=12 -I$JPEG/src -- $(files $with_12)
archive libjpeg-8 $C $JUMPS -DBITS_IN_JSAMPLE=8 -I$JPEG/src -- $(files $with_8)

cd $WEBP
archive libwebp $C -I$WEBP -I$WEBP/src -- src/{dec,demux,dsp,enc,mux,utils}/*.c sharpyuv/*.c

# FreeType, without its readers of bitmap fonts of other systems.
cd $FREETYPE
grep -E 'autofit|tt_driver|t1_driver|cff_driver|t1cid|psaux|psnames|pshinter|sfnt|ft_smooth|ft_raster1' \
    include/freetype/config/ftmodule.h > ftmodule.h
archive freetype $C $JUMPS -DFT2_BUILD_LIBRARY -DFT_CONFIG_OPTION_SYSTEM_ZLIB "-DFT_CONFIG_MODULES_H=<ftmodule.h>" -I$FREETYPE -I$FREETYPE/include -- \
    src/base/ft{system,init,debug,base,bbox,bitmap,fstype,glyph,mm,stroke,synth,type1}.c src/autofit/autofit.c \
    src/truetype/truetype.c src/type1/type1.c src/cff/cff.c src/cid/type1cid.c src/psaux/psaux.c src/psnames/psnames.c \
    src/pshinter/pshinter.c src/sfnt/sfnt.c src/smooth/smooth.c src/raster/raster.c src/gzip/ftgzip.c

cd $SOURCE
for patch in $OWN/patches/pillow-*.patch; do [ ! -e $patch ] || patch --silent -p1 < $patch; done
PILLOW="$C $JUMPS -DHAVE_LIBJPEG -DHAVE_LIBZ -DPILLOW_VERSION=\"12.3.0\" -Isrc/libImaging -I$SOURCE/src -I$SOURCE/src/libImaging
    -I$JPEG/src -I$WEBP/src -I$FREETYPE/include"
compiled_module PIL._imaging $PILLOW -- src/{_imaging,decode,encode,map,display,outline,path}.c src/libImaging/*.c
compiled_module PIL._imagingft $PILLOW -- src/_imagingft.c
compiled_module PIL._imagingmath $PILLOW -- src/_imagingmath.c
compiled_module PIL._imagingmorph $PILLOW -- src/_imagingmorph.c
compiled_module PIL._webp $PILLOW -DImagingSectionEnter=WebPSectionEnter -DImagingSectionLeave=WebPSectionLeave -- src/_webp.c
throwing PIL._imaging libjpeg-{8,12,16} freetype
mkdir -p $OWN_WORK/site/PIL && cp src/PIL/*.py $OWN_WORK/site/PIL/
$NATIVE_PYTHON $OWN/stages/casts.py $BUILD '' $OWN/stages/casts.allowed
