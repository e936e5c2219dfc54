/* Exact sums, the recount of an allocation in one pass over the tables, and the least values of a star's leaves. Each
   function does what the NumPy code beside its caller does, with the same results bit for bit (built with
   -ffp-contract=off). Knows no solver. */

#include "_tables.h"

#include <stdlib.h>

/* ---- sums ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    const double *values;
    Py_ssize_t count;
    Bins *bins;
} Sum;

ALWAYS_INLINE void sum_all(Sum *s)
{
    for (Py_ssize_t i = 0; i < s->count; i += BLOCK_ROWS)
        bins_add_block(s->bins, s->values + i, (int)(s->count - i < BLOCK_ROWS ? s->count - i : BLOCK_ROWS));
}

static void sum_part(void *job) { sum_all(job); }

#ifdef HAVE_AVX512
WIDE static void sum_part_wide(void *job) { sum_all(job); }
#endif

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
    if (array_of(&b, object, count, 8, 0, 0, &values))
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
    run_all(WIDE_OR_PLAIN(sum_part), jobs, sizeof jobs[0], threads);
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

typedef struct {
    Table table;
    const int64_t *choice; /* (n,), or NULL */
    Py_ssize_t start, stop;
    double multiplier, factor, huge;
    int by_cost, outside;
    __int128 cost_sum, least_sum;
    Bins *damage_sum, *value_sum;
} Recount;

/* Recount a row: its least value, and the damage chosen. */
static void recount_row(Recount *r, Py_ssize_t row, double *least_value, double *chosen)
{
    int64_t cost[MOST_COLUMNS];
    double damage[MOST_COLUMNS], lowest = INFINITY;
    int width = load_row(&r->table, row, cost, damage);
    int64_t least = cost[0];
    for (int k = 1; k < width; k++)
        least = cost[k] < least ? cost[k] : least;
    for (int k = 0; k < width; k++) {
        double excess = (double)(cost[k] - least);
        double value = r->by_cost ? excess + r->multiplier * damage[k] : damage[k] + r->multiplier * excess;
        lowest = value < lowest ? value : lowest;
    }
    r->least_sum += least;
    *least_value = lowest;
    if (r->choice == NULL)
        return;
    int64_t k = r->choice[row];
    if (k < 0 || k >= width) {
        r->outside = 1;
        return;
    }
    r->cost_sum += cost[k];
    *chosen = damage[k];
}

#ifdef HAVE_AVX512
/* Recount whole eights of rows from `row` on: their least values, and the damages chosen; return where they end. */
WIDE static Py_ssize_t recount_rows(Recount *r, Py_ssize_t row, Py_ssize_t stop, double *lowest, double *chosen)
{
    const __m512d multiplier = _mm512_set1_pd(r->multiplier);
    Halves least_sum = {_mm512_setzero_si512(), _mm512_setzero_si512()}, cost_sum = least_sum;
    for (; row + 8 <= stop; row += 8, lowest += 8, chosen += 8) {
        __m512i cost[8];
        __m512d damage[8], excess[8], least_value = _mm512_set1_pd(INFINITY);
        __mmask8 in[8];
        load_rows(&r->table, row, cost, damage, in);
        __m512i least = excesses(cost, in, excess);
        UNROLLED for (int k = 0; k < 8; k++) {
            __m512d value = r->by_cost ? _mm512_add_pd(excess[k], _mm512_mul_pd(multiplier, damage[k]))
                                       : _mm512_add_pd(damage[k], _mm512_mul_pd(multiplier, excess[k]));
            least_value = _mm512_mask_min_pd(least_value, in[k], value, least_value);
        }
        _mm512_storeu_pd(lowest, least_value);
        halves_add(&least_sum, least);
        if (r->choice == NULL)
            continue;
        __m512i choice = _mm512_loadu_si512(r->choice + row), own_cost = cost[0];
        __m512d own_damage = damage[0];
        unsigned valid = 0;
        UNROLLED for (int k = 0; k < 8; k++) {
            __mmask8 here = _mm512_mask_cmpeq_epi64_mask(in[k], choice, _mm512_set1_epi64(k));
            own_cost = _mm512_mask_mov_epi64(own_cost, here, cost[k]);
            own_damage = _mm512_mask_mov_pd(own_damage, here, damage[k]);
            valid |= here;
        }
        r->outside |= valid != 0xff;
        halves_add(&cost_sum, own_cost);
        _mm512_storeu_pd(chosen, own_damage);
    }
    r->least_sum += halves_total(&least_sum);
    r->cost_sum += halves_total(&cost_sum);
    return row;
}
#endif

