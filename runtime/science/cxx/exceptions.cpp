/* Exceptions of C++: the part of its ABI that the toolchain's library, built without them, lacks.
 *
 * The compiler's code calls these functions (https://itanium-cxx-abi.github.io/cxx-abi/abi-eh.html), and throws by an
 * instruction of WebAssembly, of which stages/exceptions.py makes plain code. There are no threads. Two things stand
 * for one exception: the object that was thrown, of which std::exception_ptr holds references, and the throw itself,
 * which is what is caught: the same object may be thrown again while it is being handled. */
#include <exception>
#include <initializer_list>
#include <new>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <typeinfo>
#include <unistd.h>

namespace __cxxabiv1 {
/* The part of the library's own base of all type_info objects that tells what a handler catches. */
class __shim_type_info : public std::type_info {
public:
    ~__shim_type_info() override;
    virtual void noop1() const;
    virtual void noop2() const;
    virtual bool can_catch(const __shim_type_info *thrown, void *&adjusted) const = 0;
};
}
using Destroy = void *(*)(void *); /* in WebAssembly a destructor returns its argument */
using Type = const __cxxabiv1::__shim_type_info;

namespace {

struct alignas(16) Object { /* in front of what was thrown */
    size_t references;
    Type *type;
    Destroy destroy;
};

struct Throw {
    const void *mark; /* MARK, which the payload of a long jump does not begin with */
    Object *object;
    void *adjusted; /* what the handler gets: the object, or a base of it, or where it points */
    int handlers;   /* that handle it; negative while it is thrown again by one of them */
    Throw *outer;   /* being handled, around this one's handler */
};

Throw *handled;
unsigned uncaught;
const void *const MARK = &handled;

Object *object_of(void *thrown) { return static_cast<Object *>(thrown) - 1; }

/* At the end of all memory there is none for an exception, either. */
_Noreturn void end(const char *first, const char *second = "", const char *third = "", const char *fourth = "")
{
    for (const char *part : {first, second, third, fourth, "\n"}) write(2, part, strlen(part));
    abort();
}

void *allocated(size_t size)
{
    void *memory = aligned_alloc(16, (size + 15) & ~size_t(15));
    if (!memory) end("libc++abi: there is no memory for an exception");
    return memory;
}

void release(Object *object)
{
    if (--object->references) return;
    if (object->destroy) object->destroy(object + 1);
    free(object);
}

_Noreturn void raise(Throw *thrown)
{
    uncaught++;
    __builtin_wasm_throw(0, thrown);
}

_Noreturn void raise(Object *object)
{
    auto *thrown = static_cast<Throw *>(allocated(sizeof(Throw)));
    *thrown = {MARK, object, object + 1, 0, nullptr};
    raise(thrown);
}

uintptr_t unsigned_number(const uint8_t *&at)
{
    uintptr_t value = 0;
    unsigned shift = 0;
    do value |= uintptr_t(*at & 0x7f) << shift, shift += 7;
    while (*at++ & 0x80);
    return value;
}

intptr_t signed_number(const uint8_t *&at)
{
    uintptr_t value = 0;
    unsigned shift = 0;
    do value |= uintptr_t(*at & 0x7f) << shift, shift += 7;
    while (*at++ & 0x80);
    if (shift < 8 * sizeof value && at[-1] & 0x40) value |= ~uintptr_t(0) << shift;
    return intptr_t(value);
}

/* The handler of a landing pad, by the function's table of exceptions: the number of its type, or 0. */
intptr_t handler_of(Throw *thrown, const uint8_t *table, uintptr_t pad)
{
    const uint8_t no_start = *table++, absolute = *table++;
    if (no_start != 0xff || absolute != 0) end("a table of exceptions is of another kind");
    const uintptr_t types_after = unsigned_number(table);
    const auto *types = reinterpret_cast<Type *const *>(table + types_after);
    table++; /* numbers are LEB128 */
    const uintptr_t size = unsigned_number(table);
    const uint8_t *actions = table + size;
    uintptr_t action = 0;
    for (uintptr_t i = 0; i <= pad; i++) {
        unsigned_number(table);
        action = unsigned_number(table);
    }
    if (!action) return 0;
    for (const uint8_t *at = actions + action - 1;;) {
        const intptr_t number = signed_number(at);
        if (number > 0) {
            Type *caught = types[-number];
            void *adjusted = thrown->object + 1;
            if (!caught || caught->can_catch(thrown->object->type, adjusted)) {
                thrown->adjusted = adjusted;
                return number;
            }
        }
        const uint8_t *here = at;
        const intptr_t next = signed_number(at);
        if (!next) return 0;
        at = here + next;
    }
}

}

