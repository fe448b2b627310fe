#!/bin/bash
# matplotlib with contourpy, kiwisolver, cycler and pyparsing: their compiled modules, and the Python files.
# uses: flavours/science/sources/matplotlib-* flavours/science/sources/contourpy-* flavours/science/sources/kiwisolver-* flavours/science/sources/cycler-* flavours/science/sources/pyparsing-* flavours/science/sources/qhull_* flavours/science/sources/pybind11-* flavours/science/sources/cppy-* recipe/science/patches/matplotlib-* recipe/science/patches/contourpy-* recipe/science/patches/kiwisolver-* recipe/science/stages/compiling.* recipe/science/stages/mpl_data.py recipe/science/standins/* recipe/science/matplotlib/*
. /guest/recipe/science/stages/common.sh
. $OWN/stages/compiling.sh
SOURCE=$OWN_WORK/matplotlib BUILD=$OWN_WORK/matplotlib-build
CONTOURPY=$OWN_WORK/contourpy KIWISOLVER=$OWN_WORK/kiwisolver QHULL=$OWN_WORK/qhull FREETYPE=$OWN_WORK/freetype
HEADERS=$OWN_WORK/matplotlib-headers SITE=$OWN_WORK/site
rm -rf $BUILD $HEADERS $SITE/{matplotlib,mpl_toolkits,contourpy,kiwisolver,cycler,pyparsing,pylab.py} && mkdir -p $BUILD
forget matplotlib contourpy kiwisolver qhull agg
unpack_from $OWN_WORK/sources/matplotlib-3.10.9.tar.gz $SOURCE
unpack_from $OWN_WORK/sources/contourpy-1.3.3.tar.gz $CONTOURPY
unpack_from $OWN_WORK/sources/kiwisolver-1.5.1.tar.gz $KIWISOLVER
unpack_from $OWN_WORK/sources/qhull_2020.2.orig.tar.gz $QHULL
apply matplotlib $SOURCE
apply contourpy $CONTOURPY
apply kiwisolver $KIWISOLVER
for wheel in $OWN_WORK/sources/{pybind11,cppy}-*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" $HEADERS; done
CXX+=" $THROWS -fvisibility-inlines-hidden -I$HEADERS/pybind11/include -I$HEADERS/cppy/include"

cd $QHULL/src
archive qhull $C $JUMPS -I. -- libqhull_r/{geom2,geom,global,io,libqhull,mem,merge,poly2,poly,qset,random,rboxlib,stat,user,usermem,userprintf,userprintf_rbox}_r.c

cd $KIWISOLVER
compiled_module kiwisolver._cext $CXX -include $OWN/standins/locks.h -I$KIWISOLVER -- \
    py/src/{kiwisolver,constraint,expression,solver,strength,term,variable}.cpp

cd $CONTOURPY
compiled_module contourpy._contourpy $CXX -DNDEBUG -DCONTOURPY_VERSION=1.3.3 -- $(ls src/*.cpp | grep -v threaded)

cd $SOURCE
AGG=extern/agg24-svn
MATPLOTLIB="$CXX -DNDEBUG -I$SOURCE/src -I$SOURCE/$AGG/include"
archive agg $MATPLOTLIB -- \
    $AGG/src/agg_{bezier_arc,curves,image_filters,trans_affine,vcgen_contour,vcgen_dash,vcgen_stroke,vpgen_segmentator}.cpp
compiled_module matplotlib.backends._backend_agg $MATPLOTLIB -I$FREETYPE/include -- src/_backend_agg{,_wrapper}.cpp
compiled_module matplotlib._c_internal_utils $MATPLOTLIB -- src/_c_internal_utils.cpp
compiled_module matplotlib.ft2font $MATPLOTLIB '-DFREETYPE_BUILD_TYPE="system"' -I$FREETYPE/include -- src/ft2font{,_wrapper}.cpp
compiled_module matplotlib._image $MATPLOTLIB -- src/_image_wrapper.cpp src/py_converters.cpp
compiled_module matplotlib._path $MATPLOTLIB -- src/_path_wrapper.cpp
compiled_module matplotlib._qhull $MATPLOTLIB -I$QHULL/src -- src/_qhull_wrapper.cpp
compiled_module matplotlib._tri $MATPLOTLIB -- src/tri/_tri{,_wrapper}.cpp
throwing qhull agg kiwisolver._cext contourpy._contourpy matplotlib.{backends._backend_agg,_c_internal_utils,ft2font,_image,_path,_qhull,_tri}
$NATIVE_PYTHON $OWN/stages/casts.py $BUILD '' $OWN/stages/casts.allowed

# Python: without the back-ends that draw windows, and without the package's own tests.
cd $SOURCE/lib
find matplotlib mpl_toolkits pylab.py -name '*.py' -not -path '*/tests/*' -not -path '*/testing/*' -not -path '*/sphinxext/*' \
    -not -path '*/qt_editor/*' -not -path '*/web_backend/*' \
    -not -name 'backend_gtk*' -not -name 'backend_qt*' -not -name 'backend_wx*' -not -name 'backend_tk*' \
    -not -name '_backend_tk*' -not -name '_backend_gtk*' -not -name 'backend_macosx*' -not -name 'backend_webagg*' \
    -not -name 'backend_cairo*' -not -name 'backend_nbagg*' -exec cp --parents {} $SITE/ \;
touch $SITE/mpl_toolkits/__init__.py # a namespace elsewhere, which frozen packages cannot be
echo 'version = "3.10.9"' > $SITE/matplotlib/_version.py
cp $OWN/matplotlib/_data.py $SITE/matplotlib/
$NATIVE_PYTHON $OWN/stages/mpl_data.py matplotlib/mpl-data $SITE/matplotlib
cd $CONTOURPY/lib && find contourpy -name '*.py' -not -path '*/util/*' -exec cp --parents {} $SITE/ \;
cp -r $KIWISOLVER/py/kiwisolver $SITE/
for wheel in $OWN_WORK/sources/{cycler,pyparsing}-*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" $SITE; done
