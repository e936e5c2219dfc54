/* The exact strategy's inner loops. Each does what the NumPy code beside its caller does, with the same answers bit for
   bit: float64 operations in the same order (no fused multiply-add: built with -ffp-contract=off), sums in integers. */

#include "_hulls.h"

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

/* Copy a row out; columns past its width repeat the last at a prohibitive cost. */
static inline void copy_row(const Table *t, Py_ssize_t row, int64_t *cost, double *damage)
{
    Py_ssize_t columns = t->columns, width = t->widths ? t->widths[row] : columns;
    for (Py_ssize_t k = 0; k < columns; k++) {
        int past = k >= width;
        cost[k] = cost_at(t, row, past ? width - 1 : k) + (past ? PROHIBITIVE : 0);
        damage[k] = damage_at(t, row, past ? width - 1 : k);
    }
}

/* Copy out an open row. */
static inline void scan_keep(Scan *s, Py_ssize_t row, int64_t best_low, int64_t best_high)
{
    const Table *t = s->table;
    total_add(&s->totals[1], t, row, best_low);
    total_add(&s->totals[2], t, row, best_high);
    if (s->opened < s->room) {
        copy_row(t, row, s->pool_cost + s->opened * t->columns, s->pool_damage + s->opened * t->columns);
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
/* Scan whole eights of rows from `row` on; return where they end. A row is open where its best candidates at the two ends
   differ, or where the second best of either end comes close. `full`: all rows have eight columns. */
WIDE ALWAYS_INLINE Py_ssize_t scan_rows_of(Scan *s, Py_ssize_t row, Py_ssize_t stop, double *chosen, const int full)
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
            if (!full) {
                at_high[k] = _mm512_mask_blend_pd(in[k], infinite, at_high[k]);
                at_low[k] = _mm512_mask_blend_pd(in[k], infinite, at_low[k]);
            }
        }
        __m512d least_low = at_low[0], least_high = at_high[0], best_damage = damage[0];
        __m512d second_low = infinite, second_high = infinite;
        __m512i best = _mm512_setzero_si512(), best_high = best, best_cost = cost[0];
        UNROLLED for (int k = 1; k < 8; k++) {
            const __m512i number = _mm512_set1_epi64(k);
            __mmask8 lower = _mm512_cmp_pd_mask(at_low[k], least_low, _CMP_LT_OQ);
            __mmask8 lower_high = _mm512_cmp_pd_mask(at_high[k], least_high, _CMP_LT_OQ);
            second_low = _mm512_min_pd(second_low, _mm512_max_pd(at_low[k], least_low));
            second_high = _mm512_min_pd(second_high, _mm512_max_pd(at_high[k], least_high));
            least_low = _mm512_min_pd(at_low[k], least_low);
            least_high = _mm512_min_pd(at_high[k], least_high);
            best = _mm512_mask_mov_epi64(best, lower, number);
            best_high = _mm512_mask_mov_epi64(best_high, lower_high, number);
            best_cost = _mm512_mask_mov_epi64(best_cost, lower, cost[k]);
            best_damage = _mm512_mask_mov_pd(best_damage, lower, damage[k]);
        }
        __m512d below_low = _mm512_add_pd(least_low, threshold), below_high = _mm512_add_pd(least_high, threshold);
        __mmask8 closed = _mm512_cmp_pd_mask(_mm512_mul_pd(second_low, guard), below_low, _CMP_GT_OQ);
        closed = _mm512_mask_cmp_pd_mask(closed, _mm512_mul_pd(second_high, guard), below_high, _CMP_GT_OQ);
        closed = _mm512_mask_cmpeq_epi64_mask(closed, best, best_high);
        if (!full) /* a column that is not there is infinite, and so may be what there is */
            closed |= (__mmask8)~in[1];
        unsigned open = (unsigned)(__mmask8)~closed;
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

WIDE static Py_ssize_t scan_rows(Scan *s, Py_ssize_t row, Py_ssize_t stop, double *chosen)
{
    return s->table->columns == 8 && s->table->widths == NULL ? scan_rows_of(s, row, stop, chosen, 1)
                                                              : scan_rows_of(s, row, stop, chosen, 0);
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

/* ---- gather --------------------------------------------------------------------------------------------------------- */

/* gather(cost, damage, levels, scales, widths, rows, columns, places, count, cost out, damage out): copy some rows out */
static PyObject *py_gather(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[5], *places, *costs, *damages;
    Py_ssize_t rows, columns, count;
    const int64_t *place;
    int64_t *cost;
    double *damage;
    if (!PyArg_ParseTuple(args, "OOOOOnnOnOO", &o[0], &o[1], &o[2], &o[3], &o[4], &rows, &columns, &places, &count, &costs,
                          &damages))
        return NULL;
    Buffers b = {.count = 0};
    Table table;
    if (table_of(&b, &table, o[0], o[1], o[2], o[3], o[4], rows, columns) ||
        array_of(&b, places, count, 8, 0, 0, &place) || array_of(&b, costs, count * columns, 8, 1, 0, &cost) ||
        array_of(&b, damages, count * columns, 8, 1, 0, &damage)) {
        release(&b);
        return NULL;
    }
    int outside = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        outside |= place[i] < 0 || place[i] >= rows;
    const Py_ssize_t step = table.levels ? 1 : columns, ahead = 16; /* the rows lie anywhere */
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count && !outside; i++) {
        if (i + ahead < count) {
            PREFETCH(table.cost + place[i + ahead] * step);
            PREFETCH(table.damage + place[i + ahead] * step);
        }
        copy_row(&table, place[i], cost + i * columns, damage + i * columns);
    }
    Py_END_ALLOW_THREADS
    release(&b);
    if (outside) {
        PyErr_SetString(PyExc_IndexError, "a row is not in the table");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- second choices ------------------------------------------------------------------------------------------------- */

typedef struct {
    Table table;
    Py_ssize_t rows;
    double price, guard;
    const uint16_t *chosen;
    double *first, *behind, *own;
    Total chosen_total;
} Seconds;

static inline void seconds_keep(Seconds *s, Py_ssize_t row, double one, double two, double own)
{
    double behind = two * s->guard - one;
    total_add(&s->chosen_total, &s->table, row, s->chosen[row] < s->table.columns ? s->chosen[row] : 0);
    s->first[row] = one;
    s->behind[row] = own * s->guard > one || behind != behind ? -1.0 : behind;
    s->own[row] = own;
}

static void seconds_from(Seconds *s, Py_ssize_t row)
{
    const Py_ssize_t columns = s->table.columns;
    for (; row < s->rows; row++) {
        const int64_t *c = s->table.cost + row * columns;
        const double *d = s->table.damage + row * columns;
        int64_t lowest = c[0];
        for (Py_ssize_t k = 1; k < columns; k++)
            lowest = c[k] < lowest ? c[k] : lowest;
        double one = INFINITY, two = INFINITY;
        for (Py_ssize_t k = 0; k < columns; k++) {
            double value = (double)(c[k] - lowest) + s->price * d[k];
            double larger = value > one ? value : one;
            one = value < one ? value : one;
            two = larger < two ? larger : two;
        }
        Py_ssize_t k = s->chosen[row] < columns ? s->chosen[row] : 0;
        seconds_keep(s, row, one, two, (double)(c[k] - lowest) + s->price * d[k]);
    }
}

static void seconds(Seconds *s) { seconds_from(s, 0); }

#ifdef HAVE_AVX512
WIDE static void seconds_wide(Seconds *s)
{
    const __m512d price = _mm512_set1_pd(s->price), infinite = _mm512_set1_pd(INFINITY);
    Py_ssize_t row = 0;
    for (; row + 8 <= s->rows; row += 8) {
        __m512i cost[8], chosen = _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(s->chosen + row)));
        __m512d damage[8], excess[8], one = infinite, two = infinite, own = infinite;
        __mmask8 in[8];
        load_rows(&s->table, row, cost, damage, in);
        excesses(cost, in, excess);
        UNROLLED for (int k = 0; k < 8; k++) {
            __m512d value = _mm512_add_pd(excess[k], _mm512_mul_pd(price, damage[k]));
            __m512d larger = _mm512_max_pd(value, one);
            one = _mm512_mask_min_pd(one, in[k], value, one);
            two = _mm512_mask_min_pd(two, in[k], larger, two);
            __mmask8 here = _mm512_mask_cmpeq_epi64_mask(in[k], chosen, _mm512_set1_epi64(k));
            own = _mm512_mask_mov_pd(own, here, value);
        }
        double ones[8], twos[8], owns[8];
        _mm512_storeu_pd(ones, one);
        _mm512_storeu_pd(twos, two);
        _mm512_storeu_pd(owns, own);
        for (int i = 0; i < 8; i++)
            seconds_keep(s, row + i, ones[i], twos[i], owns[i]);
    }
    seconds_from(s, row);
}
#endif

/* seconds(cost, damage, rows, columns, price, guard, chosen, first, behind, own) -> total of the chosen columns
   The least value of each row, by how much the second least is more, and the value of its chosen column. */
static PyObject *py_seconds(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *cost, *damage, *chosen, *first, *behind, *own;
    Py_ssize_t columns;
    Seconds s;
    memset(&s, 0, sizeof s);
    if (!PyArg_ParseTuple(args, "OOnnddOOOO", &cost, &damage, &s.rows, &columns, &s.price, &s.guard, &chosen, &first, &behind,
                          &own))
        return NULL;
    Buffers b = {.count = 0};
    if (table_of(&b, &s.table, cost, damage, Py_None, Py_None, Py_None, s.rows, columns) ||
        array_of(&b, chosen, s.rows, 2, 0, 0, &s.chosen) || array_of(&b, first, s.rows, 8, 1, 0, &s.first) ||
        array_of(&b, behind, s.rows, 8, 1, 0, &s.behind) || array_of(&b, own, s.rows, 8, 1, 0, &s.own)) {
        release(&b);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    (columns <= WIDE_COLUMNS ? WIDE_OR_PLAIN(seconds) : seconds)(&s);
    Py_END_ALLOW_THREADS
    release(&b);
    return total_result(&s.chosen_total);
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

/* hull(cost, damage, whole, rows, columns, start, group, to, step_cost, step_damage, ratio, scratch or None)
   -> number of steps; sorted where there is scratch memory for it */
static PyObject *py_hull(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[9];
    int64_t *scratch;
    int failed;
    Hull h = {.count = 0};
    if (!PyArg_ParseTuple(args, "OOpnnOOOOOOO", &o[0], &o[1], &h.whole, &h.rows, &h.columns, &o[2], &o[3], &o[4], &o[5],
                          &o[6], &o[7], &o[8]))
        return NULL;
    Buffers b = {.count = 0};
    Py_ssize_t entries = h.rows * h.columns, most = h.rows * (h.columns - 1);
    if (array_of(&b, o[0], entries, 8, 0, 0, &h.cost) || array_of(&b, o[1], entries, 8, 0, 0, &h.damage) ||
        array_of(&b, o[2], h.rows, 8, 1, 0, &h.start) || array_of(&b, o[3], most, 8, 1, 0, &h.group) ||
        array_of(&b, o[4], most, 8, 1, 0, &h.to) || array_of(&b, o[5], most, 8, 1, 0, &h.step_cost) ||
        array_of(&b, o[6], most, 8, 1, 0, &h.step_damage) || array_of(&b, o[7], most, 8, 1, 0, &h.ratio) ||
        array_of(&b, o[8], 3 * most, 8, 1, 1, &scratch)) {
        release(&b);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    failed = find_hulls(&h, scratch);
    Py_END_ALLOW_THREADS
    release(&b);
    return failed ? PyErr_NoMemory() : PyLong_FromSsize_t(h.count);
}

/* order(keys, out, count, scratch, threads): what makes non-negative keys fall, stable; scratch (2 count,) */
static PyObject *py_order(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *keys, *out, *spare;
    const double *key;
    int64_t *order, *scratch;
    Py_ssize_t count;
    int threads;
    if (!PyArg_ParseTuple(args, "OOnOi", &keys, &out, &count, &spare, &threads))
        return NULL;
    Buffers b = {.count = 0};
    int failed = array_of(&b, keys, count, 8, 0, 0, &key) || array_of(&b, out, count, 8, 1, 0, &order) ||
                 array_of(&b, spare, 2 * count, 8, 1, 0, &scratch);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        failed = order_falling(key, order, count, scratch, threads);
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
        if (i + 16 < count) {
            PREFETCH(cost + order[i + 16]);
            PREFETCH(damage + order[i + 16]);
        }
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

static PyMethodDef methods[] = {
    {"scan", py_scan, METH_VARARGS, "Settle groups that a bracket of multipliers cannot change."},
    {"gather", py_gather, METH_VARARGS, "Copy rows out."},
    {"seconds", py_seconds, METH_VARARGS, "By how much second choices are behind at a multiplier."},
    {"divisor", py_divisor, METH_VARARGS, "The greatest common divisor of differences inside groups."},
    {"hull", py_hull, METH_VARARGS, "The steps of the groups' lower convex hulls."},
    {"order", py_order, METH_VARARGS, "The stable order of falling keys."},
    {"sweep", py_sweep, METH_VARARGS, "What steps in some order cost up to each, and save from each on."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "Passes over the tables.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return create_module(&module); }
