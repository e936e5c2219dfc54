/* The exact strategy's inner loops. Each does what the NumPy code beside its caller does, with the same answers bit for
   bit: float64 operations in the same order (no fused multiply-add: built with -ffp-contract=off), sums in integers. */

#include "../impq_opt/_tables.h"

#include <stdlib.h>
#include <time.h>

#define PROHIBITIVE ((int64_t)1 << 60)

/* ---- scan -------------------------------------------------------------------------------------------------------- */

typedef struct {
    __int128 cost;
    Bins damage;
} Total;

typedef struct {
    const Table *table;
    Py_ssize_t start, stop, opened;
    double low, high, threshold, guard;
    uint16_t *columns; /* (n,) all rows */
    int64_t *open; /* the open rows, as many as there is room for, and their tables */
    int64_t *pool_cost;
    double *pool_damage;
    Py_ssize_t room;
    Total *totals; /* of the settled rows, and of the open ones at the low and at the high end */
} Scan;

static inline void total_add(Total *total, const Table *t, Py_ssize_t row, int64_t k)
{
    total->cost += cost_at(t, row, k);
    bins_add(&total->damage, damage_at(t, row, k));
}

/* Copy out an open row; columns past its width repeat the last at a prohibitive cost. */
static inline void scan_keep(Scan *s, Py_ssize_t row, int64_t best_low, int64_t best_high)
{
    const Table *t = s->table;
    total_add(&s->totals[1], t, row, best_low);
    total_add(&s->totals[2], t, row, best_high);
    if (s->opened < s->room) {
        Py_ssize_t columns = t->columns, width = t->widths ? t->widths[row] : columns;
        int64_t *cost = s->pool_cost + s->opened * columns;
        double *damage = s->pool_damage + s->opened * columns;
        for (Py_ssize_t k = 0; k < columns; k++) {
            int past = k >= width;
            cost[k] = cost_at(t, row, past ? width - 1 : k) + (past ? PROHIBITIVE : 0);
            damage[k] = damage_at(t, row, past ? width - 1 : k);
        }
        s->open[s->opened] = row;
    }
    s->opened++;
}

/* Scan a row; return the damage of a settled one. */
static double scan_row(Scan *s, Py_ssize_t row)
{
    int64_t cost[MOST_COLUMNS];
    double damage[MOST_COLUMNS], at_low[MOST_COLUMNS], at_high[MOST_COLUMNS];
    int width = load_row(s->table, row, cost, damage), best = 0, best_high = 0, kept = 0;
    int64_t least = cost[0];
    for (int k = 1; k < width; k++)
        least = cost[k] < least ? cost[k] : least;
    for (int k = 0; k < width; k++) {
        double excess = (double)(cost[k] - least);
        at_low[k] = excess + s->low * damage[k];
        at_high[k] = excess + s->high * damage[k];
        if (at_low[k] < at_low[best])
            best = k;
        if (at_high[k] < at_high[best_high])
            best_high = k;
    }
    double below_low = at_low[best] + s->threshold, below_high = at_high[best_high] + s->threshold;
    for (int k = 0; k < width; k++)
        kept += !(at_low[k] * s->guard > below_low && at_high[k] * s->guard > below_high);
    s->columns[row] = (uint16_t)best;
    if (kept > 1) {
        scan_keep(s, row, best, best_high);
        return 0.0;
    }
    s->totals[0].cost += cost[best];
    return damage[best];
}

#ifdef HAVE_AVX512
/* Scan whole eights of rows from `row` on; return where they end. */
WIDE static Py_ssize_t scan_rows(Scan *s, Py_ssize_t row, Py_ssize_t stop, double *chosen)
{
    const __m512d infinite = _mm512_set1_pd(INFINITY), guard = _mm512_set1_pd(s->guard);
    const __m512d low = _mm512_set1_pd(s->low), high = _mm512_set1_pd(s->high);
    const __m512d threshold = _mm512_set1_pd(s->threshold);
    Halves sum = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (; row + 8 <= stop; row += 8, chosen += 8) {
        __m512i cost[8];
        __m512d damage[8], at_low[8], at_high[8];
        __mmask8 in[8];
        load_rows(s->table, row, cost, damage, in);
        excesses(cost, in, at_low);
        UNROLLED for (int k = 0; k < 8; k++) {
            at_high[k] = _mm512_add_pd(at_low[k], _mm512_mul_pd(high, damage[k]));
            at_low[k] = _mm512_add_pd(at_low[k], _mm512_mul_pd(low, damage[k]));
            at_high[k] = _mm512_mask_blend_pd(in[k], infinite, at_high[k]);
            at_low[k] = _mm512_mask_blend_pd(in[k], infinite, at_low[k]);
        }
        __m512d least_low = at_low[0], least_high = at_high[0], best_damage = damage[0];
        __m512i best = _mm512_setzero_si512(), best_high = best, best_cost = cost[0];
        UNROLLED for (int k = 1; k < 8; k++) {
            const __m512i number = _mm512_set1_epi64(k);
            __mmask8 lower = _mm512_cmp_pd_mask(at_low[k], least_low, _CMP_LT_OQ);
            __mmask8 lower_high = _mm512_cmp_pd_mask(at_high[k], least_high, _CMP_LT_OQ);
            least_low = _mm512_min_pd(at_low[k], least_low);
            least_high = _mm512_min_pd(at_high[k], least_high);
            best = _mm512_mask_mov_epi64(best, lower, number);
            best_high = _mm512_mask_mov_epi64(best_high, lower_high, number);
            best_cost = _mm512_mask_mov_epi64(best_cost, lower, cost[k]);
            best_damage = _mm512_mask_mov_pd(best_damage, lower, damage[k]);
        }
        __m512d below_low = _mm512_add_pd(least_low, threshold), below_high = _mm512_add_pd(least_high, threshold);
        unsigned one = 0, open = 0; /* rows with a candidate, and with two, that the bracket leaves */
        UNROLLED for (int k = 0; k < 8; k++) {
            __mmask8 out = _mm512_cmp_pd_mask(_mm512_mul_pd(at_low[k], guard), below_low, _CMP_GT_OQ);
            out = _mm512_mask_cmp_pd_mask(out, _mm512_mul_pd(at_high[k], guard), below_high, _CMP_GT_OQ);
            unsigned kept = in[k] & ~(unsigned)out;
            open |= one & kept;
            one |= kept;
        }
        _mm_storeu_si128((__m128i *)(s->columns + row), _mm512_cvtepi64_epi16(best));
        __mmask8 settled = (__mmask8)~open;
        _mm512_storeu_pd(chosen, _mm512_maskz_mov_pd(settled, best_damage));
        halves_add(&sum, _mm512_maskz_mov_epi64(settled, best_cost));
        if (open) {
            int64_t at_low_end[8], at_high_end[8];
            _mm512_storeu_si512(at_low_end, best);
            _mm512_storeu_si512(at_high_end, best_high);
            for (; open; open &= open - 1) {
                int place = __builtin_ctz(open);
                scan_keep(s, row + place, at_low_end[place], at_high_end[place]);
            }
        }
    }
    s->totals[0].cost += halves_total(&sum);
    return row;
}
#endif

