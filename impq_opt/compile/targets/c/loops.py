"""The loops over layers in the C file.

``@...@`` stands for types: of what a layer reads, @T@, of unpacked weights and windows, @P@, of what it writes, @O@; or
for what a layer that adds a tensor has besides, which is in ADDING.

A layer lays out windows of a few positions as rows of 16-bit numbers, padded to whole runs of 16, and goes through its
kernels: each is unpacked once for all of these positions, and four positions share a pass over it. That is the shape
which compilers turn into multiply-and-add instructions by themselves, without a word for any processor.
"""

from __future__ import annotations

__all__ = ["ADDING", "CHUNK", "DEPTHWISE", "DOTS", "GATHER", "LAYER", "UNPACK"]

# Of @B@ bits; @PLANES@ says where the bytes of run r are, and @CODE@ is the code of its element i.
CHUNK = """\
static void chunk@B@_@P@(const uint8_t *codes, unsigned run, int factor, int offset, @P@ *restrict to)
{
    unsigned r, i;
    for (r = 0; r < 8; r++, to += run) {
@PLANES@
        for (i = 0; i < 32; i++) /* what is too much is written over by the next run */
            to[i] = (@P@)((@CODE@) * factor + offset);
    }
}
"""

UNPACK = """\
/* Puts a kernel of length weights into to, which has 32 more; returns where the next one begins. */
static const uint8_t *unpack_@P@(const struct part *p, int kernel, const uint8_t *codes, int length, @P@ *to)
{
    const int bits = p->bits, factor = p->factor, offset = p->offsets ? p->offsets[kernel] : p->offset;
    int i;
    while (length >= 8) {
        const int run = length < 256 ? length / 8 : 32;
        switch (bits) {
@CASES@        }
        codes += run * bits;
        to += run * 8;
        length -= run * 8;
    }
    for (i = 0; i < length; i++) {
        const uint8_t *byte = codes + i * bits / 8;
        const int code = ((byte[0] | byte[1] << 8) >> (i * bits % 8)) & ((1 << bits) - 1);
        to[i] = (@P@)(code * factor + offset);
    }
    return codes + (length * bits + 7) / 8;
}
"""

DOTS = """\
/* Four sums of products: of windows, step behind each other, with one kernel; blocks of 16. */
static void dots_@P@(const @P@ *restrict x, int step, const @P@ *restrict w, int blocks, int32_t *sums)
{
    const @P@ *x1 = x + step, *x2 = x1 + step, *x3 = x2 + step;
    int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
    int i;
    for (i = 0; i < 16 * blocks; i++) {
        sum0 += (int32_t)x[i] * w[i];
        sum1 += (int32_t)x1[i] * w[i];
        sum2 += (int32_t)x2[i] * w[i];
        sum3 += (int32_t)x3[i] * w[i];
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

static int32_t dot_@P@(const @P@ *restrict x, const @P@ *restrict w, int blocks)
{
    int32_t sum = 0;
    int i;
    for (i = 0; i < 16 * blocks; i++)
        sum += (int32_t)x[i] * w[i];
    return sum;
}
"""

GATHER = """\
/* Lays out the windows of count positions, from channel on, less the zero; each is followed by zeros up to step. */
static void gather_@T@_@P@(
    const struct layer *l, const @T@ *in, int32_t position, int32_t count, int channel, int step, @P@ *x)
{
    const int joined = l->inputs == l->channels && l->dilation_across == 1;
    int row = (int)(position / l->out_columns), column = (int)(position % l->out_columns), i, j, c;
    for (; count > 0; count--) {
        @P@ *const end = x + step;
        const int z = column * l->across - l->left;
        for (i = 0; i < l->height; i++) {
            const int y = row * l->down - l->above + i * l->dilation_down;
            const int whole = joined && z >= 0 && z + l->width <= l->columns;
            const int runs = whole ? 1 : l->width, run = whole ? l->width * l->inputs : l->inputs;
            for (j = 0; j < runs; j++, x += run) {
                const int across = z + j * l->dilation_across;
                if (y < 0 || y >= l->rows || across < 0 || across >= l->columns) {
                    for (c = 0; c < run; c++)
                        x[c] = 0;
                } else {
                    const @T@ *from = in + ((int32_t)y * l->columns + across) * l->channels + channel;
                    for (c = 0; c < run; c++)
                        x[c] = (@P@)(from[c] - l->zero);
                }
            }
        }
        while (x < end)
            *x++ = 0;
        if (++column == l->out_columns) {
            column = 0;
            row++;
        }
    }
}
"""

ADDING = {
    "@ARGUMENT@": " const @A@ *added,",
    "@ITS_PLACE@": """
                const @A@ *y = added + (to - out);""",
    "@NEXT@": ", y += l->out_channels",
    "@PLUS@": """
                                + ((int64_t)*y - l->added_zero) * p->added[kernel]""",
}