ALWAYS_INLINE void recount_all(Recount *r, int wide)
{
    double lowest[BLOCK_ROWS], chosen[BLOCK_ROWS];
    for (Py_ssize_t start = r->start; start < r->stop && !r->outside; start += BLOCK_ROWS) {
        Py_ssize_t row = start, stop = start + BLOCK_ROWS < r->stop ? start + BLOCK_ROWS : r->stop;
#ifdef HAVE_AVX512
        if (wide)
            row = recount_rows(r, row, stop, lowest, chosen);
#endif
        for (; row < stop; row++)
            recount_row(r, row, &lowest[row - start], &chosen[row - start]);
        int count = (int)(stop - start);
        for (int i = 0; i < count; i++)
            lowest[i] = (lowest[i] < r->huge ? lowest[i] : r->huge) * r->factor;
        bins_add_block(r->value_sum, lowest, count);
        if (r->choice != NULL && !r->outside)
            bins_add_block(r->damage_sum, chosen, count);
    }
}

static void recount_part(void *job) { recount_all(job, 0); }

#ifdef HAVE_AVX512
WIDE static void recount_part_wide(void *job) { recount_all(job, 1); }
#endif

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
    Table *table = &first->table;
    if (array_of(&b, o[0], entries, 8, 0, 1, &table->cost) || array_of(&b, o[1], entries, 8, 0, 1, &table->damage) ||
        array_of(&b, o[2], columns, 8, 0, 1, &table->levels) || array_of(&b, o[3], columns, 8, 0, 1, &table->scales) ||
        array_of(&b, o[4], rows, 8, 0, 1, &table->widths) || array_of(&b, o[5], rows, 8, 0, 1, &first->choice))
        goto done;
    table->columns = columns;
    first->by_cost = by_cost;
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
    run_all(columns <= WIDE_COLUMNS ? WIDE_OR_PLAIN(recount_part) : recount_part, jobs, sizeof jobs[0], threads);
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

/* ---- messages ------------------------------------------------------------------------------------------------------ */

/* messages(fixed, slope, own levels, other levels, rows, columns, out): out[i][c] is the least over k of
   fixed[i][k] + slope[i] own[i][k] other[i][c] */
static PyObject *py_messages(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[5];
    Py_ssize_t rows, columns;
    if (!PyArg_ParseTuple(args, "OOOOnnO", &o[0], &o[1], &o[2], &o[3], &rows, &columns, &o[4]))
        return NULL;
    if (columns < 1 || columns > MOST_COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "too many columns");
        return NULL;
    }
    Buffers b = {.count = 0};
    const double *fixed, *slope;
    const int64_t *own, *other;
    double *out;
    Py_ssize_t entries = rows * columns;
    if (array_of(&b, o[0], entries, 8, 0, 0, &fixed) || array_of(&b, o[1], rows, 8, 0, 0, &slope) ||
        array_of(&b, o[2], entries, 8, 0, 0, &own) || array_of(&b, o[3], entries, 8, 0, 0, &other) ||
        array_of(&b, o[4], entries, 8, 1, 0, &out)) {
        release(&b);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++) {
        const Py_ssize_t at = row * columns;
        double rising[MOST_COLUMNS], level[MOST_COLUMNS], least[MOST_COLUMNS];
        for (Py_ssize_t k = 0; k < columns; k++) {
            rising[k] = slope[row] * (double)own[at + k];
            level[k] = (double)other[at + k];
            least[k] = INFINITY;
        }
        for (Py_ssize_t k = 0; k < columns; k++)
            for (Py_ssize_t c = 0; c < columns; c++) {
                double value = fixed[at + k] + rising[k] * level[c];
                least[c] = value < least[c] ? value : least[c];
            }
        memcpy(out + at, least, sizeof *out * (size_t)columns);
    }
    Py_END_ALLOW_THREADS
    release(&b);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"exact_sum", py_exact_sum, METH_VARARGS, "The exact sum of float64 values."},
    {"messages", py_messages, METH_VARARGS, "The least values of leaves for each candidate of their centre."},
    {"recount", py_recount, METH_VARARGS, "Cost, damage and dual sum of an allocation."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_exact", "Exact sums.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__exact(void) { return create_module(&module); }
