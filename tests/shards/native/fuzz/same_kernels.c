/* Compares the vector kernels of this machine with portable C, bit by bit, over JPEG files and made-up pictures; for
 * other processors:
 *
 *   aarch64-linux-gnu-gcc -static -O3 -ffp-contract=off -I LIBJPEG tests/shards/native/fuzz/same_kernels.c \
 *     shards/native/[a-z]*.c LIBJPEG/libjpeg.a -lm -o same_kernels && qemu-aarch64-static ./same_kernels *.jpg */
#define _DEFAULT_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../../../shards/native/biovfm_decode.h"

typedef struct bv_context bv_context;
bv_context *bv_open(int32_t instructions, int32_t read_all);
void bv_close(bv_context *context);
const char *bv_instructions(const bv_context *context);
void bv_decode(bv_context *context, int32_t n, const uint8_t *const *data, const uint64_t *sizes,
               const uint64_t *seeds, int32_t num_groups, const bv_group *groups, uint8_t *const *outs,
               int32_t channels, int32_t exact, int32_t *status);
int32_t bv_resize(int32_t instructions, const uint8_t *src, int32_t height, int32_t width, int32_t channels,
                  uint8_t *dst, int32_t out_height, int32_t out_width, int32_t bicubic);
int32_t bv_area(int32_t instructions, const uint8_t *src, ptrdiff_t stride, int32_t height, int32_t width,
                uint8_t *dst, int32_t out_height, int32_t out_width);
void bv_luma(int32_t instructions, const uint8_t *src, int64_t n, int32_t channels, uint8_t *dst);

static const int32_t levels[] = {BV_BEST, BV_AVX2, BV_PORTABLE};

static uint8_t noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (uint8_t)(*state >> 24);
}

/* Whole pictures of noise at another size, each in memory of exactly its size, so that sanitizers see every overrun. */
static void compare_pictures(int trials, int *compared, int *different) {
    uint32_t state = 1;
    for (int trial = 0; trial < trials; trial++) {
        int32_t side[4];
        for (int k = 0; k < 4; k++) side[k] = 1 + noise(&state) * (1 + trial % 3);
        int32_t channels = trial & 1 ? 3 : 1, bicubic = trial >> 1 & 1;
        size_t in = (size_t)side[0] * (size_t)side[1] * (size_t)channels;
        size_t bytes = (size_t)side[2] * (size_t)side[3] * (size_t)channels;
        uint8_t *src = malloc(in), *out[3];
        for (size_t k = 0; k < in; k++) src[k] = noise(&state);
        for (int k = 0; k < 3; k++) {
            out[k] = malloc(bytes);
            if (bv_resize(levels[k], src, side[0], side[1], channels, out[k], side[2], side[3], bicubic)) abort();
        }
        *compared += 1;
        for (int k = 0; k < 2; k++) *different += memcmp(out[k], out[2], bytes) != 0;
        for (int k = 0; k < 3; k++) free(out[k]);
        free(src);
    }
}

/* Memory between two pages that nobody may touch, at its very end or beginning: sanitizers do not see what a gather
 * reads. */
typedef struct {
    uint8_t *pages, *data;
    size_t length;
} fenced;

static fenced fence(size_t size, int at_the_end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (size + page - 1) / page * page;
    fenced memory = {.length = whole + 2 * page};
    memory.pages = mmap(NULL, memory.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory.pages == MAP_FAILED || mprotect(memory.pages + page, whole, PROT_READ | PROT_WRITE)) abort();
    memory.data = memory.pages + page + (at_the_end ? whole - size : 0);
    return memory;
}

/* Averages of areas, and luma: rows now without a gap, now with one, up to the last byte of the last row. */
static void compare_reduced(int trials, int *compared, int *different) {
    uint32_t state = 2;
    for (int trial = 0; trial < trials; trial++) {
        int32_t height = 1 + noise(&state) * (1 + trial % 3), width = 1 + noise(&state) * (1 + trial / 3 % 3);
        int32_t out_height = height - height * noise(&state) / 256, out_width = width - width * noise(&state) / 256;
        int32_t gap = trial & 1 ? noise(&state) : 0, channels = 3 + (trial >> 1 & 1);
        size_t in = (size_t)height * (size_t)(width + gap) - (size_t)gap, pixels = in / (size_t)channels;
        size_t bytes = (size_t)out_height * (size_t)out_width;
        fenced memory = fence(in, trial & 8);
        uint8_t *src = memory.data, *out[3], *gray[3];
        for (size_t k = 0; k < in; k++) src[k] = trial & 4 ? noise(&state) : noise(&state) & 1 ? 255 : 0;
        for (int k = 0; k < 3; k++) {
            out[k] = malloc(bytes);
            gray[k] = malloc(pixels + 1);
            gray[k][pixels] = 7;
            if (bv_area(levels[k], src, width + gap, height, width, out[k], out_height, out_width)) abort();
            bv_luma(levels[k], src + in - pixels * (size_t)channels, (int64_t)pixels, channels, gray[k]);
        }
        *compared += 1;
        for (int k = 0; k < 2; k++)
            *different += memcmp(out[k], out[2], bytes) != 0 || memcmp(gray[k], gray[2], pixels + 1) != 0;
        for (int k = 0; k < 3; k++) free(out[k]), free(gray[k]);
        munmap(memory.pages, memory.length);
    }
}

int main(int argc, char **argv) {
    static uint8_t data[1 << 22], out[3][224 * 224 * 3];
    bv_context *contexts[3] = {bv_open(BV_BEST, 0), bv_open(BV_AVX2, 0), bv_open(BV_PORTABLE, 0)};
    int compared = 0, different = 0;
    for (int file = 1; file < argc; file++) {
        FILE *stream = fopen(argv[file], "rb");
        if (!stream) continue;
        uint64_t size = fread(data, 1, sizeof data, stream);
        fclose(stream);
        for (int trial = 0; trial < 24; trial++) {
            int32_t status[3], channels = trial & 1 ? 3 : 1, sizes[] = {7, 10, 21, 96, 224, 33};
            bv_group group = {1, sizes[trial % 6], trial % 5 != 0, trial >> 1 & 1, 0.05, 1.0, -0.28, 0.28, 0.75, 1.33, 0.5};
            for (int k = 0; k < 3; k++) {
                const uint8_t *blob = data;
                uint8_t *slot = out[k];
                uint64_t seed = (uint64_t)trial;
                memset(out[k], 7, sizeof out[k]);
                bv_decode(contexts[k], 1, &blob, &size, &seed, 1, &group, &slot, channels, trial >> 2 & 1, &status[k]);
            }
            compared += status[2] == BV_OK;
            for (int k = 0; k < 2; k++)
                different += status[k] != status[2] || memcmp(out[k], out[2], sizeof out[k]) != 0;
        }
    }
    int pictures = 0;
    compare_pictures(600, &pictures, &different);
    compare_reduced(900, &pictures, &different);
    printf("%s: %d crops and %d pictures compared, %d differ from portable C\n", bv_instructions(contexts[0]), compared,
           pictures, different);
    for (int k = 0; k < 3; k++) bv_close(contexts[k]);
    return different != 0 || (argc > 1 && compared == 0);
}
