/* The two resampling passes. All versions do the same integer arithmetic, so they agree in every bit. */
#include "biovfm_decode.h"

#include <string.h>

static uint8_t narrow(int32_t sum, int shift) {
    int32_t value = sum >> shift;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* ---- portable ---- */

static void color_portable(const uint8_t *const *in, uint8_t *const *out, int rows, const bv_axis *axis, int origin,
                           uint8_t *scratch) {
    (void)scratch;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < axis->size; i++) {
            const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
            const uint8_t *pixel = in[r] + 4 * (ptrdiff_t)(axis->first[i] - origin);
            int32_t half = 1 << axis->shift >> 1, red = half, green = half, blue = half;
            for (int k = 0; k < axis->count[i]; k++, pixel += 4) {
                red += weight[k] * pixel[0];
                green += weight[k] * pixel[1];
                blue += weight[k] * pixel[2];
            }
            uint8_t *to = out[r] + 3 * (ptrdiff_t)i;
            to[0] = narrow(red, axis->shift);
            to[1] = narrow(green, axis->shift);
            to[2] = narrow(blue, axis->shift);
        }
}

static void gray_portable(const uint8_t *const *in, uint8_t *const *out, int rows, const bv_axis *axis, int origin,
                          uint8_t *scratch) {
    (void)scratch;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < axis->size; i++) {
            const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
            const uint8_t *pixel = in[r] + (axis->first[i] - origin);
            int32_t sum = 1 << axis->shift >> 1;
            for (int k = 0; k < axis->count[i]; k++) sum += weight[k] * pixel[k];
            out[r][i] = narrow(sum, axis->shift);
        }
}

static void column_portable(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out,
                            int n) {
    for (int x = 0; x < n; x++) {
        int32_t sum = 1 << shift >> 1;
        for (int k = 0; k < count; k++) sum += weight[k] * rows[k][x];
        out[x] = narrow(sum, shift);
    }
}

/* ---- x86-64 with AVX2 ---- */

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

/* Four 4-byte pixels as pairs of 16-bit numbers, one pair a channel: pixels 0 and 1 in the low half, 2 and 3 above. */
AVX2 static inline __m256i pair_pixels(const uint8_t *pixel) {
    const __m256i order = _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1, 8, -1, 12, -1, 9, -1,
                                           13, -1, 10, -1, 14, -1, 11, -1, 15, -1);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)pixel)), order);
}

/* Sums of two rows from their halves: row a in the low half, row b in the high one. */
AVX2 static inline __m256i fold_halves(__m256i a, __m256i b, __m256i shift) {
    __m256i sum = _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xF0), _mm256_permute2x128_si256(a, b, 0x21));
    return _mm256_srav_epi32(sum, shift);
}

static inline void store4(uint8_t *to, uint64_t value) {
    uint32_t bytes = (uint32_t)value;
    memcpy(to, &bytes, 4);
}

/* Four rows at once, `taps` (a multiple of 4) taps an output; 0 takes as many as each output needs. Every output
 * pixel takes 4 bytes, of which the next pixel overwrites 4 - step. */
AVX2 static inline __attribute__((always_inline)) void
four_rows_of(const uint8_t *const in[4], uint8_t *const out[4], const bv_axis *axis, int origin, ptrdiff_t step,
             int taps) {
    const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), shift = _mm256_set1_epi32(axis->shift);
    const int one = 1 << axis->shift >> 1;
    const __m256i half = _mm256_setr_epi32(one, one, one, one, 0, 0, 0, 0);
    for (int i = 0; i < axis->size; i++) {
        const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
        ptrdiff_t at = 4 * (ptrdiff_t)(axis->first[i] - origin);
        int count = taps ? taps : axis->count[i];
        __m256i a = half, b = half, c = half, d = half;
        for (int k = 0; k < count; k += 4, at += 16) {
            __m128i four = _mm_loadl_epi64((const __m128i *)(weight + k));
            __m256i w = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(four), spread);
            a = _mm256_add_epi32(a, _mm256_madd_epi16(pair_pixels(in[0] + at), w));
            b = _mm256_add_epi32(b, _mm256_madd_epi16(pair_pixels(in[1] + at), w));
            c = _mm256_add_epi32(c, _mm256_madd_epi16(pair_pixels(in[2] + at), w));
            d = _mm256_add_epi32(d, _mm256_madd_epi16(pair_pixels(in[3] + at), w));
        }
        __m256i words = _mm256_packs_epi32(fold_halves(a, b, shift), fold_halves(c, d, shift));
        __m256i bytes = _mm256_packus_epi16(words, words);
        uint64_t ac = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(bytes));
        uint64_t bd = (uint64_t)_mm_cvtsi128_si64(_mm256_extracti128_si256(bytes, 1));
        store4(out[0] + step * i, ac);
        store4(out[1] + step * i, bd);
        store4(out[2] + step * i, ac >> 32);
        store4(out[3] + step * i, bd >> 32);
    }
}

