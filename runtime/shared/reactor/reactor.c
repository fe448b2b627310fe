/* The guest's entry points: a CPython that a host initialises once, snapshots, and runs scripts in.
 *
 * Life of an instance: the scratch instance that becomes the image calls sandbox_init, sandbox_run
 * for the warm-up scripts, and sandbox_seal (seal.c); a run's instance starts from that memory and
 * calls sandbox_alloc, sandbox_run and, after an exception, sandbox_report. sandbox_compile runs nothing of a script.
 * What is no script, but the code of a user's own, comes by sandbox_call; an instance that is kept is called again. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wasi/libc-environ.h>

#include "seal.h"

#define EXPORT(name) __attribute__((export_name(name)))

extern struct _inittab sandbox_modules[]; /* compiled modules beside CPython's: stage 70 writes the table */
extern const unsigned char sandbox_frozen[]; /* frozen.S: the blob that freeze.py writes */

/* What the host writes before sandbox_run: sizes without the NUL that ends each text, then the texts, behind
 * them the values that the script fetches instead of spelling them out (_sandbox_guest.value), and what
 * sandbox_compile made of a script that is the same from the tool's source on, if the host has that. */
struct request {
    uint32_t script_size, script_name_size, tool_name_size;
    uint32_t tool_first_line, tool_line_count; /* where the tool's source stands in the script; 0, 0: nowhere */
    uint32_t values_size, code_size;
    char texts[];
};

enum { INIT_OK, INIT_PRECONFIG = 101, INIT_CONFIG, INIT_PRELOAD, INIT_GUEST };
enum { EXIT_EXCEPTION = 1 };

/* Objects that are looked up once, before the snapshot. */
static PyObject *begin, *report_of, *values_of, *compile_ahead, *heed_environ, *atexit_count, *atexit_run, *random_seed, *environ_bytes, *posix_environ;
static long atexit_baseline;

/* Freed before an exception is described, so that an out-of-memory error can be told. */
static void *reserve;
enum { RESERVE_BYTES = 1 << 20 };

static unsigned char *report;

/* Never the libc's to free: a script reaches the guest through here. */
EXPORT("sandbox_alloc") void *sandbox_alloc(size_t size) { return malloc(size); }

/* Address of the report of the last uncaught exception, or 0: per text (class, message, traceback)
 * a little-endian u32 size and UTF-8 bytes. What sandbox_compile made, and the answer of sandbox_call, are there too. */
EXPORT("sandbox_report") const unsigned char *sandbox_report(void) { return report; }

/* ---- start-up ------------------------------------------------------------------------------- */

static struct _frozen *frozen_table(const unsigned char *blob)
{
    uint32_t count;
    memcpy(&count, blob, sizeof count);
    struct _frozen *table = calloc(count + 1, sizeof *table);
    const unsigned char *entry = blob + sizeof count;
    for (uint32_t i = 0; table && i < count; i++) {
        uint32_t offset_size_package[3];
        table[i].name = (const char *)entry;
        entry += strlen(table[i].name) + 1;
        memcpy(offset_size_package, entry, sizeof offset_size_package);
        entry += sizeof offset_size_package;
        table[i].code = blob + offset_size_package[0];
        table[i].size = (int)offset_size_package[1];
        table[i].is_package = (int)offset_size_package[2];
    }
    return table;
}

static PyStatus configure(PyConfig *config)
{
    /* Unbuffered: what a script printed before a limit stopped it must have reached the host. */
    config->buffered_stdio = 0;
    config->site_import = 0;
    config->write_bytecode = 0;
    config->install_signal_handlers = 0;
    config->pathconfig_warnings = 0;
    config->parse_argv = 0;
    config->use_hash_seed = 1;
    config->hash_seed = 0;
    config->module_search_paths_set = 1; /* and empty: every module is frozen or built in */
    const struct { wchar_t **field; const char *value; } texts[] = {
        {&config->program_name, "python"}, {&config->executable, ""}, {&config->base_executable, ""},
        {&config->prefix, "/"}, {&config->exec_prefix, "/"}, {&config->base_prefix, "/"},
        {&config->base_exec_prefix, "/"}, {&config->stdlib_dir, "/lib"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        PyStatus status = PyConfig_SetBytesString(config, texts[i].field, texts[i].value);
        if (PyStatus_Exception(status)) return status;
    }
    return Py_InitializeFromConfig(config);
}

static PyObject *attribute(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module), *value = m ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return value;
}

