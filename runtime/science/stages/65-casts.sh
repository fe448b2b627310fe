#!/bin/bash
# Functions that are cast to types by which they cannot be called.
# uses: recipe/science/stages/casts.*
. /guest/recipe/science/stages/common.sh
$NATIVE_PYTHON $OWN/stages/casts.py $OWN_WORK/numpy-build numpy/ $OWN/stages/casts.allowed
$NATIVE_PYTHON $OWN/stages/casts.py $OWN_WORK/pandas-build pandas/ $OWN/stages/casts.allowed
