/* Rows of cost and damage tables, one at a time or eight at once in vector registers. */
#ifndef IMPQ_OPT_TABLES_H
#define IMPQ_OPT_TABLES_H

#include "_sums.h"

#include <math.h>

/* Rows whose chosen damages are summed together. */
#define BLOCK_ROWS 512

/* Full tables, or for rank one (left[g] * right[k]) vectors. */
typedef struct {
    const int64_t *cost;    /* (n, K), or left (n,) */
    const double *damage;   /* (n, K), or left (n,) */
    const int64_t *levels;  /* right (K,), or NULL */
    const double *scales;   /* right (K,), or NULL */
    const int64_t *widths;  /* (n,), or NULL */
    Py_ssize_t columns;
} Table;

static inline int64_t cost_at(const Table *t, Py_ssize_t row, int64_t k)
{
    return t->levels ? t->cost[row] * t->levels[k] : t->cost[row * t->columns + k];
}

static inline double damage_at(const Table *t, Py_ssize_t row, int64_t k)
{
    return t->levels ? t->damage[row] * t->scales[k] : t->damage[row * t->columns + k];
}

/* Copy a row out, and return its width. */
static inline int load_row(const Table *t, Py_ssize_t row, int64_t *cost, double *damage)
{
    int width = (int)(t->widths ? t->widths[row] : t->columns);
    for (int k = 0; k < width; k++) {
        cost[k] = cost_at(t, row, k);
        damage[k] = damage_at(t, row, k);
    }
    return width;
}

/* Rows of up to this width go eight at a time. */
#define WIDE_COLUMNS 8

#ifdef __GNUC__
#define PREFETCH(place) __builtin_prefetch(place)
#else
#define PREFETCH(place) ((void)0)
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_AVX512 1
#define WIDE __attribute__((target("avx512f,avx512dq,avx512vl")))
#define UNROLLED _Pragma("GCC unroll 8")
/* Rows between a prefetch and its use: what happens to a row is too long for the processor to look that far ahead. */
#define AHEAD 48

#define WIDE_OR_PLAIN(work) (has_wide() ? work##_wide : work)

static inline int has_wide(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Rows become columns. */
WIDE static inline void transpose(__m512i r[8])
{
    __m512i a[8], b[8];
    UNROLLED for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    UNROLLED for (int i = 0; i < 8; i += 4) {
        UNROLLED for (int j = 0; j < 2; j++) {
            b[i + j] = _mm512_shuffle_i64x2(a[i + j], a[i + 2 + j], 0x88);
            b[i + 2 + j] = _mm512_shuffle_i64x2(a[i + j], a[i + 2 + j], 0xdd);
        }
    }
    UNROLLED for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i64x2(b[i], b[i + 4], 0x88);
        r[i + 4] = _mm512_shuffle_i64x2(b[i], b[i + 4], 0xdd);
    }
}

/* Load eight rows: cost[k] and damage[k] hold column k of all of them. in[k]: rows that have this column. */
WIDE static inline void load_rows(const Table *t, Py_ssize_t row, __m512i cost[8], __m512d damage[8], __mmask8 in[8])
{
    UNROLLED for (int k = 0; k < 8; k++)
        in[k] = k < t->columns ? 0xff : 0;
    if (t->levels) {
        __m512i left = _mm512_loadu_si512(t->cost + row);
        __m512d scale = _mm512_loadu_pd(t->damage + row);
        UNROLLED for (int k = 0; k < 8; k++) {
            int at = k < t->columns ? k : 0;
            cost[k] = _mm512_mullo_epi64(left, _mm512_set1_epi64(t->levels[at]));
            damage[k] = _mm512_mul_pd(scale, _mm512_set1_pd(t->scales[at]));
        }
    } else {
        __mmask8 all = (__mmask8)((1u << t->columns) - 1);
        __m512i rows[8];
        UNROLLED for (int i = 0; i < 8; i++) {
            /* A prefetch past the end is harmless. */
            _mm_prefetch((const char *)(t->cost + (row + i + AHEAD) * t->columns), _MM_HINT_T0);
            _mm_prefetch((const char *)(t->damage + (row + i + AHEAD) * t->columns), _MM_HINT_T0);
            cost[i] = _mm512_maskz_loadu_epi64(all, t->cost + (row + i) * t->columns);
            rows[i] = _mm512_castpd_si512(_mm512_maskz_loadu_pd(all, t->damage + (row + i) * t->columns));
        }
        transpose(cost);
        transpose(rows);
        UNROLLED for (int k = 0; k < 8; k++)
            damage[k] = _mm512_castsi512_pd(rows[k]);
    }
    if (t->widths) {
        __m512i width = _mm512_loadu_si512(t->widths + row);
        UNROLLED for (int k = 0; k < 8; k++)
            in[k] = _mm512_cmpgt_epi64_mask(width, _mm512_set1_epi64(k));
    }
}

/* Sums of halves of costs, which cannot overflow. */
typedef struct {
    __m512i low, high;
} Halves;

WIDE static inline void halves_add(Halves *sum, __m512i cost)
{
    sum->low = _mm512_add_epi64(sum->low, _mm512_and_si512(cost, _mm512_set1_epi64(0xffffffff)));
    sum->high = _mm512_add_epi64(sum->high, _mm512_srai_epi64(cost, 32));
}

WIDE static inline __int128 halves_total(const Halves *sum)
{
    return (__int128)_mm512_reduce_add_epi64(sum->high) * ((__int128)1 << 32) + _mm512_reduce_add_epi64(sum->low);
}

/* The least cost of each row, and the costs above it as float64. */
WIDE static inline __m512i excesses(const __m512i cost[8], const __mmask8 in[8], __m512d excess[8])
{
    __m512i least = cost[0]; /* every row has a first column */
    UNROLLED for (int k = 1; k < 8; k++)
        least = _mm512_mask_min_epi64(least, in[k], least, cost[k]);
    UNROLLED for (int k = 0; k < 8; k++)
        excess[k] = _mm512_cvtepi64_pd(_mm512_sub_epi64(cost[k], least));
    return least;
}
#else
#define WIDE_OR_PLAIN(work) (work)
#endif

#endif
