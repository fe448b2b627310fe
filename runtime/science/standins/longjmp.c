/* Where libjpeg, FreeType and Qhull give up: see setjmp.h. */
#include <stdlib.h>
#include <unistd.h>

_Noreturn void longjmp(int *buffer, int value)
{
    static const char text[] = "a library written in C gave up, and there is no way back from it here\n";
    (void)buffer, (void)value;
    write(2, text, sizeof text - 1);
    abort();
}
