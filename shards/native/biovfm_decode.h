/* Decode JPEG images into antialiased crops: what the files of this extension share.
 *
 *   crops.c      Philox, crop boxes and flips: the twin of shards/decode/boxes.py, equal in every bit
 *   header.c     size, orientation, fitness of a JPEG: the twin of shards/decode/jpeg.py
 *   tables.c     whether libjpeg can begin each of its scans: the twin of shards/decode/tables.py
 *   filter.c     antialiasing filters as fixed-point tables
 *   resample.c   the two resampling passes in portable C and NEON, and their dispatch
 *   resample_x86.c   the same in AVX2 and AVX-512
 *   reduce.c     areas averaged, and luma: OpenCV's results in portable C
 *   reduce_x86.c     the same in AVX2 and AVX-512
 *   plans.c      what to take out of an image: boxes in stored pixels, reduction, tables, memory
 *   decode.c     libjpeg-turbo: region, strips of rows; one call for a chunk of images
 *   picture.c    whole pictures brought to another size
 *   read.c       samples of local shards, checked by CRC-32C; knows nothing of images
 */
#ifndef BIOVFM_DECODE_H
#define BIOVFM_DECODE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define BV_API __declspec(dllexport)
#else
#define BV_API __attribute__((visibility("default")))
#endif

enum { BV_OK = 0, BV_CORRUPT = 1, BV_UNSUPPORTED = 2, BV_OTHER = 4 };
enum { BV_MAX_PIXELS = 1 << 26, BV_MAX_SCANS = 100, BV_TRIES = 10, BV_SLACK = 64 };
enum { BV_STRIP = 8, BV_GRAY_STRIP = 32, BV_PAIR_BYTES = 64, BV_PAIR_SLACK = 16, BV_OVERRUN = 32 };
enum { BV_RED = 9798, BV_GREEN = 19235, BV_BLUE = 3735, BV_LUMA_SHIFT = 15, BV_LANES = 16 };
enum { BV_BEST = 0, BV_PORTABLE = 1, BV_AVX2 = 2 };

/* One group of equally sized crops; see Crops in shards/decode/base.py. */
typedef struct {
    int32_t num, size, random, bicubic;
    double scale_low, scale_high, log_ratio_low, log_ratio_high, ratio_low, ratio_high, flip;
} bv_group;

/* A crop of the upright image: left, top, width, height in pixels. */
typedef struct {
    double x, y, w, h;
    int flip;
} bv_box;

typedef struct {
    int32_t width, height, components, orientation, inverted;
} bv_header;

typedef struct {
    uint8_t id, h, v, quant; /* its sampling factors and its quantisation table */
} bv_component;

/* What the segments of a JPEG have defined so far; bit n of a mask stands for table n. */
typedef struct {
    int frame, precision; /* marker of the frame, 0 before it */
    unsigned quant;
    unsigned there[2], sound[2]; /* Huffman tables for DC and AC: defined, and fit to decode with */
    bv_component parts[4];
} bv_tables;

/* Filter of one axis: output i is the sum over k < taps of weight[i * taps + k] * input[first[i] + k], >> shift. */
typedef struct {
    int size, taps, shift;
    int most;      /* the largest count */
    int low, high; /* the inputs that any output looks at: [low, high) */
    int32_t *first;
    int32_t *count; /* taps in use; the others have weight 0 */
    int16_t *weight;
} bv_axis;

/* One crop of one image. */
typedef struct {
    bv_box box; /* in stored, reduced pixels */
    int group, crop, mirror_x, mirror_y, whole; /* whole: the filter may look beyond the box */
    bv_axis x, y;
    uint8_t *resized; /* rows [y.low, y.high) after the horizontal pass */
    ptrdiff_t stride;
} bv_plan;

/* One image on its way. */
typedef struct {
    const uint8_t *data;
    size_t size;
    bv_header header;
    bv_plan *plans;
    int num_plans, factor, gray, origin;
    int x0, x1, y0, y1; /* the region that any crop looks at, in stored, reduced pixels */
} bv_image;

typedef struct {
    void *data;
    size_t size;
} bv_buffer;

/* Memory that plans need, kept from image to image. */
typedef struct {
    bv_buffer plans, tables, floats, resized, rows;
} bv_workspace;

/* A strip of rows as libjpeg gives them: up to BV_STRIP of 4-byte pixels, or up to BV_GRAY_STRIP of 1-byte pixels.
 * Rows may be read up to BV_SLACK bytes past their end. */
