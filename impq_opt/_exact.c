/* Exact sums and the recount of an allocation, in one pass over the tables. Each function does what the NumPy code beside
   its caller does, with the same results bit for bit (built with -ffp-contract=off). Knows no solver. */

#include "_sums.h"

#include <math.h>
#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_AVX512 1
/* Rows between a prefetch and its use: the loop body is too long for the processor to look that far ahead itself. */
#define AHEAD 48
#endif

#define MOST_BUFFERS 8
#define MOST_COLUMNS 64

typedef struct {
    Py_buffer view[MOST_BUFFERS];
    int count;
} Buffers;

static void release(Buffers *b)
{
    while (b->count > 0)
        PyBuffer_Release(&b->view[--b->count]);
}

static int array_of(Buffers *b, PyObject *object, Py_ssize_t size, void *into)
{
    *(void **)into = NULL;
    if (object == Py_None)
        return 0;
    Py_buffer *view = &b->view[b->count];
    if (PyObject_GetBuffer(object, view, PyBUF_CONTIG_RO) < 0)
        return -1;
    b->count++;
    if (view->itemsize != 8 || view->len < size * 8) {
        PyErr_Format(PyExc_ValueError, "expected %zd entries of 8 bytes", size);
        return -1;
    }
    *(void **)into = view->buf;
    return 0;
}