ALWAYS_INLINE void scan_all(Scan *s, int wide)
{
    double chosen[BLOCK_ROWS];
    for (Py_ssize_t start = s->start; start < s->stop; start += BLOCK_ROWS) {
        Py_ssize_t row = start, stop = start + BLOCK_ROWS < s->stop ? start + BLOCK_ROWS : s->stop;
#ifdef HAVE_AVX512
        if (wide)
            row = scan_rows(s, row, stop, chosen);
#endif
        for (; row < stop; row++)
            chosen[row - start] = scan_row(s, row);
        bins_add_block(&s->totals[0].damage, chosen, (int)(stop - start));
    }
}

static void scan_part(void *job) { scan_all(job, 0); }

#ifdef HAVE_AVX512
WIDE static void scan_part_wide(void *job) { scan_all(job, 1); }
#endif

/* ---- arguments ----------------------------------------------------------------------------------------------------- */

static int table_of(Buffers *b, Table *t, PyObject *cost, PyObject *damage, PyObject *levels, PyObject *scales,
                    PyObject *widths, Py_ssize_t rows, Py_ssize_t columns)
{
    Py_ssize_t entries = levels == Py_None ? rows * columns : rows;
    t->columns = columns;
    if (columns < 1 || columns > MOST_COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "too many columns");
        return -1;
    }
    return array_of(b, cost, entries, 8, 0, 0, &t->cost) || array_of(b, damage, entries, 8, 0, 0, &t->damage) ||
           array_of(b, levels, columns, 8, 0, 1, &t->levels) || array_of(b, scales, columns, 8, 0, 1, &t->scales) ||
           array_of(b, widths, rows, 8, 0, 1, &t->widths);
}

/* A total as (cost, (integer, exponent) of the damage). */
static PyObject *total_result(const Total *total)
{
    return Py_BuildValue("(NN)", wide_result(total->cost), bins_result(&total->damage));
}

/* scan(cost, damage, levels, scales, widths, rows, columns, low, high, threshold, guard, best, open, pool cost, pool damage,
        room in the pool, threads)
   -> (number of open rows, 0 or the room that they need, totals of the settled rows, of the open ones at the low end, and
       at the high end) */
