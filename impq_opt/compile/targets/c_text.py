"""The parts of the C file that are the same for every network; ``@...@`` stands for types and names."""

from __future__ import annotations

__all__ = ["DOT", "GATHER", "HEADER", "LAYER", "PLANES", "STRUCTS"]

HEADER = """\
/* @NAME@: a network in whole numbers, made by impq-opt compile. C99, no dependencies, no heap.

   @USAGE@
*/
#ifndef @GUARD@
#define @GUARD@

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

@DEFINES@

/* Computes the logits of one sample and returns the number of the largest, the first of equal ones.
   in: @INPUTS@ codes, channels last. out: @CLASSES@ codes; a logit is code * @MACRO@_LOGIT_SCALE.
   Its memory is static, so only one call may run at a time. */
int @NAME@_run(const int8_t *in, @OUT@ *out);

#ifdef __cplusplus
}
#endif

#endif
"""

STRUCTS = """\
/* Output kernels of one precision. A weight is factor * code + offset. Codes of a kernel are cut into planes of 8, 4,
   2 and 1 bits, as its precision is a sum of these, the lowest bits first; in a plane of b bits with n bytes, byte i
   holds the elements i, n + i, 2 n + i, ..., lowest bits first. */
struct part {
    const uint8_t *codes;
    const int32_t *multipliers;
    const int64_t *addends;
    const int16_t *offsets; /* null: all are offset */
    const uint16_t *channels; /* null: from channel on */
    const uint16_t *reads; /* first channel that a kernel reads; null: 0, all of them */
    int32_t offset, low, high;
    uint16_t channel, kernels;
    uint8_t bits, factor, shift;
};

struct layer {
    const struct part *parts;
    int32_t zero;
    uint16_t count, channels, rows, columns, inputs, out_channels, out_rows, out_columns;
    uint8_t height, width, down, across, dilation_down, dilation_across, above, left;
};

/* (value >> shift) towards minus infinity, within low and high. */
static int32_t rescaled(int64_t value, int shift, int32_t low, int32_t high)
{
    value = value >= 0 ? value >> shift : ~(~value >> shift);
    return value < low ? low : value > high ? high : (int32_t)value;
}
"""

# Of @P@, the type of the values, and @A@, that of sums.
PLANES = {
    8: """\
    if (bits & 8) {
        for (i = 0; i < length; i++)
            total += (@A@)x[i] * codes[i];
        return total;
    }
""",
    4: """\
    if (bits & 4) {
        @A@ sum = 0;
        n = (length + 1) / 2;
        for (i = 0; i < n; i++)
            sum += (@A@)x[i] * (codes[i] & 15);
        for (i = 0; i < n; i++)
            sum += (@A@)x[n + i] * (codes[i] >> 4);
        total = sum;
        codes += n;
        unit = 16;
    }
""",
    2: """\
    if (bits & 2) {
        @A@ sum = 0;
        n = (length + 3) / 4;
        for (k = 0; k < 4; k++)
            for (i = 0; i < n; i++)
                sum += (@A@)x[k * n + i] * ((codes[i] >> (2 * k)) & 3);
        total += sum * unit;
        codes += n;
        unit *= 4;
    }
""",
    1: """\
    if (bits & 1) {
        @A@ sum = 0;
        n = (length + 7) / 8;
        for (k = 0; k < 8; k++)
            for (i = 0; i < n; i++)
                sum += (@A@)x[k * n + i] * ((codes[i] >> k) & 1);
        total += sum * unit;
    }
""",
}

DOT = """\
/* The sum of values times codes. x has zeros behind length, up to a multiple of 8. */
static @A@ dot_@P@(const @P@ *x, const uint8_t *codes, int length, int bits)
{
    @A@ total = 0;
@LOCALS@
@PLANES@    return total;
}
"""

GATHER = """\
/* Puts a window of inputs channels from first on into x, less the zero; returns the sum. */
static @A@ gather_@T@_@P@(const struct layer *l, const @T@ *in, int row, int column, int first, @P@ *x)
{
    @A@ sum = 0;
    int i, j, c;
    for (i = 0; i < l->height; i++) {
        const int y = row * l->down - l->above + i * l->dilation_down;
        for (j = 0; j < l->width; j++) {
            const int z = column * l->across - l->left + j * l->dilation_across;
            if (y < 0 || y >= l->rows || z < 0 || z >= l->columns) {
                for (c = 0; c < l->inputs; c++)
                    *x++ = 0;
            } else {
                const @T@ *from = in + ((int32_t)y * l->columns + z) * l->channels + first;
                for (c = 0; c < l->inputs; c++) {
                    const @P@ value = (@P@)(from[c] - l->zero);
                    sum += value;
                    *x++ = value;
                }
            }
        }
    }
    return sum;
}
"""

LAYER = """\
static void layer_@T@_@P@_@O@(const struct layer *l, const @T@ *in, @O@ *out, @P@ *x)
{
    const int length = l->height * l->width * l->inputs;
    int row, column, number, kernel;
    for (number = length; number % 8; number++)
        x[number] = 0;
    for (row = 0; row < l->out_rows; row++)
        for (column = 0; column < l->out_columns; column++, out += l->out_channels) {
            @A@ sum = 0;
            if (!l->parts->reads)
                sum = gather_@T@_@P@(l, in, row, column, 0, x);
            for (number = 0; number < l->count; number++) {
                const struct part *p = l->parts + number;
                const uint8_t *codes = p->codes;
                int bytes = 0, width;
                for (width = 1; width <= 8; width *= 2)
                    if (p->bits & width)
                        bytes += (length * width + 7) / 8;
                for (kernel = 0; kernel < p->kernels; kernel++, codes += bytes) {
                    const int64_t offset = p->offsets ? p->offsets[kernel] : p->offset;
                    int64_t total;
                    if (p->reads)
                        sum = gather_@T@_@P@(l, in, row, column, p->reads[kernel], x);
                    total = (int64_t)dot_@P@(x, codes, length, p->bits) * p->factor + offset * sum;
                    out[p->channels ? p->channels[kernel] : p->channel + kernel] = (@O@)rescaled(
                        total * p->multipliers[kernel] + p->addends[kernel], p->shift, p->low, p->high);
                }
            }
        }
}
"""