/* A fixed number of taps saves the branch that is hardest to predict; few enough that reads stay within BV_SLACK. */
AVX2 static void four_rows(const uint8_t *const in[4], uint8_t *const out[4], const bv_axis *axis, int origin,
                           ptrdiff_t step) {
    if (axis->most <= 4)
        four_rows_of(in, out, axis, origin, step, 4);
    else if (axis->most <= 8)
        four_rows_of(in, out, axis, origin, step, 8);
    else
        four_rows_of(in, out, axis, origin, step, 0);
}

AVX2 static void color_avx2(const uint8_t *const *in, uint8_t *const *out, int rows, const bv_axis *axis, int origin,
                            uint8_t *scratch) {
    (void)scratch;
    for (int r = 0; r < rows; r += 4) {
        const uint8_t *from[4];
        uint8_t *to[4];
        for (int k = 0; k < 4; k++) {
            int row = r + k < rows ? r + k : rows - 1;
            from[k] = in[row];
            to[k] = out[row];
        }
        four_rows(from, to, axis, origin, 3);
    }
}

/* Four one-byte rows become one row of 4-byte pixels, so that gray images share the colour kernel. */
AVX2 static void interleave(const uint8_t *const in[4], uint8_t *out, int n) {
    for (int x = 0; x < n; x += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(in[0] + x)), b = _mm_loadu_si128((const __m128i *)(in[1] + x));
        __m128i c = _mm_loadu_si128((const __m128i *)(in[2] + x)), d = _mm_loadu_si128((const __m128i *)(in[3] + x));
        __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
        __m128i ab_high = _mm_unpackhi_epi8(a, b), cd_high = _mm_unpackhi_epi8(c, d);
        _mm_storeu_si128((__m128i *)(out + 4 * x), _mm_unpacklo_epi16(ab, cd));
        _mm_storeu_si128((__m128i *)(out + 4 * x + 16), _mm_unpackhi_epi16(ab, cd));
        _mm_storeu_si128((__m128i *)(out + 4 * x + 32), _mm_unpacklo_epi16(ab_high, cd_high));
        _mm_storeu_si128((__m128i *)(out + 4 * x + 48), _mm_unpackhi_epi16(ab_high, cd_high));
    }
}

AVX2 static void separate(const uint8_t *in, uint8_t *const out[4], int n) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    int x = 0;
    for (; x + 4 <= n; x += 4) {
        __m128i four = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(in + 4 * x)), order);
        uint64_t low = (uint64_t)_mm_cvtsi128_si64(four), high = (uint64_t)_mm_extract_epi64(four, 1);
        store4(out[0] + x, low);
        store4(out[1] + x, low >> 32);
        store4(out[2] + x, high);
        store4(out[3] + x, high >> 32);
    }
    for (; x < n; x++)
        for (int k = 0; k < 4; k++) out[k][x] = in[4 * x + k];
}

AVX2 static void gray_avx2(const uint8_t *const *in, uint8_t *const *out, int rows, const bv_axis *axis, int origin,
                           uint8_t *scratch) {
    int width = axis->high - origin;
    ptrdiff_t wide = 4 * (ptrdiff_t)width + 2 * BV_SLACK, narrowed = 4 * (ptrdiff_t)axis->size + BV_SLACK;
    const uint8_t *mixed[4];
    uint8_t *resized[4];
    for (int k = 0; k < 4; k++) {
        int quad = 4 * k < rows ? k : 0;
        mixed[k] = scratch + quad * wide;
        resized[k] = scratch + 4 * wide + quad * narrowed;
    }
    for (int r = 0; r < rows; r += 4) {
        const uint8_t *from[4];
        for (int k = 0; k < 4; k++) from[k] = in[r + k < rows ? r + k : rows - 1];
        interleave(from, scratch + r / 4 * wide, width);
    }
    four_rows(mixed, resized, axis, origin, 4);
    for (int r = 0; r < rows; r += 4) {
        uint8_t *to[4];
        for (int k = 0; k < 4; k++) to[k] = out[r + k < rows ? r + k : rows - 1];
        separate(resized[r / 4], to, axis->size);
    }
}

