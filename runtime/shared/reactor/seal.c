/* Sealing: arrange the heap, just before the snapshot, so that a run writes to few of its pages.
 *
 * The first write to a page of a fresh instance costs a page fault (about 3 microseconds on the
 * machines this was measured on), and an interpreter writes everywhere: every reference that it
 * takes changes a count inside the object. So every object of the image becomes immortal (its count
 * is never written again), and the free space scattered between them is used up, so that a run's own
 * objects come from one contiguous region, the nursery. A script can notice through
 * sys.getrefcount, and in no other way. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

#include "seal.h"

#define EXPORT(name) __attribute__((export_name(name)))

enum {
    NURSERY_BYTES = 4 << 20,
    LARGEST_HOLE = 1 << 20,
    SMALLEST_HOLE = 12, /* dlmalloc's smallest chunk holds this much */
    LARGEST_POOL_BLOCK = 512,
    POOL_BLOCK_STEP = 8,
    MOST_POOL_BYTES = 64 << 20,
};

enum { SEAL_OK, SEAL_COLLECT, SEAL_MEMORY, SEAL_POOLS };

static char *nursery;

void sandbox_reserve_nursery(void) { nursery = malloc(NURSERY_BYTES); }

/* ---- immortal objects ------------------------------------------------------------------------ */

/* Objects still to be walked, and a bit per 8 bytes of memory for those already met. */
static struct {
    PyObject **items;
    size_t count, capacity;
    unsigned char *met;
    int out_of_memory;
} walk;

static int meet(PyObject *object, void *unused)
{
    (void)unused;
    if (!object) return 0;
    uintptr_t bit = (uintptr_t)object >> 3;
    if (walk.met[bit >> 3] & (1u << (bit & 7))) return 0;
    walk.met[bit >> 3] |= (unsigned char)(1u << (bit & 7));
    if (walk.count == walk.capacity) {
        size_t capacity = walk.capacity ? walk.capacity * 2 : 1 << 16;
        PyObject **items = realloc(walk.items, capacity * sizeof *items);
        if (!items) {
            walk.out_of_memory = 1;
            return -1;
        }
        walk.items = items;
        walk.capacity = capacity;
    }
    walk.items[walk.count++] = object;
    return 0;
}

static int meet_collected(PyObject *object, void *unused)
{
    return meet(object, unused) == 0; /* 1: go on */
}

/* What tp_traverse leaves out, because it cannot be part of a cycle. */
static void meet_untracked(PyObject *object)
{
    if (PyDict_Check(object)) {
        PyObject *key, *value;
        for (Py_ssize_t at = 0; PyDict_Next(object, &at, &key, &value);) {
            meet(key, NULL);
            meet(value, NULL);
        }
    } else if (PyTuple_Check(object)) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) meet(PyTuple_GET_ITEM(object, i), NULL);
    } else if (PyCode_Check(object)) {
        PyCodeObject *code = (PyCodeObject *)object;
        PyObject *parts[] = {
            code->co_consts, code->co_names, code->co_exceptiontable, code->co_localsplusnames, code->co_localspluskinds,
            code->co_filename, code->co_name, code->co_qualname, code->co_linetable,
        };
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) meet(parts[i], NULL);
    } else if (PyType_Check(object)) {
        PyTypeObject *type = (PyTypeObject *)object;
        PyObject *dict = PyType_GetDict(type);
        meet(dict, NULL);
        Py_XDECREF(dict);
        meet(type->tp_mro, NULL);
        meet(type->tp_bases, NULL);
        meet((PyObject *)type->tp_base, NULL);
        if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
            PyHeapTypeObject *heap_type = (PyHeapTypeObject *)object;
            meet(heap_type->ht_name, NULL);
            meet(heap_type->ht_qualname, NULL);
            meet(heap_type->ht_slots, NULL);
        }
    }
}

static int make_objects_immortal(void)
{
    /* Room for the memory to grow while this runs; the map itself is freed again. */
    walk.met = calloc(__builtin_wasm_memory_size(0) * 65536 / 64 + LARGEST_HOLE, 1);
    if (!walk.met) return -1;
    PyUnstable_GC_VisitObjects(meet_collected, NULL);
    while (walk.count && !walk.out_of_memory) {
        PyObject *object = walk.items[--walk.count];
        PyTypeObject *type = Py_TYPE(object);
        if (!_Py_IsImmortal(object)) object->ob_refcnt = _Py_IMMORTAL_REFCNT;
        meet((PyObject *)type, NULL);
        meet_untracked(object);
        if (PyObject_IS_GC(object) && type->tp_traverse) type->tp_traverse(object, meet, NULL);
    }
    free(walk.items);
    free(walk.met);
    return walk.out_of_memory ? -1 : 0;
}

/* ---- free space -------------------------------------------------------------------------------- */

/* Use up every free chunk of malloc below the top of the heap, largest first. The memory is given
 * away for good: it belongs to the image. */
static void fill_heap_holes(void)
{
    char *top = malloc(3 * LARGEST_HOLE);
    free(top);
    for (size_t size = LARGEST_HOLE; size >= SMALLEST_HOLE; size = size > 96 ? size * 15 / 16 : size - 4) {
        char *hole;
        while ((hole = malloc(size)) && hole < top) {}
        free(hole);
    }
}

/* Use up the half-full pools of the small-object allocator, so that it opens new ones in the nursery. */
static int fill_pool_holes(void)
{
    size_t filled = 0;
    for (size_t size = LARGEST_POOL_BLOCK; size >= POOL_BLOCK_STEP; size -= POOL_BLOCK_STEP) {
        char *block;
        while ((block = PyObject_Malloc(size)) && (block < nursery || block >= nursery + NURSERY_BYTES)) {
            filled += size;
            if (filled > MOST_POOL_BYTES) return -1;
        }
        PyObject_Free(block);
    }
    return 0;
}

/* Called once, after the warm-up and before the snapshot. 0, or a SEAL_ code. */
EXPORT("sandbox_seal") int sandbox_seal(void)
{
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *collected = gc ? PyObject_CallMethod(gc, "collect", NULL) : NULL;
    PyObject *frozen = collected ? PyObject_CallMethod(gc, "freeze", NULL) : NULL;
    int failed = !frozen;
    Py_XDECREF(collected);
    Py_XDECREF(frozen);
    Py_XDECREF(gc);
    sandbox_reset_exit_functions();
    if (failed) return SEAL_COLLECT;
    if (!nursery || make_objects_immortal()) return SEAL_MEMORY;
    fill_heap_holes();
    free(nursery);
    return fill_pool_holes() ? SEAL_POOLS : SEAL_OK;
}
