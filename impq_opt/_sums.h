/* Exact sums of float64: mantissas are added per exponent in integers, so the order of terms does not matter. */
#ifndef IMPQ_OPT_SUMS_H
#define IMPQ_OPT_SUMS_H

#include "_module.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXPONENTS 2047
/* 2^30 terms add up below 2^62 in each half. */
#define MOST_TERMS ((Py_ssize_t)1 << 30)

typedef struct {
    int64_t low[EXPONENTS];  /* sums of the lower 32 bits of mantissas, by biased exponent */
    int64_t high[EXPONENTS]; /* sums of the upper 21 bits */
} Bins;

static inline void bins_add(Bins *bins, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned exponent = (unsigned)(bits >> 52) & 0x7ff;
    uint64_t mantissa = (bits & 0xfffffffffffffULL) | ((uint64_t)(exponent != 0) << 52);
    int64_t low = (int64_t)(mantissa & 0xffffffffULL), high = (int64_t)(mantissa >> 32);
    if (bits >> 63) {
        low = -low;
        high = -high;
    }
    bins->low[exponent] += low;
    bins->high[exponent] += high;
}

#define LANES 8
#define CUTS 3
#define CUT_BITS 46
#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef double Lanes __attribute__((vector_size(8 * LANES)));
typedef int64_t Bits __attribute__((vector_size(8 * LANES)));

/* Cut a number off each of the values at the place of `cut`, and return it. */
#define CUT_OFF(rest, cut, part) ((part) = (rest) + (cut) - (cut), (rest) -= (part), (part))

/* Add up to 1024 values, several at a time. Adding and taking off a large number cuts values off at one place for all
   (Demmel & Nguyen 2015); such numbers of 46 bits add up in float64 without rounding. What is left of a value after
   three cuts goes to the bins by itself. */
ALWAYS_INLINE void bins_add_block(Bins *bins, const double *values, int count)
{
    int whole = count - count % LANES, exponent = 0;
    Bits largest = {0}, left = {0};
    for (int i = 0; i < whole; i += LANES) {
        Bits size;
        memcpy(&size, values + i, sizeof size);
        size &= INT64_MAX;
        Bits larger = size > largest;
        largest = (size & larger) | (largest & ~larger);
    }
    for (int j = 0; j < LANES; j++) {
        double size;
        int64_t bits = largest[j];
        memcpy(&size, &bits, sizeof size);
        int own;
        frexp(size, &own);
        exponent = j == 0 || own > exponent ? own : exponent;
    }
    if (FLT_EVAL_METHOD != 0 || exponent > 900 || exponent < -800)
        whole = 0; /* extended precision, or cuts out of range */
    Lanes sums[CUTS] = {{0}};
    double cut[CUTS];
    for (int level = 0; level < CUTS; level++)
        cut[level] = ldexp(1.5, exponent - CUT_BITS * (level + 1) + 52);
    for (int i = 0; i < whole; i += LANES) {
        Lanes rest, part;
        Bits bits;
        memcpy(&rest, values + i, sizeof rest);
        for (int level = 0; level < CUTS; level++)
            sums[level] += CUT_OFF(rest, cut[level], part);
        memcpy(&bits, &rest, sizeof bits);
        left |= bits & INT64_MAX;
    }
    for (int level = 0; level < CUTS; level++)
        for (int j = 0; j < LANES; j++)
            bins_add(bins, sums[level][j]);
    int64_t any = 0;
    for (int j = 0; j < LANES; j++)
        any |= left[j];
    for (int i = 0; i < whole && any; i++) {
        double rest = values[i], part;
        for (int level = 0; level < CUTS; level++)
            (void)CUT_OFF(rest, cut[level], part);
        bins_add(bins, rest);
    }
    for (int i = whole; i < count; i++)
        bins_add(bins, values[i]);
}

static inline void bins_merge(Bins *into, const Bins *from)
{
    for (int i = 0; i < EXPONENTS; i++) {
        into->low[i] += from->low[i];
        into->high[i] += from->high[i];
    }
}