static int call_without_arguments(const char *module, const char *name)
{
    PyObject *f = attribute(module, name), *r = f ? PyObject_CallNoArgs(f) : NULL;
    Py_XDECREF(f);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int preload_modules(const char *names)
{
    char *copy = strdup(names), *rest = NULL;
    if (!copy) return -1;
    int failed = 0;
    for (char *name = strtok_r(copy, ",", &rest); name && !failed; name = strtok_r(NULL, ",", &rest)) {
        PyObject *module = PyImport_ImportModule(name);
        failed = !module;
        Py_XDECREF(module);
    }
    free(copy);
    return failed ? -1 : 0;
}

static int prepare_guest(void)
{
    const char *modules[] = {"_sandbox_loop", "_sandbox_zones", "_sandbox_pickle"};
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
        if (call_without_arguments(modules[i], "install")) return -1;
    /* What `site` adds to the builtins; its other half looks for packages on disk. */
    const char *additions[] = {"setquit", "setcopyright", "sethelper"};
    for (size_t i = 0; i < sizeof additions / sizeof *additions; i++)
        if (call_without_arguments("site", additions[i])) return -1;
    PyObject *environ = attribute("os", "environ");
    environ_bytes = environ ? PyObject_GetAttrString(environ, "_data") : NULL;
    Py_XDECREF(environ);
    posix_environ = attribute("posix", "environ");
    random_seed = attribute("random", "seed");
    begin = attribute("_sandbox_guest", "begin");
    report_of = attribute("_sandbox_guest", "report");
    values_of = attribute("_sandbox_guest", "hold_values");
    compile_ahead = attribute("_sandbox_guest", "compile_ahead");
    heed_environ = attribute("_sandbox_guest", "heed_environ");
    atexit_count = attribute("atexit", "_ncallbacks");
    atexit_run = attribute("atexit", "_run_exitfuncs");
    reserve = malloc(RESERVE_BYTES);
    return environ_bytes && posix_environ && random_seed && begin && report_of && values_of && compile_ahead && heed_environ && atexit_count && atexit_run && reserve ? 0 : -1;
}

/* How many exit functions are registered now. */
static long exit_functions(void)
{
    PyObject *n = PyObject_CallNoArgs(atexit_count);
    long count = n ? PyLong_AsLong(n) : -1;
    Py_XDECREF(n);
    PyErr_Clear();
    return count;
}

/* Start the interpreter and import PRELOAD (module names, comma separated). 0, or an INIT_ code
 * with the reason on standard error. */
EXPORT("sandbox_init") int sandbox_init(const char *preload)
{
    sandbox_reserve_nursery();
    PyImport_ExtendInittab(sandbox_modules);
    PyImport_FrozenModules = frozen_table(sandbox_frozen);

    PyPreConfig preconfig;
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    if (PyStatus_Exception(Py_PreInitialize(&preconfig))) return INIT_PRECONFIG;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    PyStatus status = configure(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        fprintf(stderr, "%s: %s\n", status.func ? status.func : "init", status.err_msg ? status.err_msg : "failed");
        return INIT_CONFIG;
    }
    if (prepare_guest()) {
        PyErr_Print();
        return INIT_GUEST;
    }
    if (preload_modules(preload)) {
        PyErr_Print();
        return INIT_PRELOAD;
    }
    atexit_baseline = exit_functions();
    return INIT_OK;
}

/* Called by sandbox_seal: what the warm-up registered belongs to the image, not to a run. */
void sandbox_reset_exit_functions(void) { atexit_baseline = exit_functions(); }

/* ---- before a script ------------------------------------------------------------------------ */

/* The snapshot holds the environment of the scratch instance: read this instance's from the host. */
static void reload_environ(void)
{
    extern char **environ;
    __wasilibc_deinitialize_environ();
    __wasilibc_initialize_environ();
    PyDict_Clear(environ_bytes);
    PyDict_Clear(posix_environ);
    for (char **entry = environ; entry && *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        if (!equals) continue;
        PyObject *key = PyBytes_FromStringAndSize(*entry, equals - *entry), *value = PyBytes_FromString(equals + 1);
        if (key && value) {
            PyDict_SetItem(environ_bytes, key, value);
            PyDict_SetItem(posix_environ, key, value);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    PyErr_Clear();
    /* What the interpreter itself reads at its start, which was before the snapshot. */
    static int heeded; /* an earlier call of this instance may have had what this one has not */
    if (!heeded && !getenv("TZ") && !getenv("PYTHONTZPATH") && !getenv("PYTHONWARNINGS")) return;
    heeded = 1;
    PyObject *none = PyObject_CallNoArgs(heed_environ);
    Py_XDECREF(none);
    PyErr_Clear();
}

/* The snapshot holds the state of `random` too. 256 bits in one request; seed(None) would read 2,500 bytes. */
static void reseed_random(void)
{
    unsigned char bits[32];
    if (getentropy(bits, sizeof bits)) return;
    PyObject *number = PyLong_FromUnsignedNativeBytes(bits, sizeof bits, -1);
    PyObject *none = number ? PyObject_CallOneArg(random_seed, number) : NULL;
    Py_XDECREF(number);
    Py_XDECREF(none);
    PyErr_Clear();
}

static const char *script_name_of(const struct request *r) { return r->texts + r->script_size + 1; }
static const char *tool_name_of(const struct request *r) { return script_name_of(r) + r->script_name_size + 1; }
static const char *values_in(const struct request *r) { return tool_name_of(r) + r->tool_name_size + 1; }
static const char *code_in(const struct request *r) { return values_in(r) + r->values_size; }

/* The request of a running script that has values; freed as soon as it has fetched them all. */
static const struct request *holding;

static PyObject *release_values(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    free((void *)holding);
    holding = NULL;
    Py_RETURN_NONE;
}

static PyMethodDef release_method = {"release", release_values, METH_NOARGS, NULL};

/* Make the values known to _sandbox_guest. Nothing of the request may be used after this. */
static int hold_values(const struct request *r)
{
    if (!r->values_size) return 0;
    holding = r;
    PyObject *release = PyCFunction_New(&release_method, NULL);
    PyObject *view = release ? PyMemoryView_FromMemory((char *)values_in(r), r->values_size, PyBUF_READ) : NULL;
    PyObject *none = view ? PyObject_CallFunctionObjArgs(values_of, view, release, NULL) : NULL;
    Py_XDECREF(release);
    Py_XDECREF(view);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static PyObject *fresh_main(const struct request *r)
{
    PyObject *module = PyModule_New("__main__"), *globals = module ? PyModule_GetDict(module) : NULL;
    PyObject *file = PyUnicode_FromStringAndSize(script_name_of(r), r->script_name_size);
    int ready = globals && file && PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) == 0
        && PyDict_SetItemString(globals, "__file__", file) == 0
        && PyDict_SetItemString(PyImport_GetModuleDict(), "__main__", module) == 0;
    Py_XDECREF(file);
    if (!ready) Py_CLEAR(module);
    return module;
}

/* Give the tool's functions and classes their own file name and line numbers. In place: nobody else
 * has seen these code objects yet. Frames at the tool's top level belong to the script's own code
 * object and are renumbered when a traceback is made (_sandbox_guest). */
static void relocate(PyObject *constants, PyObject *name, int first, int count, int inside)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); i++) {
        PyObject *constant = PyTuple_GET_ITEM(constants, i);
        if (!PyCode_Check(constant)) continue;
        PyCodeObject *code = (PyCodeObject *)constant;
        int line = code->co_firstlineno - first;
        if (!inside && (line < 0 || line >= count)) continue;
        code->co_firstlineno = line + 1;
        Py_SETREF(code->co_filename, Py_NewRef(name));
        relocate(code->co_consts, name, first, count, 1);
    }
}

