/* Fuzz target of the native decoder: any bytes, any settings; no crash, no leak, no write outside the slots.
 *
 * With libFuzzer (an instrumented libjpeg-turbo finds more than the system's):
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -ffp-contract=off \
 *     tests/shards/native/fuzz/fuzz_decode.c shards/native/[a-z]*.c -ljpeg -lm -o fuzz_decode
 *   ./fuzz_decode -max_total_time=600 -max_len=20000 CORPUS_FOLDER
 *
 * The first eight bytes are the settings, the rest is the image. Slots are guarded by canaries on both sides. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../../shards/native/biovfm_decode.h"

typedef struct bv_context bv_context;
bv_context *bv_open(int32_t instructions, int32_t read_all);
void bv_close(bv_context *context);
void bv_decode(bv_context *context, int32_t n, const uint8_t *const *data, const uint64_t *sizes,
               const uint64_t *seeds, int32_t num_groups, const bv_group *groups, uint8_t *const *outs,
               int32_t channels, int32_t exact, int32_t *status);

enum { GUARD = 64, CANARY = 0xA5, LARGEST = 96, CROPS = 3 };

static uint8_t slots[2][GUARD + CROPS * LARGEST * LARGEST * 3 + GUARD];

static void check(const uint8_t *slot, size_t used, int ok) {
    for (size_t k = 0; k < sizeof slots[0]; k++) {
        int inside = k >= GUARD && k < GUARD + used;
        if ((!inside || !ok) && slot[k] != CANARY) {
            fprintf(stderr, "byte %zu was written\n", k);
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bv_context *contexts[3];
    if (size < 8) return 0;
    int level = data[7] % 3, channels = data[0] & 2 ? 3 : 1, exact = data[0] >> 2 & 1;
    bv_group groups[2] = {
        {1 + data[1] % CROPS, 1 + data[2] % LARGEST, data[0] >> 3 & 1, data[0] >> 4 & 1, 0.01 + data[3] / 300.0, 1.0,
         -0.2876, 0.2876, 0.75, 1.3333, 0.5},
        {1, 8 + data[4] % (LARGEST - 8), data[0] >> 5 & 1, data[0] >> 6 & 1, 0.05, 0.3, -2.9, 2.9, 0.055, 18.0, 0.5}};
    uint64_t seed = data[5] | (uint64_t)data[6] << 8, bytes = size - 8;
    const uint8_t *blob = data + 8;
    uint8_t *outs[2] = {slots[0] + GUARD, slots[1] + GUARD};
    int32_t status = -1;
    if (!contexts[level]) contexts[level] = bv_open(level, 0);
    memset(slots, CANARY, sizeof slots);
    bv_decode(contexts[level], 1, &blob, &bytes, &seed, 2, groups, outs, channels, exact, &status);
    if (status < BV_OK || status > BV_UNSUPPORTED) abort();
    for (int g = 0; g < 2; g++) {
        size_t used = (size_t)groups[g].num * (size_t)(groups[g].size * groups[g].size * channels);
        check(slots[g], used, status == BV_OK);
    }
    return 0;
}
