/* One call decodes a chunk of JPEG images: header, plans, region, strips of rows, resampling.
 *
 * Every image gets a fresh decompressor: an old one would lend its tables to an image that lacks them, and its
 * upsampler's state to the first rows after a skip. It costs about a microsecond. */
#include "biovfm_decode.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

enum { MIN_REGION = 64, KEEP_BYTES = 64 << 20 };

typedef struct bv_context {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf escape;
    int failure;
    int read_all; /* decode every row and column: what regions are tested against */
    const bv_kernels *kernels;
    bv_workspace work;
    bv_buffer strip, pairs, turned;
} bv_context;

/* ---- memory ---- */

static void release(bv_context *context, size_t keep) {
    bv_workspace *work = &context->work;
    bv_buffer *all[] = {&work->plans, &work->tables,   &work->floats,     &work->resized,
                        &work->rows,  &context->strip, &context->pairs, &context->turned};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        if (all[k]->size > keep) {
            free(all[k]->data);
            *all[k] = (bv_buffer){NULL, 0};
        }
}

/* ---- libjpeg's errors ---- */

static void on_error(j_common_ptr jpeg) {
    bv_context *context = jpeg->client_data;
    context->failure = jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? BV_UNSUPPORTED : BV_CORRUPT;
    longjmp(context->escape, 1);
}

/* Warnings: bv_read_header has judged the image, and what damage a warning tells of depends on the rows that are read. */
static void on_message(j_common_ptr jpeg, int level) { (void)jpeg, (void)level; }

static void on_output(j_common_ptr jpeg) { (void)jpeg; }

static void create_jpeg(bv_context *context) {
    memset(&context->jpeg, 0, sizeof context->jpeg);
    context->jpeg.err = jpeg_std_error(&context->errors);
    context->errors.error_exit = on_error;
    context->errors.emit_message = on_message;
    context->errors.output_message = on_output;
    context->jpeg.client_data = context;
    jpeg_create_decompress(&context->jpeg);
    context->jpeg.client_data = context;
}

/* ---- rows ---- */

/* Narrow the decoder to the columns that are looked at, with a margin for chroma's interpolation at both ends. */
static void crop_columns(bv_context *context, bv_image *im) {
    j_decompress_ptr jpeg = &context->jpeg;
    int width = (int)jpeg->output_width, low = im->x0 - 2, high = im->x1 + 2;
    low = low > width - MIN_REGION ? width - MIN_REGION : low;
    low = low < 0 ? 0 : low;
    high = high < low + MIN_REGION ? low + MIN_REGION : high;
    high = high > width ? width : high;
    if (high - low < width) {
        JDIMENSION start = (JDIMENSION)low, wide = (JDIMENSION)(high - low);
        jpeg_crop_scanline(jpeg, &start, &wide);
        im->origin = (int)start;
    }
}

/* Skip whole rows of blocks, and leave one before the first row that is looked at for chroma's interpolation. */
static void skip_rows(bv_context *context, const bv_image *im) {
    j_decompress_ptr jpeg = &context->jpeg;
#if JPEG_LIB_VERSION >= 70
    int block = jpeg->max_v_samp_factor * jpeg->min_DCT_v_scaled_size;
#else
    int block = jpeg->max_v_samp_factor * jpeg->min_DCT_scaled_size;
#endif
    int rows = (im->y0 - 1) / block * block;
    if (im->y0 > 1 && rows > 0) jpeg_skip_scanlines(jpeg, (JDIMENSION)rows);
}

static uint8_t through(int ink, int black) {
    int product = ink * black + 128;
    return (uint8_t)((product + (product >> 8)) >> 8);
}