/* A script in up to three parts: the last is known only after the others have run. */
struct program {
    PyObject *names;   /* dict to start from, or NULL */
    PyObject *code;
    PyObject *rest;    /* what is not in CODE, from the tool's source on; or NULL */
    PyObject *closing; /* called with the globals, gives the last part and how far to move its lines; or NULL */
};

static void clear_program(struct program *p)
{
    Py_CLEAR(p->names);
    Py_CLEAR(p->code);
    Py_CLEAR(p->rest);
    Py_CLEAR(p->closing);
}

/* Give a code object that was compiled apart its place in the script. */
static void move_code(PyCodeObject *code, PyObject *name, int lines)
{
    code->co_firstlineno += lines;
    Py_SETREF(code->co_filename, Py_NewRef(name));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_consts); i++) {
        PyObject *constant = PyTuple_GET_ITEM(code->co_consts, i);
        if (PyCode_Check(constant)) move_code((PyCodeObject *)constant, name, lines);
    }
}

/* Fills in what _sandbox_guest.begin has prepared, or compiles the script whole. */
static int compile_script(const struct request *r, struct program *p)
{
    const char *script = r->texts, *script_name = script_name_of(r), *tool_name = tool_name_of(r);
    PyObject *prepared = PyObject_CallFunction(begin, "ss#s#IIy#", script_name, script, (Py_ssize_t)r->script_size, tool_name,
                                               (Py_ssize_t)r->tool_name_size, r->tool_first_line, r->tool_line_count,
                                               code_in(r), (Py_ssize_t)r->code_size);
    if (!prepared) return -1;
    if (PyTuple_Check(prepared) && PyTuple_GET_SIZE(prepared) == 4) {
        p->names = Py_NewRef(PyTuple_GET_ITEM(prepared, 0));
        p->code = Py_NewRef(PyTuple_GET_ITEM(prepared, 1));
        if (PyCode_Check(PyTuple_GET_ITEM(prepared, 2))) {
            p->rest = Py_NewRef(PyTuple_GET_ITEM(prepared, 2));
            move_code((PyCodeObject *)p->rest, ((PyCodeObject *)p->code)->co_filename, (int)r->tool_first_line - 2);
        }
        p->closing = Py_NewRef(PyTuple_GET_ITEM(prepared, 3));
    } else if (strlen(script) != r->script_size)
        PyErr_SetString(PyExc_SyntaxError, "source code cannot contain null bytes");
    else p->code = Py_CompileString(script, script_name, Py_file_input);
    Py_DECREF(prepared);
    if (p->code && r->tool_line_count) {
        PyObject *name = PyUnicode_FromStringAndSize(tool_name, r->tool_name_size);
        PyCodeObject *code = (PyCodeObject *)(p->rest ? p->rest : p->code);
        if (name) relocate(code->co_consts, name, (int)r->tool_first_line, (int)r->tool_line_count, 0);
        else Py_CLEAR(p->code);
        Py_XDECREF(name);
    }
    return p->code ? 0 : -1;
}

