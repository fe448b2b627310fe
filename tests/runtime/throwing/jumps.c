/* C that jumps back over functions. */
#include <setjmp.h>

struct Context {
    jmp_buf buffer;
    int number;
    void (*fail)(struct Context *, int);
};

static void fail(struct Context *context, int value) { longjmp(context->buffer, value); }

__attribute__((noinline)) static int deep(struct Context *context, int depth)
{
    if (depth) return deep(context, depth - 1) + 1;
    if (context->number) context->fail(context, context->number);
    return 0;
}

__attribute__((export_name("jump"))) int jump(int number)
{
    struct Context context = {.number = number, .fail = fail};
    volatile int count = 0;
    int value = setjmp(context.buffer);
    count++;
    if (value > 1 && count < 5) {
        context.number = value - 1;
        return deep(&context, 3) + 1000 * count;
    }
    return value ? value * 10 + count : deep(&context, 5);
}

__attribute__((export_name("nest"))) int nest(int number)
{
    struct Context outer = {.number = number, .fail = fail};
    int value = setjmp(outer.buffer);
    if (value) return 500 + value;
    struct Context inner = {.number = number + 1, .fail = fail};
    int again = setjmp(inner.buffer);
    if (!again) return deep(&inner, 2);
    outer.number = again;
    return deep(&outer, 2);
}

__attribute__((export_name("wild"))) int wild(int number)
{
    struct Context context = {.number = number, .fail = fail};
    return deep(&context, 2);
}
