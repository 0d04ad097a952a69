/* Antialiasing filters as fixed-point tables: triangle (bilinear) and cubic convolution with a = -0.5 (Keys 1981),
 * stretched by the factor of reduction, cut at the clip limits and normalised; the definition that Pillow and
 * torchvision share. */
#include "biovfm_decode.h"

#include <math.h>

enum { MAX_SHIFT = 20 };

static double stretch(double length, int size) {
    double scale = length / size;
    return scale > 1 ? scale : 1;
}

int bv_axis_taps(double length, int size, int bicubic) {
    int taps = (int)ceil((bicubic ? 2 : 1) * stretch(length, size)) * 2 + 1;
    return (taps + 3) / 4 * 4;
}

static float triangle(float x) {
    x = fabsf(x);
    return x < 1 ? 1 - x : 0;
}

static float cubic(float x) {
    x = fabsf(x);
    float near = (1.5f * x - 2.5f) * x * x + 1, far = ((-0.5f * x + 2.5f) * x - 4) * x + 2;
    return x < 1 ? near : x < 2 ? far : 0;
}

/* The largest power of two by which every weight still fits 16 bits. */
static int fixed_shift(float largest) {
    int shift = 0;
    while (shift < MAX_SHIFT && largest * (float)(2 << shift) <= 32000) shift++;
    return shift;
}

/* Rounded running sums, so that the weights of one output add up to one exactly: a flat area stays flat. */
static void quantize(const float *from, int16_t *to, int count, int taps, int shift) {
    float unit = (float)(1 << shift), sum = 0;
    int32_t before = 0;
    for (int k = 0; k < count; k++) {
        sum += from[k];
        int32_t now = k == count - 1 ? 1 << shift : (int32_t)lrintf(sum * unit);
        to[k] = (int16_t)(now - before);
        before = now;
    }
    for (int k = count; k < taps; k++) to[k] = 0;
}

static void weigh(float *weight, int count, float offset, float inverse, int bicubic) {
    float total = 0;
    if (bicubic)
        for (int k = 0; k < count; k++) weight[k] = cubic(((float)k + offset) * inverse);
    else
        for (int k = 0; k < count; k++) weight[k] = triangle(((float)k + offset) * inverse);
    for (int k = 0; k < count; k++) total += weight[k];
    if (total > 0) {
        float norm = 1 / total;
        for (int k = 0; k < count; k++) weight[k] *= norm;
    } else { /* a box thinner than the space between two samples */
        for (int k = 0; k < count; k++) weight[k] = 1 / (float)count;
    }
}

/* `floor` of a number that fits an int; the library's is a call wherever SSE 4.1 is not taken for granted. */
static int floor_of(double x) {
    int near = (int)x;
    return near - (x < near);
}

void bv_axis_fill(bv_axis *axis, double start, double length, int clip_low, int clip_high, int bicubic, int mirror,
                  float *scratch) {
    double step = length / axis->size, wide = stretch(length, axis->size), reach = (bicubic ? 2 : 1) * wide;
    float largest = 0;
    axis->most = 0;
    axis->low = clip_high;
    axis->high = clip_low;
    for (int i = 0; i < axis->size; i++) {
        int slot = mirror ? axis->size - 1 - i : i;
        double middle = start + (i + 0.5) * step;
        int from = floor_of(middle - reach + 0.5), to = floor_of(middle + reach + 0.5);
        from = from < clip_low ? clip_low : from > clip_high - 1 ? clip_high - 1 : from;
        to = to > clip_high ? clip_high : to <= from ? from + 1 : to;
        to = to > from + axis->taps ? from + axis->taps : to;
        float *weight = scratch + (ptrdiff_t)slot * axis->taps;
        weigh(weight, to - from, (float)(from - middle + 0.5), (float)(1 / wide), bicubic);
        for (int k = 0; k < to - from; k++) largest = weight[k] > largest ? weight[k] : largest;
        axis->first[slot] = from;
        axis->count[slot] = to - from;
        axis->most = to - from > axis->most ? to - from : axis->most;
        axis->low = from < axis->low ? from : axis->low;
        axis->high = to > axis->high ? to : axis->high;
    }
    axis->shift = fixed_shift(largest);
    for (int i = 0; i < axis->size; i++) {
        ptrdiff_t row = (ptrdiff_t)i * axis->taps;
        quantize(scratch + row, axis->weight + row, axis->count[i], axis->taps, axis->shift);
    }
}