LAYER = """\
static void @FUNCTION@(const struct layer *l, const @T@ *in,@ARGUMENT@ @O@ *out)
{
    @P@ *const windows = arena.windows.as_@P@, *const weights = arena.weights.as_@P@;
    const int length = l->height * l->width * l->inputs, blocks = (length + 15) / 16, step = 16 * blocks;
    const int32_t positions = (int32_t)l->out_rows * l->out_columns;
    const int32_t most = (int32_t)(sizeof arena.windows / sizeof *windows) / step;
    const int32_t tiles = (positions + most - 1) / most, tile = (positions + tiles - 1) / tiles;
    int32_t first, n, some;
    int number, kernel, k;
    for (first = 0; first < positions; first += tile) {
        const int32_t count = positions - first < tile ? positions - first : tile;
        if (!l->parts->reads)
            gather_@T@_@P@(l, in, first, count, 0, step, windows);
        for (number = 0; number < l->count; number++) {
            const struct part *p = l->parts + number;
            const uint8_t *codes = p->codes;
            for (kernel = 0; kernel < p->kernels; kernel++) {
                const int32_t channel = p->channels ? p->channels[kernel] : p->channel + kernel;
                @O@ *to = out + first * l->out_channels + channel;@ITS_PLACE@
                if (p->reads && (!kernel || p->reads[kernel] != p->reads[kernel - 1]))
                    gather_@T@_@P@(l, in, first, count, p->reads[kernel], step, windows);
                codes = unpack_@P@(p, kernel, codes, length, weights);
                for (n = 0; n < count; n += some) {
                    int32_t sums[4];
                    some = count - n < 4 ? 1 : 4;
                    if (some == 4)
                        dots_@P@(windows + n * step, step, weights, blocks, sums);
                    else
                        sums[0] = dot_@P@(windows + n * step, weights, blocks);
                    for (k = 0; k < some; k++, to += l->out_channels@NEXT@)
                        *to = (@O@)rescaled(
                            (int64_t)sums[k] * p->multipliers[kernel]@PLUS@ + p->addends[kernel],
                            p->shift, p->low, p->high);
                }
            }
        }
    }
}
"""

# Kernels of one channel each, every channel once; of @PARTS@ parts at most.
DEPTHWISE = """\
static void @FUNCTION@(const struct layer *l, const @T@ *in, @O@ *out)
{
    @P@ *const weights = arena.weights.as_@P@, *const unpacked = weights + 32 * l->height * l->width;
    const uint8_t *codes[@PARTS@];
    int begins[@PARTS@] = {0}, ends[@PARTS@] = {0}, begin, number, kernel, c, k;
    for (number = 0; number < l->count; number++)
        codes[number] = l->parts[number].codes;
    for (begin = 0; begin < l->channels; begin += 32) {
        const int some = l->channels - begin < 32 ? l->channels - begin : 32;
        @O@ *to = out;
        int row, column;
        for (number = 0; number < l->count; number++) {
            const struct part *p = l->parts + number;
            begins[number] = kernel = ends[number];
            for (; kernel < p->kernels && p->reads[kernel] < begin + some; kernel++) {
                codes[number] = unpack_@P@(p, kernel, codes[number], l->height * l->width, unpacked);
                for (k = 0; k < l->height * l->width; k++)
                    weights[32 * k + p->reads[kernel] - begin] = unpacked[k];
            }
            ends[number] = kernel;
        }
        for (row = 0; row < l->out_rows; row++)
            for (column = 0; column < l->out_columns; column++, to += l->out_channels) {
                int32_t sums[32] = {0};
                int i, j;
                for (i = 0; i < l->height; i++)
                    for (j = 0; j < l->width; j++) {
                        const int y = row * l->down - l->above + i * l->dilation_down;
                        const int z = column * l->across - l->left + j * l->dilation_across;
                        const @P@ *w = weights + 32 * (i * l->width + j);
                        const @T@ *x;
                        if (y < 0 || y >= l->rows || z < 0 || z >= l->columns)
                            continue;
                        x = in + ((int32_t)y * l->columns + z) * l->channels + begin;
                        if (some == 32)
                            for (c = 0; c < 32; c++)
                                sums[c] += (int32_t)(@P@)(x[c] - l->zero) * w[c];
                        else
                            for (c = 0; c < some; c++)
                                sums[c] += (int32_t)(@P@)(x[c] - l->zero) * w[c];
                    }
                for (number = 0; number < l->count; number++) {
                    const struct part *p = l->parts + number;
                    for (kernel = begins[number]; kernel < ends[number]; kernel++)
                        to[p->channels ? p->channels[kernel] : p->channel + kernel] = (@O@)rescaled(
                            (int64_t)sums[p->reads[kernel] - begin] * p->multipliers[kernel] + p->addends[kernel],
                            p->shift, p->low, p->high);
                }
            }
    }
}
"""