static PyObject *py_scan(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *cost, *damage, *levels, *scales, *widths, *best, *open, *pool_cost, *pool_damage;
    Py_ssize_t rows, columns, room;
    double low, high, threshold, guard;
    int threads;
    if (!PyArg_ParseTuple(args, "OOOOOnnddddOOOOni", &cost, &damage, &levels, &scales, &widths, &rows, &columns, &low,
                          &high, &threshold, &guard, &best, &open, &pool_cost, &pool_damage, &room, &threads))
        return NULL;
    Buffers buffers = {.count = 0};
    Table table;
    Scan jobs[MOST_THREADS];
    Py_ssize_t needed = 0;
    PyObject *result = NULL;
    memset(jobs, 0, sizeof jobs);
    if (rows > MOST_TERMS) {
        PyErr_SetString(PyExc_ValueError, "too many rows");
        return NULL;
    }
    threads = thread_share(threads);
    if (table_of(&buffers, &table, cost, damage, levels, scales, widths, rows, columns))
        goto done;
    if (array_of(&buffers, best, rows, 2, 1, 0, &jobs[0].columns) ||
        array_of(&buffers, open, room, 8, 1, 0, &jobs[0].open) ||
        array_of(&buffers, pool_cost, room * columns, 8, 1, 0, &jobs[0].pool_cost) ||
        array_of(&buffers, pool_damage, room * columns, 8, 1, 0, &jobs[0].pool_damage))
        goto done;
    for (int i = 0; i < threads; i++) {
        jobs[i].table = &table;
        jobs[i].start = rows * i / threads;
        jobs[i].stop = rows * (i + 1) / threads;
        jobs[i].low = low, jobs[i].high = high, jobs[i].threshold = threshold, jobs[i].guard = guard;
        jobs[i].columns = jobs[0].columns;
        jobs[i].room = room / threads;
        jobs[i].open = jobs[0].open + room / threads * i;
        jobs[i].pool_cost = jobs[0].pool_cost + room / threads * columns * i;
        jobs[i].pool_damage = jobs[0].pool_damage + room / threads * columns * i;
        jobs[i].totals = calloc(3, sizeof(Total));
        if (jobs[i].totals == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    run_all(columns <= WIDE_COLUMNS ? WIDE_OR_PLAIN(scan_part) : scan_part, jobs, sizeof jobs[0], threads);

    Py_ssize_t most = 0;
    for (int i = 0; i < threads; i++)
        most = jobs[i].opened > most ? jobs[i].opened : most;
    int fits = most <= room / threads;
    needed = fits ? 0 : most * threads;
    for (int i = 1; i < threads; i++) {
        size_t count = fits ? (size_t)jobs[i].opened : 0, bytes = 8 * count * (size_t)columns;
        memmove(jobs[0].pool_cost + jobs[0].opened * columns, jobs[i].pool_cost, bytes);
        memmove(jobs[0].pool_damage + jobs[0].opened * columns, jobs[i].pool_damage, bytes);
        memmove(jobs[0].open + jobs[0].opened, jobs[i].open, sizeof(int64_t) * count);
        jobs[0].opened += jobs[i].opened;
        for (int end = 0; end < 3; end++) {
            jobs[0].totals[end].cost += jobs[i].totals[end].cost;
            bins_merge(&jobs[0].totals[end].damage, &jobs[i].totals[end].damage);
        }
    }
    Py_END_ALLOW_THREADS
    const Total *totals = jobs[0].totals;
    result = Py_BuildValue("(nnNNN)", jobs[0].opened, needed, total_result(&totals[0]), total_result(&totals[1]),
                           total_result(&totals[2]));
done:
    for (int i = 0; i < MOST_THREADS; i++)
        free(jobs[i].totals);
    release(&buffers);
    return result;
}

/* two_best(cost, damage, rows, columns, price, chosen, first, second, own): the least two values of each row, and that of its
   chosen column */
static PyObject *py_two_best(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *cost, *damage, *chosen, *first, *second, *owns;
    Py_ssize_t rows, columns;
    double price, *least, *next, *own;
    const uint16_t *choice;
    if (!PyArg_ParseTuple(args, "OOnndOOOO", &cost, &damage, &rows, &columns, &price, &chosen, &first, &second, &owns))
        return NULL;
    Buffers buffers = {.count = 0};
    Table table;
    if (table_of(&buffers, &table, cost, damage, Py_None, Py_None, Py_None, rows, columns) ||
        array_of(&buffers, chosen, rows, 2, 0, 0, &choice) || array_of(&buffers, first, rows, 8, 1, 0, &least) ||
        array_of(&buffers, second, rows, 8, 1, 0, &next) || array_of(&buffers, owns, rows, 8, 1, 0, &own)) {
        release(&buffers);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++) {
        const int64_t *c = table.cost + row * columns;
        const double *d = table.damage + row * columns;
        int64_t lowest = c[0];
        for (Py_ssize_t k = 1; k < columns; k++)
            lowest = c[k] < lowest ? c[k] : lowest;
        double one = INFINITY, two = INFINITY;
        for (Py_ssize_t k = 0; k < columns; k++) {
            double value = (double)(c[k] - lowest) + price * d[k];
            double larger = value > one ? value : one;
            one = value < one ? value : one;
            two = larger < two ? larger : two;
        }
        least[row] = one;
        next[row] = two;
        own[row] = (double)(c[choice[row]] - lowest) + price * d[choice[row]];
    }
    Py_END_ALLOW_THREADS
    release(&buffers);
    Py_RETURN_NONE;
}

/* ---- divisors ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const int64_t *values, *widths;
    Py_ssize_t columns, start, stop;
    uint64_t found;
} Divisor;

static uint64_t greatest(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Whether g divides u: u times the inverse of g's odd part, its trailing zeros rotated out, is at most (2^64 - 1) / g
   (Warren, Hacker's Delight, section 10-17). */
typedef struct {
    uint64_t inverse, most;
    int zeros;
} Divides;

static Divides divides(uint64_t g)
{
    int zeros = 0;
    uint64_t odd = g;
    while (!(odd & 1)) {
        odd >>= 1;
        zeros++;
    }
    uint64_t inverse = odd; /* correct to 3 bits; each step doubles that */
    for (int i = 0; i < 5; i++)
        inverse *= 2 - odd * inverse;
    return (Divides){inverse, UINT64_MAX / g, zeros};
}

#ifdef HAVE_AVX512
/* From `row` on, the first one with a difference that is not divisible; rows have 2 to 8 columns. */
WIDE static Py_ssize_t divided_rows(const Divisor *d, Divides by, Py_ssize_t row)
{
    const __mmask8 all = (__mmask8)((1u << d->columns) - 1);
    const __m512i inverse = _mm512_set1_epi64((int64_t)by.inverse), most = _mm512_set1_epi64((int64_t)by.most);
    const __m512i zeros = _mm512_set1_epi64(by.zeros);
    for (; row < d->stop; row++) {
        const int64_t *v = d->values + row * d->columns;
        _mm_prefetch((const char *)(v + AHEAD * d->columns), _MM_HINT_T0); /* past the end it is harmless */
        __m512i value = _mm512_maskz_loadu_epi64(all, v);
        __mmask8 inside = d->widths ? (__mmask8)((1u << (d->widths[row] - 1)) - 1) : all >> 1;
        __m512i step = _mm512_abs_epi64(_mm512_sub_epi64(_mm512_alignr_epi64(value, value, 1), value));
        step = _mm512_rorv_epi64(_mm512_mullo_epi64(step, inverse), zeros);
        if (_mm512_mask_cmpgt_epu64_mask(inside, step, most))
            break;
    }
    return row;
}
#endif

ALWAYS_INLINE void divisor_all(Divisor *d, int wide)
{
    Divides by = {0, 0, 0};
    uint64_t g = 0;
    for (Py_ssize_t row = d->start; row < d->stop && g != 1; row++) {
#ifdef HAVE_AVX512
        if (wide && g != 0 && d->columns > 1 && (row = divided_rows(d, by, row)) == d->stop)
            break;
#endif
        const int64_t *v = d->values + row * d->columns;
        Py_ssize_t width = d->widths ? d->widths[row] : d->columns;
        for (Py_ssize_t k = d->columns > 1; k < width; k++) {
            int64_t step = d->columns > 1 ? v[k] - v[k - 1] : v[k];
            uint64_t u = step < 0 ? -(uint64_t)step : (uint64_t)step, t = u * by.inverse;
            if (g != 0) {
                t = by.zeros ? t >> by.zeros | t << (64 - by.zeros) : t;
                if (t <= by.most)
                    continue;
            }
            g = greatest(u, g);
            if (g != 0)
                by = divides(g);
        }
    }
    d->found = g;
}

static void divisor_part(void *job) { divisor_all(job, 0); }

#ifdef HAVE_AVX512
WIDE static void divisor_part_wide(void *job) { divisor_all(job, 1); }
#endif

/* divisor(values, widths, rows, columns, threads): the greatest common divisor of the differences inside rows, or of the
   values where there is one column; 0 where all are 0 */
static PyObject *py_divisor(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *values, *widths;
    Py_ssize_t rows, columns;
    int threads;
    Divisor jobs[MOST_THREADS];
    if (!PyArg_ParseTuple(args, "OOnni", &values, &widths, &rows, &columns, &threads))
        return NULL;
    Buffers b = {.count = 0};
    if (array_of(&b, values, rows * columns, 8, 0, 0, &jobs[0].values) ||
        array_of(&b, widths, rows, 8, 0, 1, &jobs[0].widths)) {
        release(&b);
        return NULL;
    }
    threads = thread_share(threads);
    jobs[0].columns = columns;
    for (int i = 0; i < threads; i++) {
        jobs[i] = jobs[0];
        jobs[i].start = rows * i / threads;
        jobs[i].stop = rows * (i + 1) / threads;
    }
    uint64_t found = 0;
    Py_BEGIN_ALLOW_THREADS
    run_all(columns <= WIDE_COLUMNS ? WIDE_OR_PLAIN(divisor_part) : divisor_part, jobs, sizeof jobs[0], threads);
    for (int i = 0; i < threads; i++)
        found = greatest(found, jobs[i].found);
    Py_END_ALLOW_THREADS
    release(&b);
    return PyLong_FromUnsignedLongLong(found);
}

/* ---- hulls --------------------------------------------------------------------------------------------------------- */

/* Damages are float64, or int64 in a core. */
static inline double fall(const void *damage, int whole, int from, int to, int64_t *exact)
{
    if (whole) {
        *exact = ((const int64_t *)damage)[from] - ((const int64_t *)damage)[to];
        return (double)*exact;
    }
    double value = ((const double *)damage)[from] - ((const double *)damage)[to];
    memcpy(exact, &value, sizeof value);
    return value;
}

static inline int lower(const void *damage, int whole, int a, int b)
{
    return whole ? ((const int64_t *)damage)[a] < ((const int64_t *)damage)[b]
                 : ((const double *)damage)[a] < ((const double *)damage)[b];
}

typedef struct {
    const int64_t *cost;
    const void *damage;
    int whole;
    Py_ssize_t rows, columns, count;
    int64_t *start, *group, *to, *step_cost, *step_damage;
    double *ratio;
    Py_ssize_t *live; /* (K,) */
} Hull;

static inline void hull_step(Hull *h, Py_ssize_t row, int to, int64_t cost, int64_t damage, double ratio)
{
    Py_ssize_t i = h->count++;
    h->group[i] = row, h->to[i] = to, h->step_cost[i] = cost, h->step_damage[i] = damage, h->ratio[i] = ratio;
}

static void hull_plain(Hull *h)
{
    for (Py_ssize_t row = 0; row < h->rows; row++) {
        const int64_t *c = h->cost + row * h->columns;
        const void *d = (const char *)h->damage + row * h->columns * 8;
        int at = 0;
        for (int k = 1; k < h->columns; k++)
            if (c[k] < c[at] || (c[k] == c[at] && lower(d, h->whole, k, at)))
                at = k;
        h->start[row] = at;
        double last = INFINITY;
        Py_ssize_t count = h->columns;
        for (Py_ssize_t k = 0; k < count; k++)
            h->live[k] = k;
        for (;;) {
            int next = -1;
            double best = 0.0;
            int64_t exact, chosen = 0;
            Py_ssize_t left = 0;
            for (Py_ssize_t i = 0; i < count; i++) {
                int k = (int)h->live[i];
                int64_t more = c[k] - c[at];
                double less = fall(d, h->whole, at, k, &exact);
                if (more <= 0 || !(less > 0))
                    continue; /* nor will it be a step from further on */
                h->live[left++] = k;
                double r = less / (double)more;
                /* of equal ratios the least damage, then the least cost: nothing that rounding hides is passed by */
                if (r > best || (r == best && next >= 0 &&
                                 (lower(d, h->whole, k, next) || (!lower(d, h->whole, next, k) && c[k] < c[next])))) {
                    best = r;
                    next = k;
                    chosen = exact;
                }
            }
            if (next < 0)
                break;
            count = left;
            /* rounding must not let a step overtake the one before it */
            last = best < last ? best : last;
            hull_step(h, row, next, c[next] - c[at], chosen, last);
            at = next;
        }
    }
}

#ifdef HAVE_AVX512
/* Whether every column of a row is a step of its hull, and so clearly that no rounding of a ratio can matter: each step is
   less steep than the one before by a millionth of it, and not that much shorter. If so, take all steps at once. */
WIDE static inline int hull_convex(Hull *h, Py_ssize_t row, __m512i cost, __m512i damage)
{
    const __mmask8 steps = (__mmask8)((1u << (h->columns - 1)) - 1), inner = steps >> 1;
    const __m512d share = _mm512_set1_pd(0x1p-20);
    __m512i to = _mm512_alignr_epi64(damage, damage, 1), exact;
    __m512i more = _mm512_sub_epi64(_mm512_alignr_epi64(cost, cost, 1), cost);
    __m512d less;
    if (h->whole) {
        exact = _mm512_sub_epi64(damage, to);
        less = _mm512_cvtepi64_pd(exact);
    } else {
        less = _mm512_sub_pd(_mm512_castsi512_pd(damage), _mm512_castsi512_pd(to));
        exact = _mm512_castpd_si512(less);
    }
    __m512d length = _mm512_cvtepi64_pd(more);
    if (_mm512_mask_cmpgt_epi64_mask(steps, more, _mm512_setzero_si512()) != steps ||
        _mm512_mask_cmp_pd_mask(steps, less, _mm512_set1_pd(1e-290), _CMP_GT_OQ) != steps)
        return 0;
    __m512d ratio = _mm512_maskz_div_pd(steps, less, length);
    __m512d next = _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_setzero_si512(), _mm512_castpd_si512(ratio), 1));
    __m512d after = _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_setzero_si512(), _mm512_castpd_si512(length), 1));
    __m512d flatter = _mm512_sub_pd(ratio, _mm512_mul_pd(ratio, share));
    if (_mm512_mask_cmp_pd_mask(steps, ratio, _mm512_set1_pd(1e-290), _CMP_GT_OQ) != steps ||
        _mm512_mask_cmp_pd_mask(inner, next, flatter, _CMP_LT_OQ) != inner ||
        _mm512_mask_cmp_pd_mask(inner, after, _mm512_mul_pd(length, share), _CMP_GT_OQ) != inner)
        return 0;
    Py_ssize_t i = h->count;
    h->start[row] = 0;
    h->count += h->columns - 1;
    _mm512_mask_storeu_epi64(h->group + i, steps, _mm512_set1_epi64(row));
    _mm512_mask_storeu_epi64(h->to + i, steps, _mm512_setr_epi64(1, 2, 3, 4, 5, 6, 7, 8));
    _mm512_mask_storeu_epi64(h->step_cost + i, steps, more);
    _mm512_mask_storeu_epi64(h->step_damage + i, steps, exact);
    _mm512_mask_storeu_pd(h->ratio + i, steps, ratio);
    return 1;
}

