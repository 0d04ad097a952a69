/* Crop boxes and flips. Keep in step with shards/decode/boxes.py: a test compares them bit by bit, so this file is
 * compiled without contraction of products and sums. */
#include "biovfm_decode.h"

#include <math.h>

static void philox(uint64_t key, const uint32_t counter[4], uint32_t word[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

static double unit(uint32_t word) { return (double)word * 0x1p-32; }

static double bounded(uint32_t word, double spare) {
    return (double)(((uint64_t)word * ((uint64_t)spare + 1)) >> 32);
}

static double small_exp(double x) {
    static const double factor[] = {1.0,          1.0,          1.0 / 2.0,     1.0 / 6.0,
                                    1.0 / 24.0,   1.0 / 120.0,  1.0 / 720.0,   1.0 / 5040.0,
                                    1.0 / 40320.0, 1.0 / 362880.0, 1.0 / 3628800.0};
    double part = x * 0.0625, total = factor[10];
    for (int k = 9; k >= 0; k--) total = total * part + factor[k];
    for (int k = 0; k < 4; k++) total = total * total;
    return total;
}

static void center(const bv_group *group, double width, double height, bv_box *box) {
    double size = group->size, shorter = width < height ? width : height;
    double new_width = width <= height ? size : floor(size * width / shorter);
    double new_height = width <= height ? floor(size * height / shorter) : size;
    double step_x = width / new_width, step_y = height / new_height;
    box->x = rint((new_width - size) / 2) * step_x;
    box->y = rint((new_height - size) / 2) * step_y;
    box->w = size * step_x;
    box->h = size * step_y;
    box->flip = 0;
}

static void fallback(const bv_group *group, double width, double height, bv_box *box) {
    double shape = width / height;
    box->w = shape > group->ratio_high ? rint(height * group->ratio_high) : width;
    box->h = shape < group->ratio_low ? rint(width / group->ratio_low) : height;
    box->x = floor((width - box->w) / 2);
    box->y = floor((height - box->h) / 2);
}

void bv_draw(uint64_t seed, int32_t group_index, const bv_group *group, int32_t crop, double width, double height,
             bv_box *box) {
    if (!group->random) {
        center(group, width, height, box);
        return;
    }
    uint32_t counter[4] = {BV_TRIES, (uint32_t)crop, (uint32_t)group_index, 0}, word[4];
    philox(seed, counter, word);
    int flip = unit(word[0]) < group->flip;
    for (counter[0] = 0; counter[0] < BV_TRIES; counter[0]++) {
        philox(seed, counter, word);
        double share = group->scale_low + unit(word[0]) * (group->scale_high - group->scale_low);
        double ratio = small_exp(group->log_ratio_low + unit(word[1]) * (group->log_ratio_high - group->log_ratio_low));
        double area = width * height * share;
        double w = rint(sqrt(area * ratio)), h = rint(sqrt(area / ratio));
        if (w > 0 && w <= width && h > 0 && h <= height) {
            *box = (bv_box){bounded(word[3], width - w), bounded(word[2], height - h), w, h, flip};
            return;
        }
    }
    fallback(group, width, height, box);
    box->flip = flip;
}

/* The boxes of one group, (n, num, 5) doubles. */
BV_API void bv_boxes(int32_t n, const uint64_t *seeds, int32_t group_index, const bv_group *group,
                     const int64_t *widths, const int64_t *heights, double *out) {
    for (int32_t i = 0; i < n; i++)
        for (int32_t crop = 0; crop < group->num; crop++, out += 5) {
            bv_box box;
            bv_draw(seeds[i], group_index, group, crop, (double)widths[i], (double)heights[i], &box);
            out[0] = box.x, out[1] = box.y, out[2] = box.w, out[3] = box.h, out[4] = box.flip;
        }
}
