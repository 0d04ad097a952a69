/* Averaged areas and luma for x86-64: AVX2, and AVX-512 with VNNI.
 *
 * Across a row a cell is a lane: one gather brings four neighbouring inputs of every cell, which are split off one after
 * the other. The sums of a row stay in registers until they have been added to the output row. */
#include "biovfm_decode.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))

/* ---- averaged areas ---- */

/* With `taps` at least 4; the last four of them may overlap those before, so that nothing beyond the row is read. */
AVX2 INLINE __m256 across_avx2(const uint8_t *row, __m256i first, const float *weight, int lanes, int taps) {
    const __m256i byte = _mm256_set1_epi32(255);
    __m256 sum = _mm256_setzero_ps();
    for (int k = 0; k < taps; k += 4) {
        int start = k + 4 <= taps ? k : taps - 4;
        __m256i four = _mm256_i32gather_epi32((const int *)(row + start), first, 1);
        four = _mm256_srli_epi32(four, 8 * (k - start));
        for (int tap = k; tap < start + 4; tap++, four = _mm256_srli_epi32(four, 8)) {
            __m256 input = _mm256_cvtepi32_ps(_mm256_and_si256(four, byte));
            sum = _mm256_add_ps(sum, _mm256_mul_ps(input, _mm256_loadu_ps(weight + (ptrdiff_t)tap * lanes)));
        }
    }
    return sum;
}

AVX512 INLINE __m512 across_avx512(const uint8_t *row, __m512i first, const float *weight, int lanes, int taps) {
    const __m512i byte = _mm512_set1_epi32(255);
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0; k < taps; k += 4) {
        int start = k + 4 <= taps ? k : taps - 4;
        __m512i four = _mm512_i32gather_epi32(first, row + start, 1);
        four = _mm512_srli_epi32(four, 8 * (unsigned)(k - start));
        for (int tap = k; tap < start + 4; tap++, four = _mm512_srli_epi32(four, 8)) {
            __m512 input = _mm512_cvtepi32_ps(_mm512_and_si512(four, byte));
            sum = _mm512_add_ps(sum, _mm512_mul_ps(input, _mm512_loadu_ps(weight + (ptrdiff_t)tap * lanes)));
        }
    }
    return sum;
}

AVX2 INLINE void band_of_avx2(const bv_band *band, const bv_cells *x, float *kept, uint8_t *out, int taps) {
    for (int at = 0; at < x->size; at += 8) {
        const __m256i first = _mm256_loadu_si256((const __m256i *)(x->first + at));
        __m256 across = _mm256_loadu_ps(kept + at), sum = _mm256_setzero_ps();
        for (int r = 0; r < band->count; r++) {
            if (r || !band->begun)
                across = across_avx2(band->top + band->stride * r, first, x->weight + at, x->lanes, taps);
            sum = _mm256_add_ps(sum, _mm256_mul_ps(across, _mm256_set1_ps(band->weight[r])));
        }
        _mm256_storeu_ps(kept + at, across);
        __m256i whole = _mm256_cvtps_epi32(sum);
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        int64_t bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
        memcpy(out + at, &bytes, x->size - at < 8 ? (size_t)(x->size - at) : 8);
    }
}

AVX512 INLINE void band_of_avx512(const bv_band *band, const bv_cells *x, float *kept, uint8_t *out, int taps) {
    for (int at = 0; at < x->size; at += 16) {
        const __m512i first = _mm512_loadu_si512(x->first + at);
        __m512 across = _mm512_loadu_ps(kept + at), sum = _mm512_setzero_ps();
        for (int r = 0; r < band->count; r++) {
            if (r || !band->begun)
                across = across_avx512(band->top + band->stride * r, first, x->weight + at, x->lanes, taps);
            sum = _mm512_add_ps(sum, _mm512_mul_ps(across, _mm512_set1_ps(band->weight[r])));
        }
        _mm512_storeu_ps(kept + at, across);
        __mmask16 used = (__mmask16)(x->size - at < 16 ? (1 << (x->size - at)) - 1 : 0xffff);
        _mm512_mask_cvtusepi32_storeu_epi8(out + at, used, _mm512_cvtps_epi32(sum));
    }
}

/* A number of taps that the compiler knows lets it keep the weights in registers. */
#define BAND(NAME, TARGET, OF)                                                                      \
    TARGET void NAME(const bv_band *band, const bv_cells *x, float *across, uint8_t *out) {         \
        switch (x->taps) {                                                                          \
        case 4: OF(band, x, across, out, 4); break;                                                 \
        case 5: OF(band, x, across, out, 5); break;                                                 \
        case 6: OF(band, x, across, out, 6); break;                                                 \
        default: OF(band, x, across, out, x->taps);                                                 \
        }                                                                                           \
    }