/* Which of some columns do the least damage. */
WIDE static inline __mmask8 least_damaging(__mmask8 some, __m512i damage, int whole)
{
    if (whole)
        return _mm512_mask_cmpeq_epi64_mask(
            some, damage, _mm512_set1_epi64(_mm512_mask_reduce_min_epi64(some, damage)));
    __m512d plain = _mm512_castsi512_pd(damage);
    return _mm512_mask_cmp_pd_mask(some, plain, _mm512_set1_pd(_mm512_mask_reduce_min_pd(some, plain)), _CMP_EQ_OQ);
}

WIDE static void hull_plain_wide(Hull *h)
{
    const __mmask8 all = (__mmask8)((1u << h->columns) - 1);
    const __m512i largest = _mm512_set1_epi64(INT64_MAX), none = _mm512_setzero_si512();
    for (Py_ssize_t row = 0; row < h->rows; row++) {
        __m512i cost = _mm512_mask_loadu_epi64(largest, all, h->cost + row * h->columns);
        __m512i damage = _mm512_maskz_loadu_epi64(all, (const int64_t *)h->damage + row * h->columns);
        if (hull_convex(h, row, cost, damage))
            continue;
        __m512d plain = _mm512_castsi512_pd(damage);
        __mmask8 first = _mm512_mask_cmpeq_epi64_mask(all, cost, _mm512_set1_epi64(_mm512_reduce_min_epi64(cost)));
        if (first & (first - 1)) /* of the cheapest */
            first = least_damaging(first, damage, h->whole);
        int at = __builtin_ctz(first);
        h->start[row] = at;
        double last = INFINITY;
        for (;;) {
            __m512i place = _mm512_set1_epi64(at);
            __m512i more = _mm512_sub_epi64(cost, _mm512_permutexvar_epi64(place, cost)), exact;
            __m512d less;
            if (h->whole) {
                exact = _mm512_sub_epi64(_mm512_permutexvar_epi64(place, damage), damage);
                less = _mm512_cvtepi64_pd(exact);
            } else {
                less = _mm512_sub_pd(_mm512_permutexvar_pd(place, plain), plain);
                exact = _mm512_castpd_si512(less);
            }
            __mmask8 steps = _mm512_mask_cmpgt_epi64_mask(all, more, none);
            steps = _mm512_mask_cmp_pd_mask(steps, less, _mm512_setzero_pd(), _CMP_GT_OQ);
            if (!steps)
                break;
            __m512d ratio = _mm512_maskz_div_pd(steps, less, _mm512_cvtepi64_pd(more));
            double best = _mm512_reduce_max_pd(ratio);
            if (!(best > 0.0))
                break;
            __mmask8 next = _mm512_mask_cmp_pd_mask(steps, ratio, _mm512_set1_pd(best), _CMP_EQ_OQ);
            if (next & (next - 1))
                next = least_damaging(next, damage, h->whole);
            if (next & (next - 1)) /* then the cheapest */
                next = _mm512_mask_cmpeq_epi64_mask(
                    next, cost, _mm512_set1_epi64(_mm512_mask_reduce_min_epi64(next, cost)));
            int64_t costs[8], damages[8];
            _mm512_storeu_si512(costs, more);
            _mm512_storeu_si512(damages, exact);
            at = __builtin_ctz(next);
            last = best < last ? best : last;
            hull_step(h, row, at, costs[at], damages[at], last);
        }
    }
}
#endif

