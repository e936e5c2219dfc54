/* Inner loops of the Lagrangian over stars: what the leaves cost for each candidate of their centre.

   Each does what the NumPy code beside its caller does, with the same answers bit for bit: float64 operations in the same
   order (built with -ffp-contract=off), sums over leaves one after the other. Leaves are taken in blocks that stay in the
   first cache, and loops run over the leaves of a block, so that the compiler can make vectors of them. */

#include "../../impq_opt/exactness/_module.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define BLOCK 128

/* Where the linker can choose at load time, loops are also built for wider vectors; the arithmetic is the same. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

/* The data of an array, or NULL where it is none of `size` entries of `bytes` bytes. */
static void *entries_of(Buffers *b, PyObject *object, Py_ssize_t size, Py_ssize_t bytes, int writable)
{
    void *data;
    return array_of(b, object, size, bytes, writable, 0, &data) < 0 ? NULL : data;
}

/* The leaves: tables (R, K, L) of the rows and coefficients (S, L) of those that have some, priced by weights (R,), (S,). */
typedef struct {
    Py_ssize_t leaves, columns, centres, rows, slopes;
    const double *table, *slope, *weight, *slope_weight;
    const double *leaf_levels;   /* (K, L) */
    const double *centre_levels; /* (C, K) */
    const int64_t *owner;        /* (L,) */
} Leaves;

/* Price one block: single[k][l] and rising[k][l], the latter for one level of the centre. */
WIDE static void price(const Leaves *s, Py_ssize_t first, Py_ssize_t count, double (*single)[BLOCK], double (*rising)[BLOCK])
{
    double slope[BLOCK];
    for (Py_ssize_t l = 0; l < count; l++)
        slope[l] = s->slopes ? s->slope[first + l] * s->slope_weight[0] : 0.0;
    for (Py_ssize_t r = 1; r < s->slopes; r++)
        if (s->slope_weight[r] != 0.0)
            for (Py_ssize_t l = 0; l < count; l++)
                slope[l] += s->slope[r * s->leaves + first + l] * s->slope_weight[r];
    for (Py_ssize_t k = 0; k < s->columns; k++) {
        Py_ssize_t at = k * s->leaves + first;
        double *one = single[k], *up = rising[k];
        for (Py_ssize_t l = 0; l < count; l++)
            one[l] = s->table[at + l] * s->weight[0];
        for (Py_ssize_t r = 1; r < s->rows; r++) {
            const double *table = s->table + r * s->columns * s->leaves;
            if (s->weight[r] != 0.0)
                for (Py_ssize_t l = 0; l < count; l++)
                    one[l] += table[at + l] * s->weight[r];
        }
        for (Py_ssize_t l = 0; l < count; l++)
            up[l] = slope[l] * s->leaf_levels[at + l];
    }
}

WIDE static void least(const Leaves *s, Py_ssize_t count, double (*single)[BLOCK], double (*rising)[BLOCK],
                  const double *level, double *value)
{
    for (Py_ssize_t l = 0; l < count; l++)
        value[l] = single[0][l] + rising[0][l] * level[l];
    for (Py_ssize_t k = 1; k < s->columns; k++)
        for (Py_ssize_t l = 0; l < count; l++) {
            double other = single[k][l] + rising[k][l] * level[l];
            value[l] = other < value[l] ? other : value[l];
        }
}

static void all_minima(const Leaves *s, const uint8_t *allowed, double *sums)
{
    static _Thread_local double single[MOST_COLUMNS][BLOCK], rising[MOST_COLUMNS][BLOCK];
    double level[BLOCK], value[BLOCK];
    for (Py_ssize_t first = 0; first < s->leaves; first += BLOCK) {
        Py_ssize_t count = s->leaves - first < BLOCK ? s->leaves - first : BLOCK;
        const int64_t *owner = s->owner + first;
        price(s, first, count, single, rising);
        for (Py_ssize_t a = 0; a < s->columns; a++) {
            int any = 0;
            for (Py_ssize_t l = 0; l < count; l++) {
                any |= allowed[owner[l] * s->columns + a];
                level[l] = s->centre_levels[owner[l] * s->columns + a];
            }
            if (!any)
                continue;
            least(s, count, single, rising, level, value);
            for (Py_ssize_t l = 0; l < count; l++)
                sums[owner[l] * s->columns + a] += value[l];
        }
    }
}

WIDE static void best(const Leaves *s, Py_ssize_t count, double (*single)[BLOCK], double (*rising)[BLOCK],
                      const double *level, int64_t *at)
{
    double value[BLOCK];
    for (Py_ssize_t l = 0; l < count; l++) {
        value[l] = single[0][l] + rising[0][l] * level[l];
        at[l] = 0;
    }
    for (Py_ssize_t k = 1; k < s->columns; k++)
        for (Py_ssize_t l = 0; l < count; l++) {
            double other = single[k][l] + rising[k][l] * level[l];
            at[l] = other < value[l] ? k : at[l];
            value[l] = other < value[l] ? other : value[l];
        }
}

