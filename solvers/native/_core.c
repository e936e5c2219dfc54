/* The exact strategy's core: its groups in integers, and the dynamic program over them. Each function does what the NumPy
   code beside its caller does, with the same answers bit for bit. */

#include "_hulls.h"

#include <time.h>

/* ---- closest rows ------------------------------------------------------------------------------------------------------ */

/* The value that the smallest `most` of some values go up to (quickselect); the values are moved about. */
static double smallest_up_to(double *values, Py_ssize_t count, Py_ssize_t most)
{
    Py_ssize_t low = 0, high = count - 1, place = most - 1;
    while (low < high) {
        double pivot = values[(low + high) / 2];
        Py_ssize_t i = low, j = high;
        while (i <= j) {
            while (values[i] < pivot)
                i++;
            while (pivot < values[j])
                j--;
            if (i <= j) {
                double swap = values[i];
                values[i++] = values[j];
                values[j--] = swap;
            }
        }
        if (place <= j)
            high = j;
        else if (place >= i)
            low = i;
        else
            break;
    }
    return values[place];
}

/* closest(behind, rows, limit, most, out) -> number of rows within the limit
   The rows whose second choice is within the limit, in order: the `most` closest, the first of equals. */
static PyObject *py_closest(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[2];
    Py_ssize_t rows, most, count = 0, kept = 0;
    double limit;
    if (!PyArg_ParseTuple(args, "OndnO", &o[0], &rows, &limit, &most, &o[1]))
        return NULL;
    Buffers b = {.count = 0};
    const double *behind;
    int64_t *out;
    if (array_of(&b, o[0], rows, 8, 0, 0, &behind) || array_of(&b, o[1], most < rows ? most : rows, 8, 1, 0, &out)) {
        release(&b);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < rows; i++)
        count += behind[i] <= limit;
    double farthest = limit;
    Py_ssize_t ties = count; /* of the farthest, so many are kept */
    if (count > most && most > 0) {
        double *values = malloc(sizeof *values * (size_t)count);
        if (values == NULL) {
            release(&b);
            return PyErr_NoMemory();
        }
        Py_ssize_t some = 0;
        for (Py_ssize_t i = 0; i < rows; i++)
            if (behind[i] <= limit)
                values[some++] = behind[i];
        farthest = smallest_up_to(values, count, most);
        free(values);
        ties = most;
        for (Py_ssize_t i = 0; i < rows; i++)
            ties -= behind[i] < farthest;
    }
    for (Py_ssize_t i = 0; i < rows && kept < most; i++)
        if (behind[i] < farthest || (behind[i] == farthest && ties-- > 0))
            out[kept++] = i;
    release(&b);
    return PyLong_FromSsize_t(count);
}

/* ---- choices within a limit ------------------------------------------------------------------------------------------ */

/* within(cost, damage, pool rows, first, rows, groups, columns, price, limit, guard, prohibitive, cost out, damage out, kept):
   copy some rows, and tell which of their choices have a value within the limit of the row's best, `first` (pool rows,) */
static PyObject *py_within(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[7];
    Py_ssize_t pool, groups, columns;
    double price, limit, guard;
    long long prohibitive;
    if (!PyArg_ParseTuple(args, "OOnOOnndddLOOO", &o[0], &o[1], &pool, &o[2], &o[3], &groups, &columns, &price, &limit,
                          &guard, &prohibitive, &o[4], &o[5], &o[6]))
        return NULL;
    Buffers b = {.count = 0};
    const int64_t *cost, *rows;
    const double *damage, *first;
    int64_t *cost_out;
    double *damage_out;
    uint8_t *kept;
    if (array_of(&b, o[0], pool * columns, 8, 0, 0, &cost) || array_of(&b, o[1], pool * columns, 8, 0, 0, &damage) ||
        array_of(&b, o[2], pool, 8, 0, 0, &first) || array_of(&b, o[3], groups, 8, 0, 0, &rows) ||
        array_of(&b, o[4], groups * columns, 8, 1, 0, &cost_out) ||
        array_of(&b, o[5], groups * columns, 8, 1, 0, &damage_out) ||
        array_of(&b, o[6], groups * columns, 1, 1, 0, &kept)) {
        release(&b);
        return NULL;
    }
    for (Py_ssize_t g = 0; g < groups; g++) {
        if (rows[g] < 0 || rows[g] >= pool) {
            release(&b);
            PyErr_SetString(PyExc_IndexError, "a row is not in the pool");
            return NULL;
        }
        const int64_t *c = cost + rows[g] * columns;
        const double *d = damage + rows[g] * columns;
        double best = first[rows[g]];
        int64_t lowest = c[0];
        for (Py_ssize_t k = 1; k < columns; k++)
            lowest = c[k] < lowest ? c[k] : lowest;
        for (Py_ssize_t k = 0; k < columns; k++) {
            double value = (double)(c[k] - lowest) + price * d[k];
            cost_out[g * columns + k] = c[k];
            damage_out[g * columns + k] = d[k];
            kept[g * columns + k] = !(value * guard - best > limit) && c[k] - lowest < prohibitive;
        }
    }
    release(&b);
    Py_RETURN_NONE;
}