/* hull(cost, damage, whole, rows, columns, start, group, to, step_cost, step_damage, ratio) -> number of steps */
static PyObject *py_hull(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[8];
    Hull h = {.count = 0};
    if (!PyArg_ParseTuple(args, "OOpnnOOOOOO", &o[0], &o[1], &h.whole, &h.rows, &h.columns, &o[2], &o[3], &o[4], &o[5],
                          &o[6], &o[7]))
        return NULL;
    Buffers b = {.count = 0};
    Py_ssize_t entries = h.rows * h.columns, most = h.rows * (h.columns - 1);
    if (array_of(&b, o[0], entries, 8, 0, 0, &h.cost) || array_of(&b, o[1], entries, 8, 0, 0, &h.damage) ||
        array_of(&b, o[2], h.rows, 8, 1, 0, &h.start) || array_of(&b, o[3], most, 8, 1, 0, &h.group) ||
        array_of(&b, o[4], most, 8, 1, 0, &h.to) || array_of(&b, o[5], most, 8, 1, 0, &h.step_cost) ||
        array_of(&b, o[6], most, 8, 1, 0, &h.step_damage) || array_of(&b, o[7], most, 8, 1, 0, &h.ratio)) {
        release(&b);
        return NULL;
    }
    h.live = malloc(sizeof *h.live * (size_t)h.columns);
    if (h.live == NULL) {
        release(&b);
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
    (h.columns <= WIDE_COLUMNS ? WIDE_OR_PLAIN(hull_plain) : hull_plain)(&h);
    Py_END_ALLOW_THREADS
    free(h.live);
    release(&b);
    return PyLong_FromSsize_t(h.count);
}

/* ---- order --------------------------------------------------------------------------------------------------------- */

/* Stable order of non-negative keys, the largest first: least significant digit first, 11 bits at a time; fewer where
   going through all digits would take longer than going through the keys. */
static int descending(const double *keys, int64_t *order, Py_ssize_t count)
{
    size_t n = (size_t)count, width = n < 4096 ? 8 : 11, mask = ((size_t)1 << width) - 1;
    int digits = (int)((64 + width - 1) / width);
    uint64_t *from = malloc(n * 16 + 16), *into = malloc(n * 16 + 16);
    size_t *histogram = calloc((size_t)digits << width, sizeof *histogram);
    int failed = from == NULL || into == NULL || histogram == NULL;
    if (!failed) {
        for (size_t i = 0; i < n; i++) {
            uint64_t bits;
            memcpy(&bits, &keys[i], 8);
            bits = ~bits;
            from[2 * i] = bits;
            from[2 * i + 1] = i;
            for (int d = 0; d < digits; d++)
                histogram[((size_t)d << width) + ((bits >> (size_t)d * width) & mask)]++;
        }
        for (int d = 0; d < digits; d++) {
            size_t *h = histogram + ((size_t)d << width), sum = 0, shift = (size_t)d * width;
            if (n > 0 && h[(from[0] >> shift) & mask] == n)
                continue; /* all keys share this digit */
            for (size_t i = 0; i <= mask; i++) {
                size_t here = h[i];
                h[i] = sum;
                sum += here;
            }
            for (size_t i = 0; i < n; i++) {
                size_t place = h[(from[2 * i] >> shift) & mask]++;
                into[2 * place] = from[2 * i];
                into[2 * place + 1] = from[2 * i + 1];
            }
            uint64_t *swap = from;
            from = into;
            into = swap;
        }
        for (size_t i = 0; i < n; i++)
            order[i] = (int64_t)from[2 * i + 1];
    }
    free(from);
    free(into);
    free(histogram);
    return failed ? -1 : 0;
}

/* The same for many keys: their upper 32 bits are sorted, beside their places, and the few that differ further below are
   inserted. Where those are many after all, return 1: the order is not finished. */
static int descending_many(const double *keys, int64_t *order, Py_ssize_t count)
{
    enum { WIDTH = 11, DIGITS = 3 };
    const size_t n = (size_t)count, mask = ((size_t)1 << WIDTH) - 1;
    uint64_t *from = malloc(n * 8), *into = malloc(n * 8);
    size_t(*histogram)[1 << WIDTH] = calloc(DIGITS, sizeof *histogram);
    int failed = from == NULL || into == NULL || histogram == NULL ? -1 : 0;
    if (!failed) {
        for (size_t i = 0; i < n; i++) {
            uint64_t bits;
            memcpy(&bits, &keys[i], 8);
            from[i] = (~bits << 1 >> 32 << 32) | i; /* the sign is that of all */
            for (int d = 0; d < DIGITS; d++)
                histogram[d][(from[i] >> (32 + d * WIDTH)) & mask]++;
        }
        for (int d = 0; d < DIGITS; d++) {
            size_t *h = histogram[d], sum = 0;
            for (size_t i = 0; i <= mask; i++) {
                size_t here = h[i];
                h[i] = sum;
                sum += here;
            }
            for (size_t i = 0; i < n; i++)
                into[h[(from[i] >> (32 + d * WIDTH)) & mask]++] = from[i];
            uint64_t *swap = from;
            from = into;
            into = swap;
        }
        size_t moves = 0;
        for (size_t i = 0; i < n && moves <= n; i++) {
            const int64_t place = (int64_t)(from[i] & 0xffffffff);
            size_t j = i;
            if (i > 0 && from[i] >> 32 == from[i - 1] >> 32) /* only those can be out of order */
                for (; j > 0 && keys[order[j - 1]] < keys[place] && moves <= n; j--, moves++)
                    order[j] = order[j - 1];
            order[j] = place;
        }
        failed = moves > n;
    }
    free(from);
    free(into);
    free(histogram);
    return failed;
}

/* order(keys, out): what makes non-negative keys fall, stable */
static PyObject *py_order(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *keys, *out;
    const double *key;
    int64_t *order;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "OOn", &keys, &out, &count))
        return NULL;
    Buffers b = {.count = 0};
    int failed = array_of(&b, keys, count, 8, 0, 0, &key) || array_of(&b, out, count, 8, 1, 0, &order);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        failed = 1 << 16 < count && count < (Py_ssize_t)1 << 32 ? descending_many(key, order, count) : 1;
        if (failed > 0)
            failed = descending(key, order, count);
        Py_END_ALLOW_THREADS
        if (failed)
            PyErr_NoMemory();
    }
    release(&b);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- sweep --------------------------------------------------------------------------------------------------------- */