extern "C" {

struct {
    uintptr_t pad;
    const uint8_t *table;
    intptr_t handler;
} __wasm_lpad_context;

int _Unwind_CallPersonality(void *thrown)
{
    auto &context = __wasm_lpad_context;
    context.handler = handler_of(static_cast<Throw *>(thrown), context.table, context.pad);
    return 0;
}

void *__cxa_allocate_exception(size_t size)
{
    auto *object = static_cast<Object *>(allocated(sizeof(Object) + size));
    *object = {};
    return object + 1;
}

void __cxa_free_exception(void *thrown) { free(object_of(thrown)); }

__cxxabiv1::__cxa_exception *__cxa_init_primary_exception(void *thrown, std::type_info *type, Destroy destroy) noexcept
{
    *object_of(thrown) = {0, static_cast<Type *>(type), destroy};
    return nullptr; /* which nobody uses */
}

_Noreturn void __cxa_throw(void *thrown, std::type_info *type, Destroy destroy)
{
    *object_of(thrown) = {1, static_cast<Type *>(type), destroy};
    raise(object_of(thrown));
}

void *__cxa_get_exception_ptr(void *thrown) { return static_cast<Throw *>(thrown)->adjusted; }

void *__cxa_begin_catch(void *caught)
{
    auto *thrown = static_cast<Throw *>(caught);
    thrown->handlers = (thrown->handlers < 0 ? -thrown->handlers : thrown->handlers) + 1;
    if (handled != thrown) {
        thrown->outer = handled;
        handled = thrown;
    }
    uncaught--;
    return thrown->adjusted;
}

void __cxa_end_catch(void)
{
    Throw *thrown = handled;
    if (!thrown) return;
    if (thrown->handlers < 0) { /* on its way out again */
        if (!++thrown->handlers) handled = thrown->outer;
    } else if (!--thrown->handlers) {
        handled = thrown->outer;
        release(thrown->object);
        free(thrown);
    }
}

_Noreturn void __cxa_rethrow(void)
{
    if (!handled) std::terminate();
    handled->handlers = -handled->handlers;
    raise(handled);
}

std::type_info *__cxa_current_exception_type(void)
{
    return handled ? const_cast<std::type_info *>(static_cast<const std::type_info *>(handled->object->type)) : nullptr;
}

void __cxa_increment_exception_refcount(void *thrown) noexcept
{
    if (thrown) object_of(thrown)->references++;
}

void __cxa_decrement_exception_refcount(void *thrown) noexcept
{
    if (thrown) release(object_of(thrown));
}

void *__cxa_current_primary_exception(void) noexcept
{
    if (!handled) return nullptr;
    handled->object->references++;
    return handled->object + 1;
}

void __cxa_rethrow_primary_exception(void *thrown)
{
    if (!thrown) return;
    object_of(thrown)->references++;
    raise(object_of(thrown));
}

bool __cxa_uncaught_exception(void) noexcept { return uncaught != 0; }
unsigned __cxa_uncaught_exceptions(void) noexcept { return uncaught; }

_Noreturn void __cxa_bad_cast(void) { throw std::bad_cast(); }
_Noreturn void __cxa_bad_typeid(void) { throw std::bad_typeid(); }
_Noreturn void __cxa_throw_bad_array_new_length(void) { throw std::bad_array_new_length(); }

__attribute__((constructor)) static void name_the_end(void)
{
    std::set_terminate([] { end("libc++abi: an exception was thrown where none may be"); });
}

/* Where an exception or a long jump would leave to code that does not know of it: the run ends, in words. */
__attribute__((used)) _Noreturn void sandbox_uncaught(void *payload)
{
    auto *thrown = static_cast<Throw *>(payload);
    if (thrown->mark != MARK) end("a library written in C gave up, and there is no way back from it here");
    Type *type = thrown->object->type;
    void *object = thrown->object + 1;
    const char *words = "";
    if (static_cast<Type &>(typeid(std::exception)).can_catch(type, object))
        words = static_cast<std::exception *>(object)->what();
    end("libc++abi: an exception was thrown to code without exceptions: ", type->name(), " ", words);
}

}

/* The library's own end the run where there is no memory. */
void *operator new(size_t size)
{
    for (;;) {
        if (void *memory = malloc(size ? size : 1)) return memory;
        auto handler = std::get_new_handler();
        if (!handler) throw std::bad_alloc();
        handler();
    }
}

void *operator new[](size_t size) { return operator new(size); }

void *operator new(size_t size, std::align_val_t alignment)
{
    const size_t boundary = size_t(alignment) < 16 ? 16 : size_t(alignment);
    if (size > PTRDIFF_MAX) throw std::bad_alloc();
    if (void *memory = aligned_alloc(boundary, (size + boundary) & ~(boundary - 1))) return memory;
    throw std::bad_alloc();
}

void *operator new[](size_t size, std::align_val_t alignment) { return operator new(size, alignment); }
