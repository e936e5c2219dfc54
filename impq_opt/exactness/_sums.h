/* Exact sums of float64, in integers, so that the order of terms does not matter. */
#ifndef IMPQ_OPT_SUMS_H
#define IMPQ_OPT_SUMS_H

#include "_module.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* A fixed-point number as wide as float64 reaches, down to 2^-1074, in bins of 32 bits (Kulisch and Miranker 1986).
   Carries wait until the end: MOST_TERMS terms, each of less than 2^32 in a bin, must add up below 2^63. */
#define BINS 67

typedef struct {
    int64_t bin[BINS];
} Bins;

static inline void bins_add(Bins *bins, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned exponent = (unsigned)(bits >> 52) & 0x7ff, place = exponent ? exponent - 1 : 0, shift = place % 32;
    uint64_t mantissa = (bits & 0xfffffffffffffULL) | ((uint64_t)(exponent != 0) << 52), low = mantissa << shift;
    int64_t part[3] = {(int64_t)(low & 0xffffffff), (int64_t)(low >> 32), (int64_t)(mantissa >> 32 >> (32 - shift))};
    int64_t sign = bits >> 63 ? -1 : 1, *bin = bins->bin + place / 32;
    for (int i = 0; i < 3; i++)
        bin[i] += sign * part[i];
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
    for (int i = 0; i < BINS; i++)
        into->bin[i] += from->bin[i];
}

/* The sum as (integer, exponent): integer * 2**exponent. */
static PyObject *bins_result(const Bins *bins)
{
    int first = 0, last = BINS - 1;
    while (first < BINS && bins->bin[first] == 0)
        first++;
    while (last > first && bins->bin[last] == 0)
        last--;
    if (first == BINS)
        return Py_BuildValue("(ii)", 0, 0);
    PyObject *total = PyLong_FromLongLong(bins->bin[last]), *width = PyLong_FromLong(32);
    for (int i = last - 1; i >= first && total != NULL && width != NULL; i--) {
        PyObject *shifted = PyNumber_Lshift(total, width), *here = PyLong_FromLongLong(bins->bin[i]);
        Py_DECREF(total);
        total = shifted != NULL && here != NULL ? PyNumber_Add(shifted, here) : NULL;
        Py_XDECREF(shifted);
        Py_XDECREF(here);
    }
    Py_XDECREF(width);
    return total == NULL ? NULL : Py_BuildValue("(Ni)", total, 32 * first - 1074);
}

/* A signed 128-bit integer as a Python integer. */
static inline PyObject *wide_result(__int128 value)
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

static inline int thread_share(int threads)
{
    return threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
}

#if defined(_WIN32)
static inline void run_all(Work work, void *jobs, size_t size, int count)
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

static inline void run_all(Work work, void *jobs, size_t size, int count)
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