BAND(bv_band_avx2, AVX2, band_of_avx2)
BAND(bv_band_avx512, AVX512, band_of_avx512)

/* ---- luma ---- */

/* Eight pixels of 4 bytes. */
AVX2 INLINE __m256i pixels_avx2(const uint8_t *from, int channels) {
    if (channels == 4) return _mm256_loadu_si256((const __m256i *)from);
    const __m256i order = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 4, 5, 6, -1, 7, 8, 9, -1,
                                           10, 11, 12, -1, 13, 14, 15, -1);
    __m128i low = _mm_loadu_si128((const __m128i *)from), high = _mm_loadu_si128((const __m128i *)(from + 8));
    return _mm256_shuffle_epi8(_mm256_set_m128i(high, low), order);
}

AVX2 INLINE __m256i luma_avx2(__m256i pixels) {
    const __m256i red_blue = _mm256_set1_epi32(BV_BLUE << 16 | BV_RED), green = _mm256_set1_epi32(BV_GREEN);
    __m256i even = _mm256_and_si256(pixels, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(pixels, 8);
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(even, red_blue), _mm256_madd_epi16(odd, green));
    return _mm256_srli_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << BV_LUMA_SHIFT >> 1)), BV_LUMA_SHIFT);
}

AVX2 INLINE int64_t run_avx2(const uint8_t *from, uint8_t *to, int64_t n, int channels) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32, from += 32 * channels) {
        __m256i part[4];
        for (int k = 0; k < 4; k++) part[k] = luma_avx2(pixels_avx2(from + 8 * k * channels, channels));
        __m256i low = _mm256_packs_epi32(part[0], part[1]), high = _mm256_packs_epi32(part[2], part[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        _mm256_storeu_si256((__m256i *)(to + i), bytes);
    }
    return i;
}

AVX2 void bv_luma_avx2(const uint8_t *from, uint8_t *to, int64_t n, int channels) {
    int64_t done = channels == 3 ? run_avx2(from, to, n, 3) : run_avx2(from, to, n, 4);
    bv_luma_portable(from + done * channels, to + done, n - done, channels);
}

/* Sixteen pixels of 4 bytes. */
AVX512 INLINE __m512i pixels_avx512(const uint8_t *from, int channels) {
    if (channels == 4) return _mm512_loadu_si512(from);
    const __m512i quarters = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0);
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
    __m512i packed = _mm512_maskz_loadu_epi32(0x0fff, from);
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarters, packed), order);
}

/* Weights are 256 times a signed byte and another one more; the products of both are added up four at a time. */
AVX512 INLINE __m512i luma_avx512(__m512i pixels) {
    enum { RED = (BV_RED + 128) >> 8, GREEN = (BV_GREEN + 128) >> 8, BLUE = (BV_BLUE + 128) >> 8 };
    const __m512i high = _mm512_set1_epi32(BLUE << 16 | GREEN << 8 | RED);
    const __m512i low = _mm512_set1_epi32((int32_t)((uint32_t)((BV_BLUE - 256 * BLUE) & 255) << 16 |
                                                    (uint32_t)((BV_GREEN - 256 * GREEN) & 255) << 8 |
                                                    (uint32_t)((BV_RED - 256 * RED) & 255)));
    __m512i sum = _mm512_dpbusd_epi32(_mm512_set1_epi32(1 << BV_LUMA_SHIFT >> 9), pixels, high);
    sum = _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 8), pixels, low);
    return _mm512_srli_epi32(sum, BV_LUMA_SHIFT);
}

AVX512 INLINE int64_t run_avx512(const uint8_t *from, uint8_t *to, int64_t n, int channels) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    int64_t i = 0;
    for (; i + 64 <= n; i += 64, from += 64 * channels) {
        __m512i part[4];
        for (int k = 0; k < 4; k++) part[k] = luma_avx512(pixels_avx512(from + 16 * k * channels, channels));
        __m512i low = _mm512_packs_epi32(part[0], part[1]), high = _mm512_packs_epi32(part[2], part[3]);
        _mm512_storeu_si512(to + i, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
    }
    return i;
}

AVX512 void bv_luma_avx512(const uint8_t *from, uint8_t *to, int64_t n, int channels) {
    int64_t done = channels == 3 ? run_avx512(from, to, n, 3) : run_avx512(from, to, n, 4);
    bv_luma_portable(from + done * channels, to + done, n - done, channels);
}
#endif
