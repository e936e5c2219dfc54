/* Exact sums of float64: mantissas are added per exponent in integers, so the order of terms does not matter. */
#ifndef IMPQ_OPT_SUMS_H
#define IMPQ_OPT_SUMS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
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