typedef struct {
    uint8_t *row[BV_GRAY_STRIP];
    int rows, width, gray;
    uint8_t *pairs; /* the strip as some kernels like it: (width + BV_PAIR_SLACK) x BV_PAIR_BYTES, 64-byte aligned */
} bv_strip;

/* Cells of one axis, each the average of the inputs it lies over: the sum over k of weight * input[first[i] + k]. The
 * weights of one tap lie side by side, `lanes` of them; cells beyond `size` have weight 0. No cell looks beyond the row. */
typedef struct {
    int size, lanes, taps;
    int32_t *first;
    float *weight;
} bv_cells;

/* The rows that one output row is made of. */
typedef struct {
    const uint8_t *top;
    ptrdiff_t stride;
    int count, begun; /* begun: the first of them was the last of the output row before */
    const float *weight;
} bv_band;

/* Makes a row of 3-byte pixels one of 4-byte pixels; what the fourth byte holds, nobody looks at. */
typedef void (*bv_widen_fn)(const uint8_t *from, uint8_t *to, int width);
/* Fills in `pairs`, once for all crops. */
typedef void (*bv_spread_fn)(const bv_strip *strip);
/* Horizontal pass over the rows [low, high) of a strip, 3 or 1 bytes a pixel; up to BV_OVERRUN more are written. */
typedef void (*bv_rows_fn)(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,
                           int origin);
/* Vertical pass for one output row of n bytes; rows holds an even number of pointers, weight as many numbers. */
typedef void (*bv_column_fn)(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out,
                             int n);

/* One output row; `across` keeps the last input row after the horizontal sums, `lanes` of them. */
typedef void (*bv_band_fn)(const bv_band *band, const bv_cells *x, float *across, uint8_t *out);
/* Luma of n pixels of 3 or 4 bytes, of which the fourth is not looked at. */
typedef void (*bv_luma_fn)(const uint8_t *from, uint8_t *to, int64_t n, int channels);

typedef struct {
    const char *name;
    bv_widen_fn widen;
    bv_spread_fn spread; /* NULL where `rows` reads the rows as they are */
    bv_rows_fn rows;
    bv_column_fn column;
    bv_band_fn band;
    bv_luma_fn luma;
} bv_kernels;

void bv_draw(uint64_t seed, int32_t group_index, const bv_group *group, int32_t crop, double width, double height,
             bv_box *box);
int bv_read_header(const uint8_t *data, size_t size, bv_header *header);
int bv_read_quant(bv_tables *t, const uint8_t *body, size_t n);
int bv_read_huffman(bv_tables *t, const uint8_t *body, size_t n);
int bv_read_arithmetic(const uint8_t *body, size_t n);
int bv_read_frame(bv_tables *t, bv_header *header, uint8_t marker, const uint8_t *body, size_t n);
int bv_judge_frame(const bv_tables *t, const bv_header *header);
int bv_read_scan(const bv_tables *t, const bv_header *header, const uint8_t *body, size_t n, int *several);
int bv_axis_taps(double length, int size, int bicubic);
void bv_axis_fill(bv_axis *axis, double start, double length, int clip_low, int clip_high, int bicubic, int mirror,
                  float *scratch);
void bv_widen_portable(const uint8_t *from, uint8_t *to, int width);
void bv_column_portable(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out, int n);
void bv_band_portable(const bv_band *band, const bv_cells *x, float *across, uint8_t *out);
void bv_luma_portable(const uint8_t *from, uint8_t *to, int64_t n, int channels);
void bv_band_avx2(const bv_band *band, const bv_cells *x, float *across, uint8_t *out);
void bv_luma_avx2(const uint8_t *from, uint8_t *to, int64_t n, int channels);
void bv_band_avx512(const bv_band *band, const bv_cells *x, float *across, uint8_t *out);
void bv_luma_avx512(const uint8_t *from, uint8_t *to, int64_t n, int channels);
const bv_kernels *bv_kernels_x86(int narrow);
const bv_kernels *bv_kernels_for(int instructions);
void *bv_reserve(bv_buffer *buffer, size_t size);
int bv_draw_plans(bv_workspace *work, bv_image *im, uint64_t seed, const bv_group *groups, int num_groups, int exact);
int bv_fill_tables(bv_workspace *work, bv_image *im, const bv_group *groups, int width, int height);
int bv_place_resized(bv_workspace *work, bv_image *im);

#endif
