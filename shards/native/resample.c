/* The two resampling passes. All versions, those of resample_x86.c too, do the same integer arithmetic, so they agree in every bit. */
#include "biovfm_decode.h"

#include <string.h>

static uint8_t narrow(int32_t sum, int shift) {
    int32_t value = sum >> shift;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* ---- portable ---- */

void bv_widen_portable(const uint8_t *from, uint8_t *to, int width) {
    uint32_t pixel;
    for (int x = 0; x < width - 1; x++, from += 3, to += 4) {
        memcpy(&pixel, from, 4);
        memcpy(to, &pixel, 4);
    }
    memcpy(to, from, 3);
    to[3] = 0;
}

static void color_portable(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,
                           int origin) {
    for (int r = low; r < high; r++)
        for (int i = 0; i < axis->size; i++) {
            const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
            const uint8_t *pixel = strip->row[r] + 4 * (ptrdiff_t)(axis->first[i] - origin);
            int32_t half = 1 << axis->shift >> 1, red = half, green = half, blue = half;
            for (int k = 0; k < axis->count[i]; k++, pixel += 4) {
                red += weight[k] * pixel[0];
                green += weight[k] * pixel[1];
                blue += weight[k] * pixel[2];
            }
            uint8_t *to = out[r - low] + 3 * (ptrdiff_t)i;
            to[0] = narrow(red, axis->shift);
            to[1] = narrow(green, axis->shift);
            to[2] = narrow(blue, axis->shift);
        }
}

static void gray_portable(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,
                          int origin) {
    for (int r = low; r < high; r++)
        for (int i = 0; i < axis->size; i++) {
            const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
            const uint8_t *pixel = strip->row[r] + (axis->first[i] - origin);
            int32_t sum = 1 << axis->shift >> 1;
            for (int k = 0; k < axis->count[i]; k++) sum += weight[k] * pixel[k];
            out[r - low][i] = narrow(sum, axis->shift);
        }
}

void bv_column_portable(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out,
                            int n) {
    for (int x = 0; x < n; x++) {
        int32_t sum = 1 << shift >> 1;
        for (int k = 0; k < count; k++) sum += weight[k] * rows[k][x];
        out[x] = narrow(sum, shift);
    }
}

/* ---- 64-bit Arm ---- */

#if defined(__aarch64__)
#include <arm_neon.h>

static void color_neon(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,
                       int origin) {
    const int32x4_t half = vdupq_n_s32(1 << axis->shift >> 1), by = vdupq_n_s32(-axis->shift);
    for (int r = low; r < high; r++)
        for (int i = 0; i < axis->size; i++) {
            const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
            const uint8_t *pixel = strip->row[r] + 4 * (ptrdiff_t)(axis->first[i] - origin);
            int32x4_t sum = half;
            for (int k = 0; k < axis->count[i]; k += 2, pixel += 8) {
                int16x8_t two = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(pixel)));
                sum = vmlal_n_s16(sum, vget_low_s16(two), weight[k]);
                sum = vmlal_n_s16(sum, vget_high_s16(two), weight[k + 1]);
            }
            int16x4_t words = vqmovn_s32(vshlq_s32(sum, by));
            uint8x8_t bytes = vqmovun_s16(vcombine_s16(words, words));
            uint32_t value = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
            memcpy(out[r - low] + 3 * (ptrdiff_t)i, &value, 4);
        }
}

static void column_neon(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out, int n) {
    if (n < 8) {
        bv_column_portable(rows, weight, count, shift, out, n);
        return;
    }
    const int32x4_t half = vdupq_n_s32(1 << shift >> 1), by = vdupq_n_s32(-shift);
    for (int start = 0; start < n; start += 8) {
        int x = start + 8 <= n ? start : n - 8;
        int32x4_t low = half, high = half;
        for (int k = 0; k < count; k++) {
            int16x8_t eight = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(rows[k] + x)));
            low = vmlal_n_s16(low, vget_low_s16(eight), weight[k]);
            high = vmlal_n_s16(high, vget_high_s16(eight), weight[k]);
        }
        int16x8_t words = vcombine_s16(vqmovn_s32(vshlq_s32(low, by)), vqmovn_s32(vshlq_s32(high, by)));
        vst1_u8(out + x, vqmovun_s16(words));
    }
}

static void rows_neon(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis, int origin) {
    (strip->gray ? gray_portable : color_neon)(strip, low, high, out, axis, origin);
}

static const bv_kernels neon = {"NEON",      bv_widen_portable, NULL,            rows_neon,
                                column_neon, bv_band_portable,  bv_luma_portable};
#endif

static void rows_portable(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,
                          int origin) {
    (strip->gray ? gray_portable : color_portable)(strip, low, high, out, axis, origin);
}

static const bv_kernels portable_c = {"portable C",       bv_widen_portable, NULL,            rows_portable,
                                      bv_column_portable, bv_band_portable,  bv_luma_portable};

const bv_kernels *bv_kernels_for(int instructions) {
    if (instructions == BV_PORTABLE) return &portable_c;
#if defined(__aarch64__)
    return &neon;
#else
    const bv_kernels *found = bv_kernels_x86(instructions == BV_AVX2);
    return found ? found : &portable_c;
#endif
}
