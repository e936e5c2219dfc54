/* What all compiled parts share: the arrays they are given, and a module that says what it was built from. */
#ifndef IMPQ_OPT_MODULE_H
#define IMPQ_OPT_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The digest of the C sources, from setup.py; empty in a build without it. */
#ifndef SOURCES
#define SOURCES
#endif
#define AS_TEXT(token) #token
#define TEXT_OF(macro) AS_TEXT(macro)

/* How large numbers may be: one place says it, for Python and C. */
#if !defined(MOST_COLUMNS) || !defined(MOST_TERMS) || !defined(PROHIBITIVE)
#error "setup.py defines the limits of impq_opt/exactness/limits.py"
#endif

static inline PyObject *create_module(struct PyModuleDef *definition)
{
    PyObject *module = PyModule_Create(definition);
    PyObject *limits = Py_BuildValue("{s:L,s:L,s:L}", "MOST_COLUMNS", (long long)MOST_COLUMNS, "MOST_TERMS",
                                     (long long)MOST_TERMS, "PROHIBITIVE", (long long)PROHIBITIVE);
    if (module != NULL && limits != NULL && PyModule_AddStringConstant(module, "SOURCES", TEXT_OF(SOURCES)) == 0 &&
        PyModule_AddObject(module, "LIMITS", limits) == 0)
        return module;
    Py_XDECREF(limits);
    Py_XDECREF(module);
    return NULL;
}

/* Arrays of the caller, held while a function runs. */
typedef struct {
    Py_buffer view[104];
    int count;
} Buffers;

static inline void release(Buffers *b)
{
    while (b->count > 0)
        PyBuffer_Release(&b->view[--b->count]);
}

/* The data of a contiguous array with at least `size` entries of `bytes` bytes; `none` allows None, which gives NULL. */
static inline int array_of(
    Buffers *b, PyObject *object, Py_ssize_t size, Py_ssize_t bytes, int writable, int none, void *into)
{
    *(void **)into = NULL;
    if (none && object == Py_None)
        return 0;
    Py_buffer *view = &b->view[b->count];
    if (PyObject_GetBuffer(object, view, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0)
        return -1;
    b->count++;
    if (view->itemsize != bytes || view->len < size * bytes) {
        PyErr_Format(PyExc_ValueError, "expected %zd entries of %zd bytes", size, bytes);
        return -1;
    }
    *(void **)into = view->buf;
    return 0;
}

#endif
