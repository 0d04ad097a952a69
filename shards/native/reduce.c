/* Gray pictures made smaller by averaging areas, and the luma of colour pictures. Both are OpenCV's in every bit
 * (INTER_AREA where the sides are in no whole proportion, RGB2GRAY), so what was computed with either can be compared.
 *
 * The averages are sums of 32-bit floats whose order is part of the result: across a row tap after tap, then row after
 * row. A tap of weight 0 more changes nothing, so vectors may give all cells the same number of taps. */
#include "biovfm_decode.h"

#include <math.h>
#include <stdlib.h>

/* A share of an input below this is left out. */
static const double least = 1e-3;

/* As computed, cell by cell: first input, number of taps, and their weights, `most` of them a cell. */
typedef struct {
    int size, most, taps; /* taps: the largest count */
    int32_t *first, *count;
    float *weight;
} bv_areas;

static int fill_cell(int from, double scale, int i, int32_t *first, float *weight) {
    double low = i * scale, high = low + scale, width = scale < from - low ? scale : from - low;
    int end = (int)floor(high), begin = (int)ceil(low), count = 0;
    if (end > from - 1) end = from - 1;
    if (begin > end) begin = end;
    *first = begin;
    if (begin - low > least) {
        *first = begin - 1;
        weight[count++] = (float)((begin - low) / width);
    }
    for (int k = begin; k < end; k++) weight[count++] = (float)(1.0 / width);
    if (high - end > least) {
        double share = high - end < 1.0 ? high - end : 1.0;
        weight[count++] = (float)((share < width ? share : width) / width);
    }
    return count;
}

static int open_areas(bv_areas *areas, int from, int size) {
    double scale = 1.0 / ((double)size / from);
    *areas = (bv_areas){.size = size, .most = (int)scale + 3};
    size_t weights = (size_t)size * (size_t)areas->most;
    areas->weight = malloc(weights * sizeof *areas->weight + 2 * (size_t)size * sizeof *areas->first);
    if (!areas->weight) return 0;
    areas->first = (int32_t *)(areas->weight + weights);
    areas->count = areas->first + size;
    for (int i = 0; i < size; i++) {
        areas->count[i] = fill_cell(from, scale, i, areas->first + i, areas->weight + (ptrdiff_t)i * areas->most);
        if (areas->count[i] > areas->taps) areas->taps = areas->count[i];
    }
    return 1;
}

/* Every cell gets the same number of taps; one near the end of the row begins earlier, with weight 0, to stay in it. */
static int open_cells(bv_cells *cells, const bv_areas *areas, int from, int vectors) {
    int taps = vectors && areas->taps < 4 ? 4 : areas->taps;
    int lanes = vectors ? (areas->size + BV_LANES - 1) / BV_LANES * BV_LANES : areas->size;
    size_t weights = (size_t)lanes * (size_t)taps;
    *cells = (bv_cells){.size = areas->size, .lanes = lanes, .taps = taps};
    cells->weight = calloc(weights + (size_t)lanes, sizeof *cells->weight);
    if (!cells->weight) return 0;
    cells->first = (int32_t *)(cells->weight + weights);
    for (int i = 0; i < areas->size; i++) {
        int beyond = areas->first[i] + taps - from, late = beyond > 0 ? beyond : 0;
        cells->first[i] = areas->first[i] - late;
        for (int k = 0; k < areas->count[i]; k++)
            cells->weight[(ptrdiff_t)(late + k) * lanes + i] = areas->weight[(ptrdiff_t)i * areas->most + k];
    }
    return 1;
}

void bv_band_portable(const bv_band *band, const bv_cells *x, float *across, uint8_t *out) {
    for (int i = 0; i < x->size; i++) {
        const float *weight = x->weight + i;
        float row = across[i], sum = 0;
        for (int r = 0; r < band->count; r++) {
            if (r || !band->begun) {
                const uint8_t *from = band->top + band->stride * r + x->first[i];
                row = 0;
                for (int k = 0; k < x->taps; k++) row += weight[(ptrdiff_t)k * x->lanes] * (float)from[k];
            }
            sum += row * band->weight[r];
        }
        across[i] = row;
        long value = lrintf(sum); /* half to even */
        out[i] = (uint8_t)(value > 255 ? 255 : value);
    }
}

static inline void luma_of(const uint8_t *restrict from, uint8_t *restrict to, int64_t n, int channels) {
    const int half = 1 << BV_LUMA_SHIFT >> 1;
    for (int64_t i = 0; i < n; i++, from += channels)
        to[i] = (uint8_t)((BV_RED * from[0] + BV_GREEN * from[1] + BV_BLUE * from[2] + half) >> BV_LUMA_SHIFT);
}

/* A number of channels that the compiler knows lets it use vectors. */
void bv_luma_portable(const uint8_t *from, uint8_t *to, int64_t n, int channels) {
    if (channels == 3)
        luma_of(from, to, n, 3);
    else
        luma_of(from, to, n, 4);
}

static void average(const bv_kernels *kernels, const uint8_t *src, ptrdiff_t stride, const bv_areas *y, const bv_cells *x,
                    float *across, uint8_t *dst) {
    int end = 0;
    for (int i = 0; i < y->size; i++, dst += x->size) {
        bv_band band = {src + stride * y->first[i], stride, y->count[i], y->first[i] < end,
                        y->weight + (ptrdiff_t)i * y->most};
        kernels->band(&band, x, across, dst);
        end = y->first[i] + y->count[i];
    }
}

/* Bring (height, width) gray pixels, rows `stride` bytes apart, to (out_height, out_width), neither side longer than
 * before. BV_UNSUPPORTED where there is no memory. */
BV_API int32_t bv_area(int32_t instructions, const uint8_t *src, ptrdiff_t stride, int32_t height, int32_t width,
                       uint8_t *dst, int32_t out_height, int32_t out_width) {
    bv_areas areas_x = {0}, areas_y = {0};
    bv_cells x = {0};
    float *across = NULL;
    int vectors = out_width >= BV_LANES;
    const bv_kernels *kernels = bv_kernels_for(vectors ? instructions : BV_PORTABLE);
    int ready = open_areas(&areas_x, width, out_width) && open_areas(&areas_y, height, out_height) &&
                open_cells(&x, &areas_x, width, vectors) && (across = calloc((size_t)x.lanes, sizeof *across));
    if (ready) average(kernels, src, stride, &areas_y, &x, across, dst);
    free(across);
    free(x.weight);
    free(areas_y.weight);
    free(areas_x.weight);
    return ready ? BV_OK : BV_UNSUPPORTED;
}

/* Luma of n pixels of 3 or 4 bytes. */
BV_API void bv_luma(int32_t instructions, const uint8_t *src, int64_t n, int32_t channels, uint8_t *dst) {
    bv_kernels_for(instructions)->luma(src, dst, n, channels);
}