/* sweep(order, cost, damage, steps, first, quantum, least, costs, damages): what all groups cost and damage before each step
   in order and after the last: `first` quanta and what the steps add; `least` and what the steps to come will take off */
static PyObject *py_sweep(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[5];
    Py_ssize_t count;
    long long first;
    double quantum, least;
    if (!PyArg_ParseTuple(args, "OOOnLddOO", &o[0], &o[1], &o[2], &count, &first, &quantum, &least, &o[3], &o[4]))
        return NULL;
    Buffers b = {.count = 0};
    const int64_t *order, *cost;
    const double *damage;
    double *costs, *damages;
    if (array_of(&b, o[0], count, 8, 0, 0, &order) || array_of(&b, o[1], count, 8, 0, 0, &cost) ||
        array_of(&b, o[2], count, 8, 0, 0, &damage) || array_of(&b, o[3], count + 1, 8, 1, 0, &costs) ||
        array_of(&b, o[4], count + 1, 8, 1, 0, &damages)) {
        release(&b);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    int64_t paid = first;
    double left = 0.0;
    for (Py_ssize_t i = 0; i < count; i++) { /* both in one go: the steps lie anywhere */
        costs[i] = (double)paid * quantum;
        paid += cost[order[i]];
        damages[i] = damage[order[i]];
    }
    costs[count] = (double)paid * quantum;
    damages[count] = least;
    for (Py_ssize_t i = count - 1; i >= 0; i--) {
        left += damages[i];
        damages[i] = left + least;
    }
    Py_END_ALLOW_THREADS
    release(&b);
    Py_RETURN_NONE;
}

/* ---- search -------------------------------------------------------------------------------------------------------- */

/* One undominated partial assignment; see _exact_core.py. */
typedef struct {
    int64_t gain, over;
} State;

typedef struct {
    Py_ssize_t count;
    int64_t group;
    int32_t *parent;
    uint16_t *column;
} Stage;

typedef struct {
    const int64_t *gain, *need; /* (n, K), relative to the start */
    const int64_t *start, *rank, *step_group, *step_to, *step_paid, *step_saved, *stage_of; /* (n,), (S,) */
    Py_ssize_t groups, columns, steps;
    int64_t target, origin, lattice, doubt;
    Stage *stages;
    Py_ssize_t done;
    State *states, *spare;
    int32_t *parent;
    uint16_t *column;
    Py_ssize_t count, room;
    int64_t *inside, *saved, *paid; /* what completes the states: hull steps of the undecided groups */
    Py_ssize_t left;
    int64_t best_gain;
    int has_best;
    int64_t *best; /* (n,) */
    int64_t looked, kept;
    double until; /* on the clock of now() */
    int late;
} Search;

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void lower_target(Search *s, int64_t target)
{
    int64_t beyond = s->lattice ? (target - s->origin) % s->lattice : 0;
    s->target = target - (beyond < 0 ? beyond + s->lattice : beyond);
}

static void set_completions(Search *s, int64_t stage)
{
    Py_ssize_t left = 0;
    s->saved[0] = s->paid[0] = 0;
    for (Py_ssize_t i = 0; i < s->steps; i++) {
        if (s->stage_of[s->step_group[i]] <= stage)
            continue;
        s->inside[left] = i;
        s->saved[left + 1] = s->saved[left] + s->step_saved[i];
        s->paid[left + 1] = s->paid[left] + s->step_paid[i];
        left++;
    }
    s->left = left;
}

/* The assignment of a state whose undecided groups take `count` hull steps. */
static void assignment(const Search *s, Py_ssize_t place, Py_ssize_t count, int64_t *columns)
{
    memcpy(columns, s->start, sizeof *columns * (size_t)s->groups);
    for (Py_ssize_t i = 0; i < count; i++)
        columns[s->step_group[s->inside[i]]] = s->step_to[s->inside[i]];
    for (Py_ssize_t i = s->done - 1; i >= 0; i--) {
        columns[s->stages[i].group] = s->stages[i].column[place];
        place = s->stages[i].parent[place];
    }
}

/* Complete every state greedily, and keep the best result. States come with falling need, so one sweep finds all. */
static void complete(Search *s)
{
    int64_t best = INT64_MAX;
    Py_ssize_t place = -1, steps = 0, count = s->left;
    for (Py_ssize_t i = 0; i < s->count; i++) {
        int64_t over = s->states[i].over + s->doubt;
        if (s->saved[s->left] < over)
            continue;
        while (count > 0 && s->saved[count - 1] >= over)
            count--;
        int64_t whole = s->states[i].gain + s->paid[count];
        if (whole < best) {
            best = whole;
            place = i;
            steps = count;
        }
    }
    if (place >= 0 && best <= s->target) {
        s->has_best = 1;
        s->best_gain = best;
        assignment(s, place, steps, s->best);
        lower_target(s, best - 1);
    }
}

/* Drop the states whose linear relaxation cannot reach the target. */
static void prune(Search *s, double margin)
{
    Py_ssize_t left = s->left, count = left, kept = 0;
    double target = (double)s->target;
    Stage *stage = &s->stages[s->done - 1];
    for (Py_ssize_t i = 0; i < s->count; i++) {
        int64_t over = s->states[i].over;
        if (s->saved[left] < over)
            continue;
        while (count > 0 && s->saved[count - 1] >= over)
            count--;
        double gain = (double)s->states[i].gain, extra = 0.0;
        if (count > 0) {
            double paid = (double)s->paid[count - 1], part = (double)(over - s->saved[count - 1]);
            double step_paid = (double)(s->paid[count] - s->paid[count - 1]);
            double step_saved = (double)(s->saved[count] - s->saved[count - 1]);
            extra = paid + part * step_paid / step_saved;
        }
        double bound = gain + extra - margin * (fabs(gain) + (double)s->paid[count]);
        if (bound <= target) {
            s->states[kept] = s->states[i];
            stage->parent[kept] = stage->parent[i];
            stage->column[kept] = stage->column[i];
            kept++;
        }
    }
    s->count = stage->count = kept;
    s->kept += kept;
}

static int ensure(Search *s, Py_ssize_t count)
{
    if (count <= s->room)
        return 0;
    Py_ssize_t room = count + count / 2 + 64;
    State *states = realloc(s->states, sizeof *states * (size_t)room);
    if (states != NULL)
        s->states = states;
    State *spare = realloc(s->spare, sizeof *spare * (size_t)room);
    if (spare != NULL)
        s->spare = spare;
    int32_t *parent = realloc(s->parent, sizeof *parent * (size_t)room);
    if (parent != NULL)
        s->parent = parent;
    uint16_t *column = realloc(s->column, sizeof *column * (size_t)room);
    if (column != NULL)
        s->column = column;
    if (states == NULL || spare == NULL || parent == NULL || column == NULL)
        return -1;
    s->room = room;
    return 0;
}

/* The candidates of a group that no other one beats, by rising gain; the first of equals. */
static int undominated(const int64_t *gain, const int64_t *need, Py_ssize_t columns, int *kept)
{
    int order[MOST_COLUMNS], count = 0;
    for (int k = 0; k < columns; k++) {
        int i = k;
        for (; i > 0 && (gain[k] < gain[order[i - 1]] || (gain[k] == gain[order[i - 1]] && need[k] < need[order[i - 1]]));
             i--)
            order[i] = order[i - 1];
        order[i] = k;
    }
    for (int i = 0; i < columns; i++)
        if (count == 0 || need[order[i]] < need[kept[count - 1]])
            kept[count++] = order[i];
    return count;
}

/* Decide one more group: merge a shifted copy of the states for each candidate, dropping what is dominated. */
static int extend(Search *s, int64_t group)
{
    const int64_t *gain = s->gain + group * s->columns, *need = s->need + group * s->columns;
    int kept[MOST_COLUMNS], lists = undominated(gain, need, s->columns, kept);
    Py_ssize_t head[MOST_COLUMNS] = {0}, count = 0, before = s->count;
    if (ensure(s, before * lists) < 0)
        return -1;
    int64_t lowest = INT64_MAX, merged = 0;
    for (;;) {
        if ((++merged & 0xfffff) == 0 && now() >= s->until) {
            s->late = 1; /* the stage is left unfinished: nothing that it kept is used */
            break;
        }
        int best = -1;
        State least = {0, 0};
        for (int j = 0; j < lists; j++) {
            if (head[j] >= before)
                continue;
            State here = {s->states[head[j]].gain + gain[kept[j]], s->states[head[j]].over + need[kept[j]]};
            if (best < 0 || here.gain < least.gain || (here.gain == least.gain && here.over < least.over)) {
                best = j;
                least = here;
            }
        }
        if (best < 0)
            break;
        if (least.over < lowest) {
            lowest = least.over;
            s->spare[count] = least;
            s->parent[count] = (int32_t)head[best];
            s->column[count++] = (uint16_t)kept[best];
        }
        head[best]++;
    }
    State *swap = s->states;
    s->states = s->spare;
    s->spare = swap;
    s->count = count;
    s->looked += before * lists;
    Stage *stage = &s->stages[s->done];
    stage->group = group;
    stage->count = count;
    stage->parent = malloc(sizeof *stage->parent * (size_t)(count ? count : 1));
    stage->column = malloc(sizeof *stage->column * (size_t)(count ? count : 1));
    s->done++;
    if (stage->parent == NULL || stage->column == NULL)
        return -1;
    memcpy(stage->parent, s->parent, sizeof *stage->parent * (size_t)count);
    memcpy(stage->column, s->column, sizeof *stage->column * (size_t)count);
    return 0;
}

/* Give back what pruning left unused. */
static void shrink(Stage *stage)
{
    size_t count = (size_t)(stage->count ? stage->count : 1);
    int32_t *parent = realloc(stage->parent, sizeof *parent * count);
    uint16_t *column = realloc(stage->column, sizeof *column * count);
    stage->parent = parent != NULL ? parent : stage->parent;
    stage->column = column != NULL ? column : stage->column;
}

enum { COMPLETED, TIME_LIMIT, MEMORY_LIMIT, STATE_LIMIT };

/* search(gain, need, start, rank, stage_of, step_group, step_to, step_paid, step_saved, groups, columns, steps,
          gain of the start, its need beyond the room, target, lattice, doubt, most states, seconds, bytes, bytes a working state,
          bytes a kept state, margin, most doubtful, best)
   -> (stop, has best, best gain, states looked at, [(gain, assignment as bytes), ...]) */
static PyObject *py_search(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[9], *out, *result = NULL, *doubtful = NULL;
    Py_ssize_t most, most_doubtful;
    long long origin, over, target, lattice, doubt;
    double seconds, bytes, working, kept, margin;
    Search s;
    memset(&s, 0, sizeof s);
    if (!PyArg_ParseTuple(args, "OOOOOOOOOnnnLLLLLnddddd" "nO", &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7],
                          &o[8], &s.groups, &s.columns, &s.steps, &origin, &over, &target, &lattice, &doubt, &most,
                          &seconds, &bytes, &working, &kept, &margin, &most_doubtful, &out))
        return NULL;
    if (s.columns > MOST_COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "too many columns");
        return NULL;
    }
    Buffers b = {.count = 0};
    int stop = COMPLETED;
    s.until = now() + seconds;
    if (array_of(&b, o[0], s.groups * s.columns, 8, 0, 0, &s.gain) ||
        array_of(&b, o[1], s.groups * s.columns, 8, 0, 0, &s.need) || array_of(&b, o[2], s.groups, 8, 0, 0, &s.start) ||
        array_of(&b, o[3], s.groups, 8, 0, 0, &s.rank) || array_of(&b, o[4], s.groups, 8, 0, 0, &s.stage_of) ||
        array_of(&b, o[5], s.steps, 8, 0, 0, &s.step_group) || array_of(&b, o[6], s.steps, 8, 0, 0, &s.step_to) ||
        array_of(&b, o[7], s.steps, 8, 0, 0, &s.step_paid) || array_of(&b, o[8], s.steps, 8, 0, 0, &s.step_saved) ||
        array_of(&b, out, s.groups, 8, 1, 0, &s.best))
        goto done;
    s.origin = origin, s.lattice = lattice, s.doubt = doubt;
    lower_target(&s, target);
    s.stages = calloc((size_t)s.groups + 1, sizeof *s.stages);
    s.inside = malloc(sizeof(int64_t) * (size_t)(s.steps + 1));
    s.saved = malloc(sizeof(int64_t) * (size_t)(s.steps + 1));
    s.paid = malloc(sizeof(int64_t) * (size_t)(s.steps + 1));
    if (s.stages == NULL || s.inside == NULL || s.saved == NULL || s.paid == NULL || ensure(&s, 64) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    s.states[0] = (State){origin, over};
    s.count = 1;
    set_completions(&s, -1);
    complete(&s);
    for (Py_ssize_t stage = 0; stage < s.groups && s.count > 0 && stop == COMPLETED; stage++) {
        set_completions(&s, stage);
        if (bytes < INFINITY) {
            int columns[MOST_COLUMNS];
            int64_t place = s.rank[stage] * s.columns;
            double ahead = (double)undominated(s.gain + place, s.need + place, s.columns, columns) * (double)s.count;
            if (working * ahead + kept * (double)s.kept > bytes) {
                stop = MEMORY_LIMIT;
                break;
            }
        }
        if (s.count > INT32_MAX / MOST_COLUMNS || extend(&s, s.rank[stage]) < 0) {
            PyErr_NoMemory();
            goto done;
        }
        if (!s.late)
            complete(&s);
        prune(&s, margin);
        shrink(&s.stages[s.done - 1]);
        if (PyErr_CheckSignals() < 0)
            goto done;
        if (s.count == 0 && !s.late)
            break;
        if (s.count > most)
            stop = STATE_LIMIT;
        else if (s.late || now() >= s.until)
            stop = TIME_LIMIT;
    }
    doubtful = PyList_New(0);
    if (doubtful == NULL)
        goto done;
    if (stop == COMPLETED && s.count > 0) {
        int64_t *columns = malloc(sizeof *columns * (size_t)s.groups);
        if (columns == NULL) {
            PyErr_NoMemory();
            goto done;
        }
        for (Py_ssize_t i = 0; i < s.count; i++) {
            if (s.states[i].gain > s.target || s.states[i].over > 0)
                continue;
            if (PyList_GET_SIZE(doubtful) >= most_doubtful) {
                stop = STATE_LIMIT;
                break;
            }
            assignment(&s, i, 0, columns);
            PyObject *pair = Py_BuildValue("(Ly#)", (long long)s.states[i].gain, (char *)columns,
                                           (Py_ssize_t)sizeof *columns * s.groups);
            int failed = pair == NULL || PyList_Append(doubtful, pair) < 0;
            Py_XDECREF(pair);
            if (failed) {
                free(columns);
                goto done;
            }
        }
        free(columns);
    }
    result = Py_BuildValue("(iiLLO)", stop, s.has_best, (long long)s.best_gain, (long long)s.looked, doubtful);
done:
    Py_XDECREF(doubtful);
    for (Py_ssize_t i = 0; s.stages != NULL && i < s.done; i++) {
        free(s.stages[i].parent);
        free(s.stages[i].column);
    }
    free(s.stages);
    free(s.inside);
    free(s.saved);
    free(s.paid);
    free(s.states);
    free(s.spare);
    free(s.parent);
    free(s.column);
    release(&b);
    return result;
}

static PyMethodDef methods[] = {
    {"scan", py_scan, METH_VARARGS, "Settle groups that a bracket of multipliers cannot change."},
    {"two_best", py_two_best, METH_VARARGS, "The two least values of each group at a multiplier."},
    {"divisor", py_divisor, METH_VARARGS, "The greatest common divisor of differences inside groups."},
    {"hull", py_hull, METH_VARARGS, "The steps of the groups' lower convex hulls."},
    {"order", py_order, METH_VARARGS, "The stable order of falling keys."},
    {"sweep", py_sweep, METH_VARARGS, "What steps in some order cost up to each, and save from each on."},
    {"search", py_search, METH_VARARGS, "Dynamic programming over a core."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "Inner loops of the exact strategy.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return create_module(&module); }