AVX2 static inline __m256i weighted(__m256i sum, __m256i pairs, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, w));
}

AVX2 static void column_avx2(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out,
                             int n) {
    if (n < 32) {
        column_portable(rows, weight, count, shift, out, n);
        return;
    }
    const __m256i half = _mm256_set1_epi32(1 << shift >> 1), by = _mm256_set1_epi32(shift);
    const __m256i zero = _mm256_setzero_si256();
    for (int start = 0; start < n; start += 32) {
        int x = start + 32 <= n ? start : n - 32;
        __m256i s0 = half, s1 = half, s2 = half, s3 = half;
        for (int k = 0; k < count; k += 2) {
            int32_t pair;
            memcpy(&pair, weight + k, 4);
            __m256i w = _mm256_set1_epi32(pair);
            __m256i a = _mm256_loadu_si256((const __m256i *)(rows[k] + x));
            __m256i b = _mm256_loadu_si256((const __m256i *)(rows[k + 1] + x));
            __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
            s0 = weighted(s0, _mm256_unpacklo_epi8(low, zero), w);
            s1 = weighted(s1, _mm256_unpackhi_epi8(low, zero), w);
            s2 = weighted(s2, _mm256_unpacklo_epi8(high, zero), w);
            s3 = weighted(s3, _mm256_unpackhi_epi8(high, zero), w);
        }
        __m256i low = _mm256_packs_epi32(_mm256_srav_epi32(s0, by), _mm256_srav_epi32(s1, by));
        __m256i high = _mm256_packs_epi32(_mm256_srav_epi32(s2, by), _mm256_srav_epi32(s3, by));
        _mm256_storeu_si256((__m256i *)(out + x), _mm256_packus_epi16(low, high));
    }
}

static const bv_kernels avx2 = {"AVX2", color_avx2, gray_avx2, column_avx2};
#endif

/* ---- 64-bit Arm ---- */

#if defined(__aarch64__)
#include <arm_neon.h>

static void color_neon(const uint8_t *const *in, uint8_t *const *out, int rows, const bv_axis *axis, int origin,
                       uint8_t *scratch) {
    (void)scratch;
    const int32x4_t half = vdupq_n_s32(1 << axis->shift >> 1), by = vdupq_n_s32(-axis->shift);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < axis->size; i++) {
            const int16_t *weight = axis->weight + (ptrdiff_t)i * axis->taps;
            const uint8_t *pixel = in[r] + 4 * (ptrdiff_t)(axis->first[i] - origin);
            int32x4_t sum = half;
            for (int k = 0; k < axis->count[i]; k += 2, pixel += 8) {
                int16x8_t two = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(pixel)));
                sum = vmlal_n_s16(sum, vget_low_s16(two), weight[k]);
                sum = vmlal_n_s16(sum, vget_high_s16(two), weight[k + 1]);
            }
            int16x4_t words = vqmovn_s32(vshlq_s32(sum, by));
            uint8x8_t bytes = vqmovun_s16(vcombine_s16(words, words));
            uint32_t value = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
            memcpy(out[r] + 3 * (ptrdiff_t)i, &value, 4);
        }
}

static void column_neon(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out, int n) {
    if (n < 8) {
        column_portable(rows, weight, count, shift, out, n);
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

static const bv_kernels neon = {"NEON", color_neon, gray_portable, column_neon};
#endif

static const bv_kernels portable_c = {"portable C", color_portable, gray_portable, column_portable};

const bv_kernels *bv_kernels_for(int portable) {
#if defined(__x86_64__)
    if (!portable && __builtin_cpu_supports("avx2")) return &avx2;
#elif defined(__aarch64__)
    if (!portable) return &neon;
#endif
    return &portable_c;
}