static int run_code(PyObject *code, PyObject *globals)
{
    PyObject *none = PyEval_EvalCode(code, globals, globals);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static int run_program(const struct program *p, PyObject *globals)
{
    if (p->names && PyDict_Update(globals, p->names)) return -1;
    if (run_code(p->code, globals)) return -1;
    if (p->rest && run_code(p->rest, globals)) return -1;
    if (!p->closing) return 0;
    PyObject *chosen = PyObject_CallOneArg(p->closing, globals), *code = NULL;
    int lines, failed = !chosen || !PyArg_ParseTuple(chosen, "O!i", &PyCode_Type, &code, &lines);
    if (!failed) {
        move_code((PyCodeObject *)code, ((PyCodeObject *)p->code)->co_filename, lines);
        failed = run_code(code, globals);
    }
    Py_XDECREF(chosen);
    return failed ? -1 : 0;
}

/* ---- after a script ------------------------------------------------------------------------- */

static void flush_standard_streams(void)
{
    const char *names[] = {"stdout", "stderr"};
    for (int i = 0; i < 2; i++) {
        PyObject *stream = PySys_GetObject(names[i]);
        PyObject *none = stream && stream != Py_None ? PyObject_CallMethod(stream, "flush", NULL) : NULL;
        Py_XDECREF(none);
        PyErr_Clear();
    }
}

static void run_exit_functions(void)
{
    if (exit_functions() == atexit_baseline) return;
    PyObject *none = PyObject_CallNoArgs(atexit_run);
    Py_XDECREF(none);
    PyErr_Clear();
}

static void write_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t n = write(fd, bytes, size);
        if (n <= 0) return;
        bytes += n;
        size -= (size_t)n;
    }
}

/* The UTF-8 form of a text that a script may have made of anything (lone surrogates included). */
static PyObject *utf8(PyObject *text)
{
    PyObject *bytes = text && PyUnicode_Check(text) ? PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace") : NULL;
    PyErr_Clear();
    return bytes ? bytes : PyBytes_FromString("");
}

static void store_report(PyObject *const *texts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++) size += sizeof(uint32_t) + (size_t)PyBytes_GET_SIZE(texts[i]);
    unsigned char *at = report = malloc(size);
    for (int i = 0; at && i < count; i++) {
        uint32_t n = (uint32_t)PyBytes_GET_SIZE(texts[i]);
        memcpy(at, &n, sizeof n);
        memcpy(at + sizeof n, PyBytes_AS_STRING(texts[i]), n);
        at += sizeof n + n;
    }
}

