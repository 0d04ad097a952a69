/* Whole pictures: one call brings uint8 pixels to another size, antialiased, with the kernels that crops are made with.
 *
 * Rows go through in strips. Of the rows between the two passes only those are kept that the next output row still
 * looks at, so that they stay in the processor's cache whatever the picture's height. */
#include "biovfm_decode.h"

#include <stdlib.h>
#include <string.h>

/* One block of memory, handed out in pieces; the first round only counts. */
typedef struct {
    uint8_t *base;
    size_t used;
} bv_arena;

typedef struct {
    bv_axis x, y;
    bv_strip strip;
    float *scratch;
    uint8_t *kept; /* `keeps` rows of the horizontal pass, `stride` bytes each, over and over */
    const uint8_t **rows;
    size_t stride, keeps;
} bv_pass;

static void *take(bv_arena *arena, size_t bytes) {
    void *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + 63) / 64 * 64;
    return piece;
}

static size_t take_axis(bv_arena *arena, bv_axis *axis, int from, int size, int bicubic) {
    axis->size = size;
    axis->taps = bv_axis_taps(from, size, bicubic);
    axis->first = take(arena, (size_t)size * sizeof *axis->first);
    axis->count = take(arena, (size_t)size * sizeof *axis->count);
    axis->weight = take(arena, (size_t)size * (size_t)axis->taps * sizeof *axis->weight);
    return (size_t)size * (size_t)axis->taps;
}

static void lay_out(bv_pass *pass, bv_arena *arena, int height, int width, int channels, int out_height, int out_width,
                    int bicubic) {
    size_t x = take_axis(arena, &pass->x, width, out_width, bicubic);
    size_t y = take_axis(arena, &pass->y, height, out_height, bicubic);
    size_t most = channels == 1 ? BV_GRAY_STRIP : BV_STRIP, depth = channels == 1 ? 1 : 4;
    pass->scratch = take(arena, (x > y ? x : y) * sizeof(float));
    pass->strip = (bv_strip){.width = width, .gray = channels == 1};
    for (size_t k = 0; k < most; k++) pass->strip.row[k] = take(arena, (size_t)width * depth + BV_SLACK);
    pass->strip.pairs = take(arena, ((size_t)width + BV_PAIR_SLACK) * BV_PAIR_BYTES);
    pass->stride = ((size_t)out_width * (size_t)channels + BV_OVERRUN + 63) / 64 * 64;
    pass->keeps = (size_t)pass->y.taps + most;
    pass->kept = take(arena, pass->stride * pass->keeps);
    pass->rows = take(arena, (size_t)pass->y.taps * sizeof *pass->rows);
}

static void load_strip(const bv_kernels *kernels, const bv_strip *strip, const uint8_t *src, int top) {
    size_t row_bytes = (size_t)strip->width * (strip->gray ? 1 : 3);
    for (int k = 0; k < strip->rows; k++) {
        const uint8_t *from = src + row_bytes * (size_t)(top + k);
        if (strip->gray)
            memcpy(strip->row[k], from, row_bytes);
        else
            kernels->widen(from, strip->row[k], strip->width);
    }
}

static uint8_t *kept_row(const bv_pass *pass, int row) { return pass->kept + pass->stride * ((size_t)row % pass->keeps); }

static void write_row(const bv_kernels *kernels, const bv_pass *pass, int i, uint8_t *out, int bytes) {
    int count = pass->y.count[i];
    for (int k = 0; k < count; k++) pass->rows[k] = kept_row(pass, pass->y.first[i] + k);
    if (count % 2) pass->rows[count] = pass->rows[count - 1];
    kernels->column(pass->rows, pass->y.weight + (ptrdiff_t)i * pass->y.taps, count, pass->y.shift, out, bytes);
}

static void resize(const bv_kernels *kernels, bv_pass *pass, const uint8_t *src, int height, uint8_t *dst) {
    bv_strip *strip = &pass->strip;
    int most = strip->gray ? BV_GRAY_STRIP : BV_STRIP, bytes = pass->x.size * (strip->gray ? 1 : 3);
    for (int top = 0, done = 0; top < height; top += strip->rows) {
        uint8_t *out[BV_GRAY_STRIP];
        strip->rows = height - top < most ? height - top : most;
        for (int k = 0; k < strip->rows; k++) out[k] = kept_row(pass, top + k);
        load_strip(kernels, strip, src, top);
        if (kernels->spread) kernels->spread(strip);
        kernels->rows(strip, 0, strip->rows, out, &pass->x, 0);
        for (; done < pass->y.size && pass->y.first[done] + pass->y.count[done] <= top + strip->rows; done++)
            write_row(kernels, pass, done, dst + (size_t)done * (size_t)bytes, bytes);
    }
}

/* Bring (height, width, channels) pixels to (out_height, out_width, channels), channels 1 or 3, all sides at least 1.
 * BV_UNSUPPORTED where there is no memory. */
BV_API int32_t bv_resize(int32_t instructions, const uint8_t *src, int32_t height, int32_t width, int32_t channels,
                         uint8_t *dst, int32_t out_height, int32_t out_width, int32_t bicubic) {
    bv_pass pass;
    bv_arena arena = {NULL, 0};
    lay_out(&pass, &arena, height, width, channels, out_height, out_width, bicubic);
    uint8_t *memory = malloc(arena.used + 63);
    if (!memory) return BV_UNSUPPORTED;
    arena = (bv_arena){memory + -(uintptr_t)memory % 64, 0};
    lay_out(&pass, &arena, height, width, channels, out_height, out_width, bicubic);
    bv_axis_fill(&pass.x, 0, width, 0, width, bicubic, 0, pass.scratch);
    bv_axis_fill(&pass.y, 0, height, 0, height, bicubic, 0, pass.scratch);
    resize(bv_kernels_for(instructions), &pass, src, height, dst);
    free(memory);
    return BV_OK;
}