/* CMYK in place to RGB, or to luma: each colour is the light that its ink and the black let through. */
static void from_inks(uint8_t *row, int width, int inverted, int gray) {
    int flip = inverted ? 0 : 255;
    for (int x = 0; x < width; x++) {
        const uint8_t *ink = row + 4 * (ptrdiff_t)x;
        uint8_t black = (uint8_t)(ink[3] ^ flip);
        uint8_t red = through(ink[0] ^ flip, black), green = through(ink[1] ^ flip, black);
        uint8_t blue = through(ink[2] ^ flip, black);
        if (gray) {
            row[x] = (uint8_t)((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14);
        } else {
            uint8_t *to = row + 4 * (ptrdiff_t)x;
            to[0] = red, to[1] = green, to[2] = blue;
        }
    }
}

/* The horizontal pass of one crop over a strip whose first row is `top`. */
static void resize_strip(bv_context *context, const bv_plan *p, const bv_strip *strip, int top, int origin) {
    int low = p->y.low > top ? p->y.low : top, high = p->y.high < top + strip->rows ? p->y.high : top + strip->rows;
    if (low >= high) return;
    uint8_t *out[BV_GRAY_STRIP];
    for (int y = low; y < high; y++) out[y - low] = p->resized + p->stride * (y - p->y.low);
    context->kernels->rows(strip, low - top, high - top, out, &p->x, origin);
}

/* Memory for the rows of a strip and for what kernels make of them. */
static int place_strip(bv_context *context, bv_strip *strip, size_t depth, int rows) {
    size_t stride = (size_t)strip->width * depth + BV_SLACK;
    uint8_t *pixels = bv_reserve(&context->strip, stride * (size_t)rows), *pairs = NULL;
    if (context->kernels->spread) {
        pairs = bv_reserve(&context->pairs, ((size_t)strip->width + BV_PAIR_SLACK) * BV_PAIR_BYTES + 64);
        if (!pairs) return BV_UNSUPPORTED;
        pairs += -(uintptr_t)pairs % 64;
    }
    if (!pixels) return BV_UNSUPPORTED;
    strip->pairs = pairs;
    for (int k = 0; k < rows; k++) strip->row[k] = pixels + stride * (size_t)k;
    return BV_OK;
}

static int read_rows(bv_context *context, bv_image *im) {
    j_decompress_ptr jpeg = &context->jpeg;
    bv_strip strip = {.width = (int)jpeg->output_width, .gray = im->gray};
    int inks = im->header.components == 4, most = im->gray ? BV_GRAY_STRIP : BV_STRIP;
    int status = place_strip(context, &strip, (size_t)jpeg->output_components, most);
    if (status != BV_OK) return status;
    while ((int)jpeg->output_scanline < im->y1) {
        int top = (int)jpeg->output_scanline, got = 0;
        strip.rows = im->y1 - top < most ? im->y1 - top : most;
        while (got < strip.rows) {
            int more = (int)jpeg_read_scanlines(jpeg, strip.row + got, (JDIMENSION)(strip.rows - got));
            if (more == 0) return BV_CORRUPT;
            got += more;
        }
        for (int k = 0; inks && k < strip.rows; k++)
            from_inks(strip.row[k], strip.width, im->header.inverted, im->gray);
        if (context->kernels->spread) context->kernels->spread(&strip);
        for (int k = 0; k < im->num_plans; k++) resize_strip(context, &im->plans[k], &strip, top, im->origin);
    }
    return BV_OK;
}

/* Decode and do the horizontal passes. Everything that can fail happens here, before any slot is touched. */
static int decode_image(bv_context *context, bv_image *im, uint64_t seed, const bv_group *groups, int num_groups,
                        int channels, int exact) {
    int status = bv_draw_plans(&context->work, im, seed, groups, num_groups, exact);
    if (status != BV_OK) return status;
    j_decompress_ptr jpeg = &context->jpeg;
    jpeg_mem_src(jpeg, im->data, (unsigned long)im->size);
    jpeg_read_header(jpeg, TRUE);
    if ((int)jpeg->image_width != im->header.width || (int)jpeg->image_height != im->header.height ||
        jpeg->num_components != im->header.components)
        return BV_CORRUPT;
    im->gray = channels == 1 || im->header.components == 1;
    jpeg->out_color_space = im->header.components == 4 ? JCS_CMYK : im->gray ? JCS_GRAYSCALE : JCS_EXT_RGBX;
    jpeg->scale_num = (unsigned)(8 / im->factor);
    jpeg->scale_denom = 8;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(jpeg);
    status = bv_fill_tables(&context->work, im, groups, (int)jpeg->output_width, (int)jpeg->output_height);
    if (status == BV_OK) status = bv_place_resized(&context->work, im);
    if (status != BV_OK) return status;
    im->origin = 0;
    if (!context->read_all) {
        crop_columns(context, im);
        skip_rows(context, im);
    }
    return read_rows(context, im);
}

/* ---- vertical pass ---- */

static void resize_columns(bv_context *context, const bv_plan *p, uint8_t *out, ptrdiff_t pitch, int n) {
    const uint8_t **rows = context->work.rows.data;
    for (int i = 0; i < p->y.size; i++) {
        int count = p->y.count[i];
        for (int k = 0; k < count; k++) rows[k] = p->resized + p->stride * (p->y.first[i] + k - p->y.low);
        if (count % 2) rows[count] = rows[count - 1];
        context->kernels->column(rows, p->y.weight + (ptrdiff_t)i * p->y.taps, count, p->y.shift, out + pitch * i, n);
    }
}

static void transpose(const uint8_t *from, uint8_t *to, int size, int depth) {
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            for (int c = 0; c < depth; c++)
                to[((ptrdiff_t)y * size + x) * depth + c] = from[((ptrdiff_t)x * size + y) * depth + c];
}

static void repeat_gray(const uint8_t *from, uint8_t *to, int pixels) {
    for (int k = 0; k < pixels; k++) to[3 * k] = to[3 * k + 1] = to[3 * k + 2] = from[k];
}

static void write_crop(bv_context *context, const bv_image *im, const bv_plan *p, uint8_t *slot, int channels) {
    int size = p->x.size, depth = im->gray ? 1 : 3, turned = im->header.orientation >= 5;
    ptrdiff_t pitch = (ptrdiff_t)size * depth;
    uint8_t *first = context->turned.data, *second = first + pitch * size;
    uint8_t *target = turned || depth != channels ? first : slot;
    resize_columns(context, p, target, pitch, (int)pitch);
    if (turned) {
        target = depth == channels ? slot : second;
        transpose(first, target, size, depth);
    }
    if (depth != channels) repeat_gray(target, slot, size * size);
}

static int decode_one(bv_context *context, bv_image *im, uint64_t seed, const bv_group *groups, int num_groups,
                      int channels, int exact) {
    int status = bv_read_header(im->data, im->size, &im->header), largest = 0;
    if (status != BV_OK) return status;
    for (int g = 0; g < num_groups; g++) largest = groups[g].size > largest ? groups[g].size : largest;
    if (!bv_reserve(&context->turned, 6 * (size_t)largest * (size_t)largest)) return BV_UNSUPPORTED;
    if (setjmp(context->escape)) {
        jpeg_destroy_decompress(&context->jpeg);
        return context->failure;
    }
    create_jpeg(context);
    status = decode_image(context, im, seed, groups, num_groups, channels, exact);
    jpeg_destroy_decompress(&context->jpeg);
    return status;
}

/* ---- the interface ---- */

/* Decode n images; see Decoder in shards/decode/base.py. `outs` holds one array a group. */
BV_API void bv_decode(bv_context *context, int32_t n, const uint8_t *const *data, const uint64_t *sizes,
                      const uint64_t *seeds, int32_t num_groups, const bv_group *groups, uint8_t *const *outs,
                      int32_t channels, int32_t exact, int32_t *status) {
    for (int32_t i = 0; i < n; i++) {
        bv_image im = {.data = data[i], .size = (size_t)sizes[i]};
        status[i] = decode_one(context, &im, seeds[i], groups, num_groups, channels, exact);
        for (int k = 0; status[i] == BV_OK && k < im.num_plans; k++) {
            const bv_plan *p = &im.plans[k];
            const bv_group *group = &groups[p->group];
            size_t crop = (size_t)i * (size_t)group->num + (size_t)p->crop;
            size_t bytes = (size_t)group->size * (size_t)group->size * (size_t)channels;
            write_crop(context, &im, p, outs[p->group] + crop * bytes, channels);
        }
    }
    release(context, KEEP_BYTES);
}

BV_API void bv_close(bv_context *context) {
    release(context, 0);
    free(context);
}

static int usable(bv_context *context) {
    if (setjmp(context->escape)) return 0;
    create_jpeg(context);
    jpeg_destroy_decompress(&context->jpeg);
    return 1;
}

/* A context for one thread at a time; NULL where there is no memory or libjpeg is not the one compiled against. */
BV_API bv_context *bv_open(int32_t instructions, int32_t read_all) {
    bv_context *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->kernels = bv_kernels_for(instructions);
    context->read_all = read_all;
    if (usable(context)) return context;
    free(context);
    return NULL;
}

BV_API const char *bv_instructions(const bv_context *context) { return context->kernels->name; }

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#ifndef LIBJPEG_TURBO_VERSION
#define LIBJPEG_TURBO_VERSION unknown
#endif
#ifndef BV_SOURCE
#define BV_SOURCE unknown
#endif

BV_API const char *bv_library(void) { return "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION); }

/* Digest of the sources that this library was built from. */
BV_API const char *bv_source(void) { return TEXT(BV_SOURCE); }
