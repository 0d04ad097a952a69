/* What to take out of an image: boxes in stored pixels, the reduction, filter tables and the memory between passes. */
#include "biovfm_decode.h"

#include <math.h>
#include <stdlib.h>

/* At least `size` bytes, content undefined; NULL where there are none. */
void *bv_reserve(bv_buffer *b, size_t size) {
    if (size > b->size) {
        free(b->data);
        b->data = malloc(size);
        b->size = b->data ? size : 0;
    }
    return b->data;
}

/* ---- boxes ---- */

/* From the upright image to the stored one: EXIF orientations 5 to 8 transpose, the others mirror. */
static void to_stored(bv_plan *p, const bv_header *header, double upright_width, double upright_height) {
    int turn = header->orientation;
    p->mirror_x = p->box.flip;
    if (turn == 2 || turn == 3 || turn == 6 || turn == 7) {
        p->box.x = upright_width - p->box.x - p->box.w;
        p->mirror_x ^= 1;
    }
    if (turn == 3 || turn == 4 || turn == 7 || turn == 8) {
        p->box.y = upright_height - p->box.y - p->box.h;
        p->mirror_y = 1;
    }
    if (turn >= 5) {
        p->box = (bv_box){p->box.y, p->box.x, p->box.h, p->box.w, p->box.flip};
        int mirror = p->mirror_x;
        p->mirror_x = p->mirror_y;
        p->mirror_y = mirror;
    }
}

int bv_draw_plans(bv_workspace *work, bv_image *im, uint64_t seed, const bv_group *groups, int num_groups, int exact) {
    size_t total = 0;
    for (int g = 0; g < num_groups; g++) total += (size_t)groups[g].num;
    im->plans = bv_reserve(&work->plans, total * sizeof(bv_plan));
    if (!im->plans) return BV_UNSUPPORTED;
    int turned = im->header.orientation >= 5;
    double width = turned ? im->header.height : im->header.width;
    double height = turned ? im->header.width : im->header.height;
    double spare = HUGE_VAL;
    im->num_plans = 0;
    for (int g = 0; g < num_groups; g++)
        for (int c = 0; c < groups[g].num; c++) {
            bv_plan *p = &im->plans[im->num_plans++];
            *p = (bv_plan){.group = g, .crop = c, .whole = !groups[g].random};
            bv_draw(seed, g, &groups[g], c, width, height, &p->box);
            spare = fmin(spare, fmin(p->box.w, p->box.h) / groups[g].size);
            to_stored(p, &im->header, width, height);
        }
    im->factor = 1;
    while (!exact && im->factor < 8 && im->factor * 2 <= spare) im->factor *= 2;
    for (int k = 0; k < im->num_plans; k++) {
        bv_box *box = &im->plans[k].box;
        *box = (bv_box){box->x / im->factor, box->y / im->factor, box->w / im->factor, box->h / im->factor, box->flip};
    }
    return BV_OK;
}

/* ---- filter tables ---- */

static uint8_t *place_axis(bv_axis *axis, uint8_t *at, int size, int taps) {
    axis->size = size;
    axis->taps = taps;
    axis->first = (int32_t *)at;
    axis->count = axis->first + size;
    axis->weight = (int16_t *)(axis->count + size);
    return (uint8_t *)(axis->weight + (ptrdiff_t)size * taps);
}

static void fill_axis(bv_axis *axis, double start, double length, int limit, int whole, int bicubic, int mirror,
                      float *scratch) {
    int low = whole ? 0 : (int)floor(start), high = whole ? limit : (int)ceil(start + length);
    low = low < 0 ? 0 : low > limit - 1 ? limit - 1 : low;
    high = high > limit ? limit : high <= low ? low + 1 : high;
    bv_axis_fill(axis, start, length, low, high, bicubic, mirror, scratch);
}

int bv_fill_tables(bv_workspace *work, bv_image *im, const bv_group *groups, int width, int height) {
    size_t bytes = 0, longest = 0;
    for (int k = 0; k < im->num_plans; k++) {
        const bv_plan *p = &im->plans[k];
        const bv_group *group = &groups[p->group];
        size_t x = (size_t)bv_axis_taps(p->box.w, group->size, group->bicubic);
        size_t y = (size_t)bv_axis_taps(p->box.h, group->size, group->bicubic);
        bytes += (size_t)group->size * (16 + 2 * x + 2 * y);
        size_t floats = (size_t)group->size * (x > y ? x : y);
        longest = floats > longest ? floats : longest;
    }
    uint8_t *at = bv_reserve(&work->tables, bytes);
    float *scratch = bv_reserve(&work->floats, longest * sizeof(float));
    if (!at || !scratch) return BV_UNSUPPORTED;
    im->x0 = width, im->y0 = height, im->x1 = im->y1 = 0;
    for (int k = 0; k < im->num_plans; k++) {
        bv_plan *p = &im->plans[k];
        const bv_group *group = &groups[p->group];
        const bv_box *box = &p->box;
        at = place_axis(&p->x, at, group->size, bv_axis_taps(box->w, group->size, group->bicubic));
        at = place_axis(&p->y, at, group->size, bv_axis_taps(box->h, group->size, group->bicubic));
        fill_axis(&p->x, box->x, box->w, width, p->whole, group->bicubic, p->mirror_x, scratch);
        fill_axis(&p->y, box->y, box->h, height, p->whole, group->bicubic, p->mirror_y, scratch);
        im->x0 = p->x.low < im->x0 ? p->x.low : im->x0;
        im->x1 = p->x.high > im->x1 ? p->x.high : im->x1;
        im->y0 = p->y.low < im->y0 ? p->y.low : im->y0;
        im->y1 = p->y.high > im->y1 ? p->y.high : im->y1;
    }
    return BV_OK;
}

int bv_place_resized(bv_workspace *work, bv_image *im) {
    size_t bytes = BV_SLACK, taps = 0;
    int depth = im->gray ? 1 : 3;
    for (int k = 0; k < im->num_plans; k++) {
        bv_plan *p = &im->plans[k];
        p->stride = ((ptrdiff_t)p->x.size * depth + BV_OVERRUN + 31) / 32 * 32;
        bytes += (size_t)p->stride * (size_t)(p->y.high - p->y.low);
        taps = (size_t)p->y.taps > taps ? (size_t)p->y.taps : taps;
    }
    uint8_t *at = bv_reserve(&work->resized, bytes);
    if (!at || !bv_reserve(&work->rows, taps * sizeof(uint8_t *))) return BV_UNSUPPORTED;
    for (int k = 0; k < im->num_plans; k++) {
        im->plans[k].resized = at;
        at += im->plans[k].stride * (im->plans[k].y.high - im->plans[k].y.low);
    }
    return BV_OK;
}
