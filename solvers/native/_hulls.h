/* Lower convex hulls of groups, and the order of falling ratios. */
#ifndef IMPQ_OPT_HULLS_H
#define IMPQ_OPT_HULLS_H

#include "../../impq_opt/exactness/_tables.h"

#include <stdlib.h>

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

/* Stable order of non-negative keys, the largest first; -1 without memory. Least significant digit first, 11 bits at a time;
   fewer where going through all digits would take longer than going through the keys. */
static int order_by_all_bits(const double *keys, int64_t *order, size_t n)
{
    enum { FEW = 128 };
    size_t width = n < 4096 ? 8 : 11, mask = ((size_t)1 << width) - 1, digits = (64 + width - 1) / width;
    uint64_t few[4 * FEW], *memory = n <= FEW ? few : malloc(n * 32), *from = memory, *into = memory + 2 * n;
    size_t *histogram = calloc(digits << width, sizeof *histogram);
    int failed = memory == NULL || histogram == NULL;
    if (!failed) {
        for (size_t i = 0; i < n; i++) {
            uint64_t bits;
            memcpy(&bits, &keys[i], 8);
            bits = ~bits;
            from[2 * i] = bits;
            from[2 * i + 1] = i;
            for (size_t d = 0; d < digits; d++)
                histogram[(d << width) + ((bits >> d * width) & mask)]++;
        }
        for (size_t d = 0; d < digits; d++) {
            size_t *h = histogram + (d << width), sum = 0, shift = d * width;
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
    if (memory != few)
        free(memory);
    free(histogram);
    return failed ? -1 : 0;
}

/* One thread's stretch of keys that are sorted by their upper 32 bits. */
typedef struct {
    const double *keys;
    uint64_t *from, *into; /* (n,) upper bits and places */
    int64_t *order;
    size_t start, stop, moves, most_moves;
    int shift;
    size_t mask;
    uint32_t histogram[1 << 11]; /* of the digit; then where the next key of each goes */
} Stretch;

static void stretch_count(void *job)
{
    Stretch *s = job;
    memset(s->histogram, 0, sizeof *s->histogram * (s->mask + 1));
    for (size_t i = s->start; i < s->stop; i++)
        s->histogram[(s->from[i] >> s->shift) & s->mask]++;
}

static void stretch_fill(void *job)
{
    Stretch *s = job;
    for (size_t i = s->start; i < s->stop; i++) {
        uint64_t bits;
        memcpy(&bits, &s->keys[i], 8);
        s->from[i] = (~bits << 1 >> 32 << 32) | i; /* the sign is that of all */
    }
    stretch_count(job);
}

static void stretch_scatter(void *job)
{
    Stretch *s = job;
    for (size_t i = s->start; i < s->stop; i++)
        s->into[s->histogram[(s->from[i] >> s->shift) & s->mask]++] = s->from[i];
}

/* Insert the keys whose upper halves are equal by their lower ones; a stretch begins and ends between such. */
static void stretch_insert(void *job)
{
    Stretch *s = job;
    for (size_t i = s->start; i < s->stop && s->moves <= s->most_moves; i++) {
        const int64_t place = (int64_t)(s->from[i] & 0xffffffff);
        size_t j = i;
        if (i > s->start && s->from[i] >> 32 == s->from[i - 1] >> 32)
            for (; j > s->start && s->keys[s->order[j - 1]] < s->keys[place] && s->moves <= s->most_moves; j--, s->moves++)
                s->order[j] = s->order[j - 1];
        s->order[j] = place;
    }
}

/* The same for up to 2**32 keys: their upper 32 bits are sorted, beside their places, and the few that differ further below
   are inserted. Where those are many after all, return 1: the order is not finished. `scratch` (2 n,) is overwritten. */
static int order_by_upper_bits(const double *keys, int64_t *order, size_t n, int64_t *scratch, int threads)
{
    const int width = n < 2048 ? 8 : 11, digits = (32 + width - 1) / width;
    uint64_t *from = (uint64_t *)scratch, *into = from + n;
    Stretch few[1], *parts = threads > 1 ? malloc(sizeof *parts * (size_t)threads) : few;
    if (parts == NULL) {
        parts = few;
        threads = 1;
    }
    for (int t = 0; t < threads; t++) {
        parts[t].keys = keys, parts[t].order = order;
        parts[t].start = n * (size_t)t / (size_t)threads, parts[t].stop = n * (size_t)(t + 1) / (size_t)threads;
        parts[t].mask = ((size_t)1 << width) - 1;
    }
    for (int d = 0; d < digits; d++) {
        for (int t = 0; t < threads; t++)
            parts[t].from = from, parts[t].into = into, parts[t].shift = 32 + d * width;
        run_all(d == 0 ? stretch_fill : stretch_count, parts, sizeof *parts, threads);
        uint32_t sum = 0;
        for (size_t i = 0; i <= parts[0].mask; i++)
            for (int t = 0; t < threads; t++) {
                uint32_t here = parts[t].histogram[i];
                parts[t].histogram[i] = sum;
                sum += here;
            }
        run_all(stretch_scatter, parts, sizeof *parts, threads);
        uint64_t *swap = from;
        from = into;
        into = swap;
    }
    size_t start = 0;
    for (int t = 0; t < threads; t++) {
        size_t stop = parts[t].stop > start ? parts[t].stop : start;
        while (stop > 0 && stop < n && from[stop] >> 32 == from[stop - 1] >> 32)
            stop++;
        parts[t].from = from, parts[t].moves = 0, parts[t].most_moves = n / (size_t)threads;
        parts[t].start = start, parts[t].stop = start = stop;
    }
    run_all(stretch_insert, parts, sizeof *parts, threads);
    int unfinished = 0;
    for (int t = 0; t < threads; t++)
        unfinished |= parts[t].moves > parts[t].most_moves;
    if (parts != few)
        free(parts);
    return unfinished;
}

/* The stable order of non-negative keys, the largest first; -1 without memory. `scratch` (2 n,) is overwritten. */
static inline int order_falling(const double *keys, int64_t *order, Py_ssize_t count, int64_t *scratch, int threads)
{
    size_t n = (size_t)count;
    int failed = n >> 7 && !(n >> 32) ? order_by_upper_bits(keys, order, n, scratch, thread_share(threads)) : 1;
    return failed ? order_by_all_bits(keys, order, n) : 0;
}

/* Find the steps of all hulls, group after group; with `scratch`, three entries for each possible step, by falling ratio.
   Return -1 without memory. */
static inline int find_hulls(Hull *h, int64_t *scratch)
{
    h->count = 0;
    h->live = malloc(sizeof *h->live * (size_t)h->columns);
    if (h->live == NULL)
        return -1;
    (h->columns <= WIDE_COLUMNS ? WIDE_OR_PLAIN(hull_plain) : hull_plain)(h);
    free(h->live);
    if (scratch == NULL)
        return 0;
    int64_t *order = scratch, *moved = scratch + h->count;
    if (order_falling(h->ratio, order, h->count, moved, 1) < 0)
        return -1;
    void *arrays[] = {h->group, h->to, h->step_cost, h->step_damage, h->ratio};
    for (int i = 0; i < 5; i++) { /* all of 8 bytes */
        const char *from = arrays[i];
        for (Py_ssize_t j = 0; j < h->count; j++)
            memcpy(&moved[j], from + 8 * order[j], 8);
        memcpy(arrays[i], moved, 8 * (size_t)h->count);
    }
    return 0;
}

#endif
