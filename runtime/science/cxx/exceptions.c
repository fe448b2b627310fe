/* The C++ library of the toolchain is built without exceptions and lacks these two. What numpy and pandas throw is
 * std::bad_alloc, and what their own checks exclude. It ends like operator new of that library: with its message and
 * abort(). */
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

static _Noreturn void end(void)
{
    static const char text[] = "libc++abi: bad_alloc was thrown in -fno-exceptions mode\n";
    write(2, text, sizeof text - 1);
    abort();
}

void *__cxa_allocate_exception(size_t size)
{
    (void)size;
    end();
}

void __cxa_throw(void *thrown, void *type, void (*destroy)(void *))
{
    (void)thrown, (void)type, (void)destroy;
    end();
}
