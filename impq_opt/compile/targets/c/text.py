"""The parts of the C file that are the same for every network; ``@...@`` stands for types and names."""

from __future__ import annotations

__all__ = ["HEADER", "STRUCTS"]

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

/* Windows of inputs are laid out in these bytes, @LEAST@ at least. Weights are unpacked once for all that find room, so
   more of them make a call quicker, and change nothing else. */
#ifndef @MACRO@_WINDOW_BYTES
#define @MACRO@_WINDOW_BYTES @USUAL@
#elif @MACRO@_WINDOW_BYTES < @LEAST@ || @MACRO@_WINDOW_BYTES % 4
#error "@MACRO@_WINDOW_BYTES must be a multiple of 4, @LEAST@ or more"
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
/* Output kernels of one precision. A weight is factor * code + offset. Codes of a kernel come in chunks: of 256 as
   long as there are so many, then one of the largest multiple of 8. A chunk is eight runs one behind the other. Its
   bytes are planes of 8, 4, 2 or 1 bits of every code; the precision is a sum of these, and the first plane has the
   lowest bits. In a plane of w bits, a byte holds the codes at one place of 8 / w runs, w runs apart. The last codes,
   fewer than 8, follow bit by bit, the lowest first, up to the next byte. */
struct part {
    const uint8_t *codes;
    const int32_t *multipliers;
    const int64_t *addends;
    const int64_t *added; /* what an added tensor is multiplied by; null: none is added */
    const int16_t *offsets; /* null: all are offset */
    const uint16_t *channels; /* null: from channel on */
    const uint16_t *reads; /* first channel that a kernel reads; null: all of them */
    int32_t offset, low, high;
    uint16_t channel, kernels;
    uint8_t bits, factor, shift;
};

struct layer {
    const struct part *parts;
    int32_t zero, added_zero;
    uint16_t count, channels, rows, columns, inputs, out_channels, out_rows, out_columns;
    uint8_t height, width, down, across, dilation_down, dilation_across, above, left;
};

typedef char int_has_32_bits[sizeof(int) >= sizeof(int32_t) ? 1 : -1];

/* (value >> shift) towards minus infinity, within low and high; value is below 2^62 in size. */
static int32_t rescaled(int64_t value, int shift, int32_t low, int32_t high)
{
    const uint64_t above = UINT64_C(1) << 62;
    value = (int64_t)(((uint64_t)value + above) >> shift) - (int64_t)(above >> shift);
    return value < low ? low : value > high ? high : (int32_t)value;
}
"""