/* The sum as (integer, exponent): integer * 2**exponent. Bin 0 holds subnormals, which share the scale of bin 1. */
static PyObject *bins_result(const Bins *bins)
{
    int first = -1, last = -1;
    for (int i = 0; i < EXPONENTS; i++)
        if (bins->low[i] || bins->high[i]) {
            if (first < 0)
                first = i;
            last = i;
        }
    if (first < 0)
        return Py_BuildValue("(ii)", 0, 0);
    int base = first > 0 ? first : 1;
    /* 32-bit digits with signed carries; a bin adds at most 94 bits at its place. */
    int digits = (last - base + 32) / 32 + 4;
    int64_t *sum = PyMem_Calloc((size_t)digits, sizeof *sum);
    if (sum == NULL)
        return PyErr_NoMemory();
    for (int i = first; i <= last; i++) {
        int shift = (i > 0 ? i : 1) - base;
        __int128 part = ((__int128)bins->high[i] * ((__int128)1 << 32) + bins->low[i]);
        int place = shift / 32;
        /* split before shifting, so that nothing is lost: part < 2^95, shifted by less than 32 */
        __int128 value = part * ((__int128)1 << (shift % 32));
        for (int j = place; j < digits; j++) {
            sum[j] += (int64_t)(uint32_t)value;
            value >>= 32;
            if (value == 0 || value == -1) {
                if (value == -1 && j + 1 < digits)
                    sum[j + 1] -= 1;
                break;
            }
        }
    }
    PyObject *total = PyLong_FromLong(0), *word = PyLong_FromLong(32);
    for (int j = digits - 1; j >= 0 && total != NULL && word != NULL; j--) {
        PyObject *shifted = PyNumber_Lshift(total, word), *digit = PyLong_FromLongLong(sum[j]);
        Py_DECREF(total);
        total = shifted != NULL && digit != NULL ? PyNumber_Add(shifted, digit) : NULL;
        Py_XDECREF(shifted);
        Py_XDECREF(digit);
    }
    PyMem_Free(sum);
    Py_XDECREF(word);
    return total == NULL ? NULL : Py_BuildValue("(Ni)", total, base - 1075);
}

/* A signed 128-bit integer as a Python integer. */
static PyObject *wide_result(__int128 value)
{
    PyObject *high = PyLong_FromLongLong((int64_t)(value >> 64)), *bits = PyLong_FromLong(64);
    PyObject *low = PyLong_FromUnsignedLongLong((uint64_t)value), *total = NULL;
    PyObject *shifted = high != NULL && bits != NULL ? PyNumber_Lshift(high, bits) : NULL;
    if (shifted != NULL && low != NULL)
        total = PyNumber_Add(shifted, low);
    Py_XDECREF(high);
    Py_XDECREF(bits);
    Py_XDECREF(low);
    Py_XDECREF(shifted);
    return total;
}

/* ---- work split over threads; the caller has released the interpreter lock ---- */

typedef void (*Work)(void *job);

#define MOST_THREADS 16

static int thread_share(int threads)
{
    return threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
}

#if defined(_WIN32)
static void run_all(Work work, void *jobs, size_t size, int count)
{
    for (int i = 0; i < count; i++)
        work((char *)jobs + size * (size_t)i);
}
#else
#include <pthread.h>

typedef struct {
    Work work;
    void *job;
} Task;

static void *run_task(void *task)
{
    ((Task *)task)->work(((Task *)task)->job);
    return NULL;
}

static void run_all(Work work, void *jobs, size_t size, int count)
{
    pthread_t threads[MOST_THREADS];
    Task tasks[MOST_THREADS];
    int started = 0;
    for (int i = 1; i < count && i < MOST_THREADS; i++) {
        tasks[i].work = work;
        tasks[i].job = (char *)jobs + size * (size_t)i;
        if (pthread_create(&threads[i], NULL, run_task, &tasks[i]) != 0)
            break;
        started = i;
    }
    work(jobs);
    for (int i = started + 1; i < count; i++) /* what no thread could be had for */
        work((char *)jobs + size * (size_t)i);
    for (int i = 1; i <= started; i++)
        pthread_join(threads[i], NULL);
}
#endif

#endif