/* ---- integers ---------------------------------------------------------------------------------------------------------- */

/* 2**32 times a share of at most 1, rounded up. */
static inline uint64_t share_above(double share)
{
    uint64_t whole = (uint64_t)(share *= 0x1p32);
    return whole + ((double)whole < share);
}

/* relative(cost, damage, kept, base, groups, columns, most, bits, unit bits, cost out, damage out)
   -> (shift, groups with a rounded damage, units of the base, its exact damage)
   Costs and damages, in units of 2**-shift rounded down, beyond the base's; 0 for choices that are not kept. Of those that are,
   the ones of more damage than `most` are dropped, and the base's never. */
static PyObject *py_relative(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[6];
    Py_ssize_t groups, columns;
    double most;
    int bits, unit_bits;
    if (!PyArg_ParseTuple(args, "OOOOnndiiOO", &o[0], &o[1], &o[2], &o[3], &groups, &columns, &most, &bits, &unit_bits,
                          &o[4], &o[5]))
        return NULL;
    Buffers b = {.count = 0};
    const int64_t *cost, *base;
    const double *damage;
    uint8_t *kept;
    int64_t *cost_out, *damage_out;
    Py_ssize_t entries = groups * columns;
    if (array_of(&b, o[0], entries, 8, 0, 0, &cost) || array_of(&b, o[1], entries, 8, 0, 0, &damage) ||
        array_of(&b, o[2], entries, 1, 1, 0, &kept) || array_of(&b, o[3], groups, 8, 0, 0, &base) ||
        array_of(&b, o[4], entries, 8, 1, 0, &cost_out) || array_of(&b, o[5], entries, 8, 1, 0, &damage_out)) {
        release(&b);
        return NULL;
    }
    double largest = 0.0;
    Bins exact = {{0}};
    for (Py_ssize_t g = 0; g < groups; g++) {
        if (base[g] < 0 || base[g] >= columns) {
            release(&b);
            PyErr_SetString(PyExc_IndexError, "a column is not in the table");
            return NULL;
        }
        for (Py_ssize_t i = g * columns; i < (g + 1) * columns; i++) {
            kept[i] = (kept[i] && damage[i] <= most) || i == g * columns + base[g];
            largest = kept[i] && damage[i] > largest ? damage[i] : largest;
        }
        bins_add(&exact, damage[g * columns + base[g]]);
    }
    int shift = unit_bits;
    if (largest > 0) {
        uint64_t shares = 0;
        for (Py_ssize_t g = 0; g < groups; g++) {
            double here = 0.0;
            for (Py_ssize_t i = g * columns; i < (g + 1) * columns; i++)
                here = kept[i] && damage[i] > here ? damage[i] : here;
            shares += share_above(here / largest);
        }
        int exponent, above = 0;
        frexp(largest, &exponent);
        for (; shares >> above; above++)
            ;
        exponent += above - 32 + 1;
        shift = bits - exponent < unit_bits ? bits - exponent : unit_bits;
    }
    /* Multiplying by a power of two is quicker where there is one. */
    const int plain = shift < 1000 && shift > -1000;
    const double scale = plain ? ldexp(1.0, shift) : 0.0;
    long long base_units = 0, inexact = 0;
    for (Py_ssize_t g = 0; g < groups; g++) {
        const Py_ssize_t start = g * columns, own = start + base[g];
        int rounded = 0;
        for (Py_ssize_t i = start; i < start + columns; i++) {
            double value = kept[i] ? damage[i] : 0.0, scaled = plain ? value * scale : ldexp(value, shift);
            int64_t units = (int64_t)scaled; /* not negative: cutting is rounding down */
            rounded |= (double)units != scaled || (units == 0 && value > 0);
            damage_out[i] = units;
        }
        int64_t from = damage_out[own];
        base_units += from;
        inexact += rounded;
        for (Py_ssize_t i = start; i < start + columns; i++) {
            damage_out[i] = kept[i] ? damage_out[i] - from : 0;
            cost_out[i] = kept[i] ? cost[i] - cost[own] : 0;
        }
    }
    release(&b);
    PyObject *sum = bins_result(&exact);
    return sum == NULL ? NULL : Py_BuildValue("(iLLN)", shift, inexact, base_units, sum);
}

