/* A module that says what it was built from. */
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

static inline PyObject *create_module(struct PyModuleDef *definition)
{
    PyObject *module = PyModule_Create(definition);
    if (module && PyModule_AddStringConstant(module, "SOURCES", TEXT_OF(SOURCES))) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

#endif