/* ---- sums ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    const double *values;
    Py_ssize_t count;
    Bins *bins;
} Sum;

static void sum_part(void *job)
{
    Sum *s = job;
    for (Py_ssize_t i = 0; i < s->count; i++)
        bins_add(s->bins, s->values[i]);
}

/* exact_sum(values, count, threads) -> (integer, exponent) */
static PyObject *py_exact_sum(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *object, *result = NULL;
    Py_ssize_t count;
    int threads;
    const double *values;
    Sum jobs[MOST_THREADS];
    if (!PyArg_ParseTuple(args, "Oni", &object, &count, &threads))
        return NULL;
    Buffers b = {.count = 0};
    memset(jobs, 0, sizeof jobs);
    if (count > MOST_TERMS) {
        PyErr_SetString(PyExc_ValueError, "too many terms");
        return NULL;
    }
    if (array_of(&b, object, count, &values))
        goto done;
    threads = thread_share(threads);
    for (int i = 0; i < threads; i++) {
        Py_ssize_t start = count * i / threads;
        jobs[i].values = values + start;
        jobs[i].count = count * (i + 1) / threads - start;
        jobs[i].bins = calloc(1, sizeof(Bins));
        if (jobs[i].bins == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    run_all(sum_part, jobs, sizeof jobs[0], threads);
    for (int i = 1; i < threads; i++)
        bins_merge(jobs[0].bins, jobs[i].bins);
    Py_END_ALLOW_THREADS
    result = bins_result(jobs[0].bins);
done:
    for (int i = 0; i < MOST_THREADS; i++)
        free(jobs[i].bins);
    release(&b);
    return result;
}

/* ---- recount ------------------------------------------------------------------------------------------------------- */

/* Tables (n, K), or vectors left (n,) and right (K,) whose products they are. */
typedef struct {
    const int64_t *cost, *levels, *widths, *choice;
    const double *damage, *scales;
    Py_ssize_t columns, start, stop;
    double multiplier, factor, huge;
    int by_cost, outside;
    __int128 cost_sum, least_sum;
    Bins *damage_sum, *value_sum;
} Recount;

static inline void recount_close(Recount *r, Py_ssize_t row, int64_t width, int64_t least, double value)
{
    r->least_sum += least;
    bins_add(r->value_sum, (value < r->huge ? value : r->huge) * r->factor);
    if (r->choice == NULL)
        return;
    int64_t k = r->choice[row];
    if (k < 0 || k >= width) {
        r->outside = 1;
        return;
    }
    r->cost_sum += r->levels ? r->cost[row] * r->levels[k] : r->cost[row * r->columns + k];
    bins_add(r->damage_sum, r->levels ? r->damage[row] * r->scales[k] : r->damage[row * r->columns + k]);
}

static void recount_plain(Recount *r)
{
    int64_t cost[MOST_COLUMNS];
    double damage[MOST_COLUMNS];
    for (Py_ssize_t row = r->start; row < r->stop; row++) {
        int64_t width = r->widths ? r->widths[row] : r->columns;
        for (int64_t k = 0; k < width; k++) {
            cost[k] = r->levels ? r->cost[row] * r->levels[k] : r->cost[row * r->columns + k];
            damage[k] = r->levels ? r->damage[row] * r->scales[k] : r->damage[row * r->columns + k];
        }
        int64_t least = cost[0];
        for (int64_t k = 1; k < width; k++)
            least = cost[k] < least ? cost[k] : least;
        double lowest = INFINITY;
        for (int64_t k = 0; k < width; k++) {
            double excess = (double)(cost[k] - least);
            double value = r->by_cost ? excess + r->multiplier * damage[k] : damage[k] + r->multiplier * excess;
            lowest = value < lowest ? value : lowest;
        }
        recount_close(r, row, width, least, lowest);
    }
}

#ifdef HAVE_AVX512
__attribute__((target("avx512f,avx512dq"))) static void recount_wide(Recount *r)
{
    const __m512d infinite = _mm512_set1_pd(INFINITY), multiplier = _mm512_set1_pd(r->multiplier);
    const __m512i largest = _mm512_set1_epi64(INT64_MAX);
    __mmask8 all = (__mmask8)((1u << r->columns) - 1);
    __m512i levels = r->levels ? _mm512_maskz_loadu_epi64(all, r->levels) : _mm512_setzero_si512();
    __m512d scales = r->levels ? _mm512_maskz_loadu_pd(all, r->scales) : _mm512_setzero_pd();
    for (Py_ssize_t row = r->start; row < r->stop; row++) {
        int64_t width = r->widths ? r->widths[row] : r->columns;
        __mmask8 in = (__mmask8)((1u << width) - 1);
        __m512i cost;
        __m512d damage;
        if (r->levels) {
            cost = _mm512_mullo_epi64(_mm512_set1_epi64(r->cost[row]), levels);
            damage = _mm512_mul_pd(_mm512_set1_pd(r->damage[row]), scales);
        } else {
            /* A prefetch past the end is harmless. */
            _mm_prefetch((const char *)(r->cost + (row + AHEAD) * r->columns), _MM_HINT_T0);
            _mm_prefetch((const char *)(r->damage + (row + AHEAD) * r->columns), _MM_HINT_T0);
            cost = _mm512_maskz_loadu_epi64(in, r->cost + row * r->columns);
            damage = _mm512_maskz_loadu_pd(in, r->damage + row * r->columns);
        }
        int64_t least = _mm512_reduce_min_epi64(_mm512_mask_blend_epi64(in, largest, cost));
        __m512d excess = _mm512_cvtepi64_pd(_mm512_sub_epi64(cost, _mm512_set1_epi64(least)));
        __m512d value = r->by_cost ? _mm512_add_pd(excess, _mm512_mul_pd(multiplier, damage))
                                   : _mm512_add_pd(damage, _mm512_mul_pd(multiplier, excess));
        recount_close(r, row, width, least, _mm512_reduce_min_pd(_mm512_mask_blend_pd(in, infinite, value)));
    }
}
#endif

static void recount_part(void *job)
{
    Recount *r = job;
#ifdef HAVE_AVX512
    if (r->columns <= 8 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
        recount_wide(r);
        return;
    }
#endif
    recount_plain(r);
}

/* recount(cost, damage, levels, scales, widths, choice, rows, columns, by_cost, multiplier, factor, huge, threads)
   -> None where a choice is outside its group, or
      (cost, damage, sum of least costs, sum of the rounded-down least values); sums of float64 as (integer, exponent) */
static PyObject *py_recount(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[6], *result = NULL;
    Py_ssize_t rows, columns;
    int by_cost, threads, outside = 0;
    double multiplier, factor, huge;
    if (!PyArg_ParseTuple(args, "OOOOOOnnpdddi", &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &rows, &columns, &by_cost,
                          &multiplier, &factor, &huge, &threads))
        return NULL;
    if (columns < 1 || columns > MOST_COLUMNS || rows > MOST_TERMS) {
        PyErr_SetString(PyExc_ValueError, "too large");
        return NULL;
    }
    Buffers b = {.count = 0};
    Recount jobs[MOST_THREADS];
    memset(jobs, 0, sizeof jobs);
    Py_ssize_t entries = o[2] == Py_None ? rows * columns : rows;
    Recount *first = &jobs[0];
    if (array_of(&b, o[0], entries, &first->cost) || array_of(&b, o[1], entries, &first->damage) ||
        array_of(&b, o[2], columns, &first->levels) || array_of(&b, o[3], columns, &first->scales) ||
        array_of(&b, o[4], rows, &first->widths) || array_of(&b, o[5], rows, &first->choice))
        goto done;
    first->columns = columns, first->by_cost = by_cost;
    first->multiplier = multiplier, first->factor = factor, first->huge = huge;
    threads = thread_share(threads);
    for (int i = 0; i < threads; i++) {
        if (i > 0)
            jobs[i] = jobs[0];
        jobs[i].start = rows * i / threads;
        jobs[i].stop = rows * (i + 1) / threads;
    }
    for (int i = 0; i < threads; i++) {
        jobs[i].damage_sum = calloc(1, sizeof(Bins));
        jobs[i].value_sum = calloc(1, sizeof(Bins));
        if (jobs[i].damage_sum == NULL || jobs[i].value_sum == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    run_all(recount_part, jobs, sizeof jobs[0], threads);
    for (int i = 1; i < threads; i++) {
        first->cost_sum += jobs[i].cost_sum;
        first->least_sum += jobs[i].least_sum;
        bins_merge(first->damage_sum, jobs[i].damage_sum);
        bins_merge(first->value_sum, jobs[i].value_sum);
    }
    for (int i = 0; i < threads; i++)
        outside |= jobs[i].outside;
    Py_END_ALLOW_THREADS
    if (outside) {
        result = Py_None;
        Py_INCREF(result);
    } else
        result = Py_BuildValue("(NNNN)", wide_result(first->cost_sum), bins_result(first->damage_sum),
                               wide_result(first->least_sum), bins_result(first->value_sum));
done:
    for (int i = 0; i < MOST_THREADS; i++) {
        free(jobs[i].damage_sum);
        free(jobs[i].value_sum);
    }
    release(&b);
    return result;
}

static PyMethodDef methods[] = {
    {"exact_sum", py_exact_sum, METH_VARARGS, "The exact sum of float64 values."},
    {"recount", py_recount, METH_VARARGS, "Cost, damage and dual sum of an allocation."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_exact", "Exact sums.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__exact(void) { return PyModule_Create(&module); }