/* ---- search -------------------------------------------------------------------------------------------------------- */

/* One undominated partial assignment; see exact/core.py. */
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
    int64_t *gain, *need; /* (n, K), relative to the start */
    int64_t *rank; /* (n,): groups by stage */
    Hull hulls;
    Py_ssize_t groups, columns;
    int64_t target, origin, over, lattice, doubt; /* gain of the start, and its need beyond the room */
    int64_t *memory; /* where the arrays of a fixed size lie */
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
    const uint8_t *interrupt; /* not 0 once the run is to end */
    int late;
} Search;

/* Seconds on a clock that is never set back, where there is one. */
static double now(void)
{
    struct timespec t;
#ifdef CLOCK_MONOTONIC
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Whether to end: time is over, or a signal's handler has said so, which Python calls here; it may raise, too. */
static int expired(const Search *s)
{
    return PyErr_CheckSignals() < 0 || *s->interrupt || now() >= s->until;
}

static void lower_target(Search *s, int64_t target)
{
    int64_t beyond = s->lattice ? (target - s->origin) % s->lattice : 0;
    s->target = target - (beyond < 0 ? beyond + s->lattice : beyond);
}

/* What completes the states: the hull steps of all groups, best first. */
static void start_completions(Search *s)
{
    const Hull *h = &s->hulls;
    s->saved[0] = s->paid[0] = 0;
    for (Py_ssize_t i = 0; i < h->count; i++) {
        s->inside[i] = i;
        s->saved[i + 1] = s->saved[i] + h->step_damage[i];
        s->paid[i + 1] = s->paid[i] + h->step_cost[i];
    }
    s->left = h->count;
}

/* Take the steps of a group that is decided off them. */
static void leave_out(Search *s, int64_t group)
{
    const Hull *h = &s->hulls;
    Py_ssize_t i = 0, left;
    while (i < s->left && h->group[s->inside[i]] != group)
        i++;
    for (left = i; i < s->left; i++) {
        int64_t step = s->inside[i];
        if (h->group[step] == group)
            continue;
        s->inside[left] = step;
        s->saved[left + 1] = s->saved[left] + h->step_damage[step];
        s->paid[left + 1] = s->paid[left] + h->step_cost[step];
        left++;
    }
    s->left = left;
}

/* The assignment of a state whose undecided groups take `count` hull steps. */
static void assignment(const Search *s, Py_ssize_t place, Py_ssize_t count, int64_t *columns)
{
    const Hull *h = &s->hulls;
    memcpy(columns, h->start, sizeof *columns * (size_t)s->groups);
    for (Py_ssize_t i = 0; i < count; i++)
        columns[h->group[s->inside[i]]] = h->to[s->inside[i]];
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
        if ((++merged & 0xfffff) == 0 && expired(s)) {
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

/* Give back what pruning left unused, where it is worth the while. */
static void shrink(Stage *stage, Py_ssize_t before)
{
    if (before < 256)
        return;
    size_t count = (size_t)(stage->count ? stage->count : 1);
    int32_t *parent = realloc(stage->parent, sizeof *parent * count);
    uint16_t *column = realloc(stage->column, sizeof *column * count);
    stage->parent = parent != NULL ? parent : stage->parent;
    stage->column = column != NULL ? column : stage->column;
}

/* Find the hulls, the stages, and gains and needs beyond those of the start; return -1 without memory. */
static int prepare(Search *s, const int64_t *gain, const int64_t *need)
{
    const Py_ssize_t n = s->groups, width = s->columns, most = n * (width - 1);
    const size_t bytes = sizeof(int64_t);
    Hull *h = &s->hulls;
    /* one piece of memory: tables, (n,) arrays, and what there is for each step */
    int64_t *free_at = s->memory = malloc(bytes * (size_t)(2 * n * width + 5 * n + 11 * most + 3));
    s->stages = calloc((size_t)n + 1, sizeof *s->stages);
    if (s->memory == NULL || s->stages == NULL || ensure(s, 64) < 0)
        return -1;
    int64_t **tables[] = {&s->gain, &s->need}, **groups[] = {&s->rank, &h->start};
    int64_t **steps[] = {&h->group, &h->to, &h->step_cost, &h->step_damage, &s->inside, &s->saved, &s->paid};
    for (int i = 0; i < 2; i++, free_at += n * width)
        *tables[i] = free_at;
    for (int i = 0; i < 2; i++, free_at += n)
        *groups[i] = free_at;
    for (int i = 0; i < 7; free_at += most + (i > 3), i++)
        *steps[i] = free_at;
    h->ratio = (double *)free_at;
    double *spread = h->ratio + most; /* the bits of integers that are not negative order as those of floats do */
    h->cost = gain, h->damage = need, h->whole = 1, h->rows = n, h->columns = width;
    int64_t *scratch = (int64_t *)spread + n; /* 3 * most, and 2 n for the order of groups */
    if (find_hulls(h, scratch) < 0)
        return -1;
    uint64_t lattice = 0;
    for (Py_ssize_t g = 0; g < n; g++) {
        const int64_t *from = gain + g * width, *needs = need + g * width;
        int64_t low = from[0], high = from[0], first = from[h->start[g]], least = needs[h->start[g]];
        for (Py_ssize_t k = 0; k < width; k++) {
            int64_t more = s->gain[g * width + k] = from[k] - first;
            s->need[g * width + k] = needs[k] - least;
            low = from[k] < low ? from[k] : low;
            high = from[k] > high ? from[k] : high;
            uint64_t rest = (uint64_t)(more < 0 ? -more : more);
            rest = lattice > 1 ? rest % lattice : lattice ? 0 : rest;
            while (rest) { /* rare once the divisor is found */
                uint64_t left = lattice % rest;
                lattice = rest, rest = left;
            }
        }
        int64_t width_here = high - low;
        memcpy(&spread[g], &width_here, sizeof width_here);
        s->origin += first;
        s->over += least;
    }
    s->lattice = (int64_t)lattice;
    /* coarse groups first: the fine ones that remain then complete every state closely */
    return order_falling(spread, s->rank, n, scratch, 1);
}

enum { COMPLETED, TIME_LIMIT, MEMORY_LIMIT, STATE_LIMIT };

/* search(gain, need, groups, columns, room, target, doubt, most states, seconds, bytes, bytes a working state,
          bytes a kept state, margin, most doubtful, best, interrupt)
   -> (stop, has best, best gain, states looked at, [(gain, assignment as bytes), ...]) */
static PyObject *py_search(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[4], *result = NULL, *doubtful = NULL;
    Py_ssize_t most, most_doubtful;
    long long room, target, doubt;
    double seconds, bytes, working, kept, margin;
    const int64_t *gain, *need;
    Search s;
    memset(&s, 0, sizeof s);
    if (!PyArg_ParseTuple(args, "OOnnLLLndddddnOO", &o[0], &o[1], &s.groups, &s.columns, &room, &target, &doubt, &most,
                          &seconds, &bytes, &working, &kept, &margin, &most_doubtful, &o[2], &o[3]))
        return NULL;
    if (s.columns < 1 || s.columns > MOST_COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "too many columns");
        return NULL;
    }
    Buffers b = {.count = 0};
    int stop = COMPLETED;
    Py_ssize_t work = 4096; /* states since the clock was looked at */
    s.until = now() + seconds;
    s.doubt = doubt;
    s.over = -room;
    if (array_of(&b, o[0], s.groups * s.columns, 8, 0, 0, &gain) ||
        array_of(&b, o[1], s.groups * s.columns, 8, 0, 0, &need) || array_of(&b, o[2], s.groups, 8, 1, 0, &s.best) ||
        array_of(&b, o[3], 1, 1, 0, 0, &s.interrupt))
        goto done;
    if (prepare(&s, gain, need) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    lower_target(&s, target);
    s.states[0] = (State){s.origin, s.over};
    s.count = 1;
    start_completions(&s);
    complete(&s);
    for (Py_ssize_t stage = 0; stage < s.groups && s.count > 0 && stop == COMPLETED; stage++) {
        leave_out(&s, s.rank[stage]);
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
        if (PyErr_Occurred())
            goto done;
        if (!s.late)
            complete(&s);
        Py_ssize_t before = s.count;
        work += before;
        prune(&s, margin);
        shrink(&s.stages[s.done - 1], before);
        if (s.count == 0 && !s.late)
            break;
        if (s.count > most)
            stop = STATE_LIMIT;
        else if (s.late)
            stop = TIME_LIMIT;
        if (work < 4096) /* stages are quick: the clock and signals need not be looked at after each */
            continue;
        work = 0;
        if (expired(&s) && stop == COMPLETED)
            stop = TIME_LIMIT;
        if (PyErr_Occurred())
            goto done;
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
    free(s.memory);
    free(s.states);
    free(s.spare);
    free(s.parent);
    free(s.column);
    release(&b);
    return result;
}

/* ---- exchange ---------------------------------------------------------------------------------------------------------- */

/* exchange(cost, damage, pool rows, rows, base, columns, kept or None, groups, columns of the tables, moved, to)
   -> (number of rows that change, cost saved, (integer, exponent) of the damage done less)
   Rows of the pool whose column is not the base's, and that column; one that is not kept is the base's. */
static PyObject *py_exchange(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[8];
    Py_ssize_t pool, groups, width, count = 0;
    if (!PyArg_ParseTuple(args, "OOnOOOOnnOO", &o[0], &o[1], &pool, &o[2], &o[3], &o[4], &o[5], &groups, &width, &o[6], &o[7]))
        return NULL;
    Buffers b = {.count = 0};
    const int64_t *cost, *rows, *base, *columns;
    const double *damage;
    const uint8_t *kept;
    int64_t *moved, *to;
    if (array_of(&b, o[0], pool * width, 8, 0, 0, &cost) || array_of(&b, o[1], pool * width, 8, 0, 0, &damage) ||
        array_of(&b, o[2], groups, 8, 0, 0, &rows) || array_of(&b, o[3], groups, 8, 0, 0, &base) ||
        array_of(&b, o[4], groups, 8, 0, 0, &columns) || array_of(&b, o[5], groups * width, 1, 0, 1, &kept) ||
        array_of(&b, o[6], groups, 8, 1, 0, &moved) || array_of(&b, o[7], groups, 8, 1, 0, &to)) {
        release(&b);
        return NULL;
    }
    __int128 saved = 0;
    Bins less = {{0}};
    for (Py_ssize_t g = 0; g < groups; g++) {
        int64_t row = rows[g], from = base[g], column = columns[g];
        if (row < 0 || row >= pool || from < 0 || from >= width || column < 0 || column >= width) {
            release(&b);
            PyErr_SetString(PyExc_IndexError, "a row or column is not in the pool");
            return NULL;
        }
        if (column == from || (kept != NULL && !kept[g * width + column]))
            continue;
        saved += (__int128)cost[row * width + from] - cost[row * width + column];
        bins_add(&less, damage[row * width + from]);
        bins_add(&less, -damage[row * width + column]);
        moved[count] = row;
        to[count++] = column;
    }
    release(&b);
    return Py_BuildValue("(nNN)", count, wide_result(saved), bins_result(&less));
}

static PyMethodDef methods[] = {
    {"closest", py_closest, METH_VARARGS, "The rows whose second choice is closest."},
    {"within", py_within, METH_VARARGS, "Copy rows, and tell which choices come close to the best."},
    {"relative", py_relative, METH_VARARGS, "Costs and damages beyond the base's, in integers."},
    {"exchange", py_exchange, METH_VARARGS, "What other columns than the base's save."},
    {"search", py_search, METH_VARARGS, "Dynamic programming over a core."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", "The core of the exact strategy.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void) { return create_module(&module); }