static void all_choices(const Leaves *s, const int64_t *column, int64_t *choice)
{
    static _Thread_local double single[MOST_COLUMNS][BLOCK], rising[MOST_COLUMNS][BLOCK];
    double level[BLOCK];
    for (Py_ssize_t first = 0; first < s->leaves; first += BLOCK) {
        Py_ssize_t count = s->leaves - first < BLOCK ? s->leaves - first : BLOCK;
        price(s, first, count, single, rising);
        for (Py_ssize_t l = 0; l < count; l++) {
            int64_t owner = s->owner[first + l];
            level[l] = s->centre_levels[owner * s->columns + column[owner]];
        }
        best(s, count, single, rising, level, choice + first);
    }
}

static int leaves_of(Buffers *b, Leaves *s, PyObject *args, PyObject **more, PyObject **out)
{
    PyObject *tables, *weights, *slopes, *slope_weights, *leaf_levels, *owner, *centre_levels;
    if (!PyArg_ParseTuple(args, "nnnnnOOOOOOOOO", &s->rows, &s->slopes, &s->leaves, &s->columns, &s->centres, &tables,
                          &weights, &slopes, &slope_weights, &leaf_levels, &owner, &centre_levels, more, out))
        return -1;
    if (s->columns < 1 || s->columns > MOST_COLUMNS || s->rows < 1) {
        PyErr_SetString(PyExc_ValueError, "too few or too many columns or rows");
        return -1;
    }
    s->table = entries_of(b, tables, s->rows * s->columns * s->leaves, 8, 0);
    s->weight = s->table == NULL ? NULL : entries_of(b, weights, s->rows, 8, 0);
    s->slope = s->weight == NULL ? NULL : entries_of(b, slopes, s->slopes * s->leaves, 8, 0);
    s->slope_weight = s->slope == NULL ? NULL : entries_of(b, slope_weights, s->slopes, 8, 0);
    if (s->slope_weight == NULL)
        return -1;
    s->leaf_levels = entries_of(b, leaf_levels, s->leaves * s->columns, 8, 0);
    s->owner = s->leaf_levels == NULL ? NULL : entries_of(b, owner, s->leaves, 8, 0);
    s->centre_levels = s->owner == NULL ? NULL : entries_of(b, centre_levels, s->centres * s->columns, 8, 0);
    if (s->centre_levels == NULL)
        return -1;
    for (Py_ssize_t l = 0; l < s->leaves; l++)
        if (s->owner[l] < 0 || s->owner[l] >= s->centres) {
            PyErr_SetString(PyExc_ValueError, "no such centre");
            return -1;
        }
    return 0;
}

/* minima(rows, slopes, leaves, columns, centres, tables, weights, slopes, slope weights, leaf levels, owner,
   centre levels, allowed, sums): add to sums (C, K) the leaves' least values where a centre's candidate is allowed (others hold no meaning). */
static PyObject *py_minima(PyObject *self, PyObject *args)
{
    Buffers b = {.count = 0};
    Leaves s;
    PyObject *more, *out, *result = NULL;
    if (leaves_of(&b, &s, args, &more, &out) == 0) {
        const uint8_t *allowed = entries_of(&b, more, s.centres * s.columns, 1, 0);
        double *sums = allowed == NULL ? NULL : entries_of(&b, out, s.centres * s.columns, 8, 1);
        if (sums != NULL) {
            Py_BEGIN_ALLOW_THREADS
            all_minima(&s, allowed, sums);
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
    }
    release(&b);
    return result;
}

/* choices(..., column, choice): set choice (L,) to each leaf's best candidate where its centre takes column (C,). */
static PyObject *py_choices(PyObject *self, PyObject *args)
{
    Buffers b = {.count = 0};
    Leaves s;
    PyObject *more, *out, *result = NULL;
    if (leaves_of(&b, &s, args, &more, &out) == 0) {
        const int64_t *column = entries_of(&b, more, s.centres, 8, 0);
        int64_t *choice = column == NULL ? NULL : entries_of(&b, out, s.leaves, 8, 1);
        int wrong = choice == NULL;
        for (Py_ssize_t c = 0; !wrong && c < s.centres; c++)
            wrong = column[c] < 0 || column[c] >= s.columns;
        if (wrong && choice != NULL)
            PyErr_SetString(PyExc_ValueError, "no such column");
        if (!wrong) {
            Py_BEGIN_ALLOW_THREADS
            all_choices(&s, column, choice);
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
    }
    release(&b);
    return result;
}

static PyMethodDef methods[] = {
    {"minima", py_minima, METH_VARARGS, "Least values of the leaves for each candidate of their centres."},
    {"choices", py_choices, METH_VARARGS, "The leaves' choices for a choice of their centres."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_stars", "Inner loops of the Lagrangian over stars.", -1,
                                    methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__stars(void) { return create_module(&module); }