/* Describe EXCEPTION for the host, out of band, and show its traceback on standard error. */
static void report_exception(PyObject *exception)
{
    free(reserve);
    reserve = NULL;
    PyObject *described = PyObject_CallOneArg(report_of, exception);
    PyErr_Clear();
    PyObject *texts[4] = {0};
    for (int i = 0; i < 4; i++) {
        PyObject *text = described && PyTuple_Check(described) && PyTuple_GET_SIZE(described) == 4 ? PyTuple_GET_ITEM(described, i) : NULL;
        texts[i] = i || text ? utf8(text) : PyBytes_FromString(Py_TYPE(exception)->tp_name);
    }
    if (texts[0] && texts[1] && texts[2] && texts[3]) {
        store_report(texts, 3);
        write_all(STDERR_FILENO, PyBytes_AS_STRING(texts[3]), (size_t)PyBytes_GET_SIZE(texts[3]));
    }
    PyErr_Clear();
    for (int i = 0; i < 4; i++) Py_XDECREF(texts[i]);
    Py_XDECREF(described);
}

/* The exit code of a SystemExit, as the interpreter itself would have it; -1 for any other exception. */
static int exit_code_of(PyObject *exception, int *code)
{
    if (!PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)) return -1;
    PyObject *value = PyObject_GetAttrString(exception, "code");
    PyErr_Clear();
    *code = EXIT_EXCEPTION;
    if (!value || value == Py_None) *code = 0;
    else if (PyLong_Check(value)) *code = (int)PyLong_AsLong(value);
    else {
        PyObject *text = PyObject_Str(value), *bytes = utf8(text);
        if (bytes) write_all(STDERR_FILENO, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
        write_all(STDERR_FILENO, "\n", 1);
        Py_XDECREF(text);
        Py_XDECREF(bytes);
    }
    PyErr_Clear();
    Py_XDECREF(value);
    return 0;
}

/* Compile the script of a request from the tool's source on, and run nothing: 0 and the code as the one text of the
 * report, for later requests; or 1 if it is to be compiled when it runs. */
EXPORT("sandbox_compile") int sandbox_compile(const struct request *r)
{
    PyObject *code = PyObject_CallFunction(compile_ahead, "s#I", r->texts, (Py_ssize_t)r->script_size, r->tool_first_line);
    PyErr_Clear();
    if (code && PyBytes_Check(code)) store_report(&code, 1);
    Py_XDECREF(code);
    return report ? 0 : 1;
}

/* Hand a request of SIZE bytes, from sandbox_alloc, to _sandbox_live. Its modules, environment and random numbers are as
 * the last call left them, unless IS_NEW: then environment and random numbers are new, as before a script. Returns the
 * address of the answer, the one text of the report; or 0, and the report is of an exception. */
EXPORT("sandbox_call") const unsigned char *sandbox_call(char *request, size_t size, int is_new)
{
    static PyObject *answer_to;
    if (!answer_to) answer_to = attribute("_sandbox_live", "answer");
    free(report);
    report = NULL;
    if (is_new) {
        reload_environ();
        reseed_random();
    }
    PyObject *data = answer_to ? PyBytes_FromStringAndSize(request, (Py_ssize_t)size) : NULL;
    free(request);
    PyObject *answer = data ? PyObject_CallFunctionObjArgs(answer_to, data, is_new ? Py_True : Py_False, NULL) : NULL;
    Py_XDECREF(data);
    int has_answered = answer && PyBytes_Check(answer);
    PyObject *exception = answer ? NULL : PyErr_GetRaisedException();
    if (exception) report_exception(exception);
    Py_XDECREF(exception);
    if (exit_functions() != atexit_baseline) {
        run_exit_functions();
        flush_standard_streams();
    }
    if (has_answered) store_report(&answer, 1);
    Py_XDECREF(answer);
    return has_answered ? report : NULL;
}

/* Run the script of a request as __main__. Returns its exit code: 0, a SystemExit's code, or 1 with
 * a report. Meant to be called once per instance (and any number of times while warming up). */
EXPORT("sandbox_run") int sandbox_run(const struct request *request)
{
    reload_environ();
    reseed_random();
    PyObject *module = fresh_main(request);
    struct program program = {0};
    int failed = !module || compile_script(request, &program) || hold_values(request) || run_program(&program, PyModule_GetDict(module));
    int exit_code = 0;
    PyObject *exception = failed ? PyErr_GetRaisedException() : NULL;
    if (exception && exit_code_of(exception, &exit_code)) {
        report_exception(exception);
        exit_code = EXIT_EXCEPTION;
    }
    run_exit_functions();
    flush_standard_streams();
    Py_XDECREF(exception);
    clear_program(&program);
    Py_XDECREF(module);
    return exit_code;
}
