/* The resampling passes for x86-64: AVX2, and AVX-512 with VNNI, which multiplies, adds and accumulates at once.
 *
 * The horizontal pass works on eight rows at a time. A strip is rearranged once for all crops: for every column, the
 * four bytes of its eight rows beside those of the next column (BV_PAIR_BYTES a column, so that a strip stays in the
 * first cache). A pair of taps then is a multiplication of one column by a pair of weights. Of a gray image four rows
 * of one-byte pixels make one row of 4-byte pixels, so that 32 rows are one strip. */
#include "biovfm_decode.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 8, COLUMNS = 8, PAIR = BV_PAIR_BYTES };

/* ---- rearranging ---- */

/* Eight pixels at a time; the second half is read up to four bytes beyond them, which two pixels more make good. */
AVX2 static void widen(const uint8_t *from, uint8_t *to, int width) {
    const __m256i order = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 0, 1, 2, -1, 3, 4, 5, -1,
                                           6, 7, 8, -1, 9, 10, 11, -1);
    int x = 0;
    for (; x + COLUMNS + 2 <= width; x += COLUMNS) {
        const uint8_t *at = from + 3 * (ptrdiff_t)x;
        __m128i low = _mm_loadu_si128((const __m128i *)at), high = _mm_loadu_si128((const __m128i *)(at + 12));
        __m256i pixels = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), order);
        _mm256_storeu_si256((__m256i *)(to + 4 * (ptrdiff_t)x), pixels);
    }
    bv_widen_portable(from + 3 * (ptrdiff_t)x, to + 4 * (ptrdiff_t)x, width - x);
}

/* Eight rows of eight 4-byte pixels to eight columns. */
AVX2 INLINE void transpose(__m256i v[8]) {
    __m256i a[8], b[8];
    for (int k = 0; k < 4; k++) {
        a[2 * k] = _mm256_unpacklo_epi32(v[2 * k], v[2 * k + 1]);
        a[2 * k + 1] = _mm256_unpackhi_epi32(v[2 * k], v[2 * k + 1]);
    }
    for (int k = 0; k < 2; k++) {
        b[4 * k] = _mm256_unpacklo_epi64(a[4 * k], a[4 * k + 2]);
        b[4 * k + 1] = _mm256_unpackhi_epi64(a[4 * k], a[4 * k + 2]);
        b[4 * k + 2] = _mm256_unpacklo_epi64(a[4 * k + 1], a[4 * k + 3]);
        b[4 * k + 3] = _mm256_unpackhi_epi64(a[4 * k + 1], a[4 * k + 3]);
    }
    for (int k = 0; k < 4; k++) {
        v[k] = _mm256_permute2x128_si256(b[k], b[k + 4], 0x20);
        v[k + 4] = _mm256_permute2x128_si256(b[k], b[k + 4], 0x31);
    }
}

/* Rows 0, 1, 4, 5, 2, 3, 6 and 7 of a column, each byte beside that of the next column. */
AVX2 INLINE void store_pairs(uint8_t *to, __m256i column, __m256i next) {
    _mm256_store_si256((__m256i *)to, _mm256_unpacklo_epi8(column, next));
    _mm256_store_si256((__m256i *)(to + PAIR / 2), _mm256_unpackhi_epi8(column, next));
}

INLINE const uint8_t *row_at(const bv_strip *strip, int row) {
    return strip->row[row < strip->rows ? row : strip->rows - 1];
}

/* Eight pixels of four one-byte rows as eight 4-byte pixels. */
AVX2 INLINE __m256i four_gray_rows(const bv_strip *strip, int row, int x) {
    __m128i a = _mm_loadl_epi64((const __m128i *)(row_at(strip, row) + x));
    __m128i b = _mm_loadl_epi64((const __m128i *)(row_at(strip, row + 1) + x));
    __m128i c = _mm_loadl_epi64((const __m128i *)(row_at(strip, row + 2) + x));
    __m128i d = _mm_loadl_epi64((const __m128i *)(row_at(strip, row + 3) + x));
    __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
    return _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd));
}

AVX2 static void spread(const bv_strip *strip) {
    uint8_t *to = strip->pairs;
    __m256i column[COLUMNS], last = _mm256_setzero_si256();
    for (int x = 0; x < strip->width; x += COLUMNS, to += COLUMNS * PAIR) {
        for (int k = 0; k < ROWS; k++)
            column[k] = strip->gray ? four_gray_rows(strip, 4 * k, x)
                                    : _mm256_loadu_si256((const __m256i *)(row_at(strip, k) + 4 * (ptrdiff_t)x));
        transpose(column);
        if (x) store_pairs(to - PAIR, last, column[0]);
        for (int k = 0; k < COLUMNS - 1; k++) store_pairs(to + k * PAIR, column[k], column[k + 1]);
        last = column[COLUMNS - 1];
    }
    store_pairs(to - PAIR, last, last);
}

/* ---- the horizontal pass ---- */

INLINE int32_t two_weights(const int16_t *weight) {
    int32_t both;
    memcpy(&both, weight, 4);
    return both;
}

/* One output column of eight rows: eight 4-byte pixels. */
AVX2 INLINE __m256i column_sums_avx2(const uint8_t *pair, const int16_t *weight, int pairs, int shift) {
    const __m256i by = _mm256_set1_epi32(shift), rows = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i a = _mm256_set1_epi32(1 << shift >> 1), b = a, c = a, d = a;
    for (int k = 0; k < pairs; k++, pair += 2 * PAIR, weight += 2) {
        __m256i w = _mm256_set1_epi32(two_weights(weight));
        const __m128i *p = (const __m128i *)pair;
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_load_si128(p)), w));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_load_si128(p + 1)), w));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_load_si128(p + 2)), w));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_load_si128(p + 3)), w));
    }
    __m256i ac = _mm256_packs_epi32(_mm256_srav_epi32(a, by), _mm256_srav_epi32(c, by));
    __m256i bd = _mm256_packs_epi32(_mm256_srav_epi32(b, by), _mm256_srav_epi32(d, by));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ac, bd), rows);
}

AVX512 INLINE __m256i column_sums_avx512(const uint8_t *pair, const int16_t *weight, int pairs, int shift) {
    const __m512i by = _mm512_set1_epi32(shift);
    const __m512i rows = _mm512_castsi256_si512(_mm256_setr_epi32(0, 4, 1, 5, 8, 12, 9, 13));
    __m512i a = _mm512_set1_epi32(1 << shift >> 1), b = a;
    for (int k = 0; k < pairs; k++, pair += 2 * PAIR, weight += 2) {
        __m512i w = _mm512_set1_epi32(two_weights(weight));
        const __m256i *p = (const __m256i *)pair;
        a = _mm512_dpwssd_epi32(a, _mm512_cvtepu8_epi16(_mm256_load_si256(p)), w);
        b = _mm512_dpwssd_epi32(b, _mm512_cvtepu8_epi16(_mm256_load_si256(p + 1)), w);
    }
    __m512i words = _mm512_packs_epi32(_mm512_srav_epi32(a, by), _mm512_srav_epi32(b, by));
    return _mm512_castsi512_si256(_mm512_permutexvar_epi32(rows, _mm512_packus_epi16(words, words)));
}

AVX2 INLINE void store_color(__m256i pixels, uint8_t *to) {
    const __m256i order = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5, 6, 8, 9,
                                           10, 12, 13, 14, -1, -1, -1, -1);
    pixels = _mm256_shuffle_epi8(pixels, order);
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(pixels));
    _mm_storeu_si128((__m128i *)(to + 12), _mm256_extracti128_si256(pixels, 1));
}

/* The rows [low, high) of the strip out of eight columns; each row gets up to 28 bytes. */
AVX2 INLINE void store_columns(__m256i column[COLUMNS], int gray, int low, int high, uint8_t *const *out, int at) {
    const __m256i by_row = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13,
                                            2, 6, 10, 14, 3, 7, 11, 15);
    const __m256i join = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    transpose(column);
    if (!gray) {
        for (int row = low; row < high; row++) store_color(column[row], out[row - low] + 3 * (ptrdiff_t)at);
        return;
    }
    uint64_t bytes[4 * ROWS];
    for (int k = 0; k < ROWS; k++) {
        __m256i rows = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(column[k], by_row), join);
        _mm256_storeu_si256((__m256i *)(bytes + 4 * k), rows);
    }
    for (int row = low; row < high; row++) memcpy(out[row - low] + at, bytes + row, 8);
}

/* The same number of taps for all outputs, where there are few, saves the branch that is hardest to predict. */
#define HORIZONTAL_PASS(NAME, TARGET, SUMS)                                                                            \
    TARGET INLINE void NAME##_of(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,    \
                                 int origin, int pairs) {                                                              \
        for (int at = 0; at < axis->size; at += COLUMNS) {                                                             \
            __m256i column[COLUMNS];                                                                                   \
            for (int k = 0; k < COLUMNS; k++) {                                                                        \
                int i = at + k < axis->size ? at + k : axis->size - 1;                                                 \
                const uint8_t *pair = strip->pairs + (ptrdiff_t)PAIR * (axis->first[i] - origin);                      \
                column[k] = SUMS(pair, axis->weight + (ptrdiff_t)i * axis->taps,                                       \
                                 pairs ? pairs : (axis->count[i] + 1) / 2, axis->shift);                               \
            }                                                                                                          \
            store_columns(column, strip->gray, low, high, out, at);                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    TARGET static void NAME(const bv_strip *strip, int low, int high, uint8_t *const *out, const bv_axis *axis,         \
                            int origin) {                                                                              \
        switch ((axis->most + 1) / 2) {                                                                                \
        case 1: NAME##_of(strip, low, high, out, axis, origin, 1); break;                                              \
        case 2: NAME##_of(strip, low, high, out, axis, origin, 2); break;                                              \
        case 3: NAME##_of(strip, low, high, out, axis, origin, 3); break;                                              \
        case 4: NAME##_of(strip, low, high, out, axis, origin, 4); break;                                              \
        default: NAME##_of(strip, low, high, out, axis, origin, 0);                                                    \
        }                                                                                                              \
    }

HORIZONTAL_PASS(rows_avx2, AVX2, column_sums_avx2)
HORIZONTAL_PASS(rows_avx512, AVX512, column_sums_avx512)

/* ---- the vertical pass ---- */

AVX2 static void column_avx2(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out,
                             int n) {
    if (n < 32) {
        bv_column_portable(rows, weight, count, shift, out, n);
        return;
    }
    const __m256i half = _mm256_set1_epi32(1 << shift >> 1), by = _mm256_set1_epi32(shift);
    const __m256i zero = _mm256_setzero_si256();
    for (int start = 0; start < n; start += 32) {
        int x = start + 32 <= n ? start : n - 32;
        __m256i sum[4] = {half, half, half, half};
        for (int k = 0; k < count; k += 2) {
            __m256i w = _mm256_set1_epi32(two_weights(weight + k));
            __m256i a = _mm256_loadu_si256((const __m256i *)(rows[k] + x));
            __m256i b = _mm256_loadu_si256((const __m256i *)(rows[k + 1] + x));
            __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
            sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), w));
            sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), w));
            sum[2] = _mm256_add_epi32(sum[2], _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), w));
            sum[3] = _mm256_add_epi32(sum[3], _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), w));
        }
        __m256i low = _mm256_packs_epi32(_mm256_srav_epi32(sum[0], by), _mm256_srav_epi32(sum[1], by));
        __m256i high = _mm256_packs_epi32(_mm256_srav_epi32(sum[2], by), _mm256_srav_epi32(sum[3], by));
        _mm256_storeu_si256((__m256i *)(out + x), _mm256_packus_epi16(low, high));
    }
}

AVX512 static void column_avx512(const uint8_t *const *rows, const int16_t *weight, int count, int shift, uint8_t *out,
                                 int n) {
    if (n < 64) {
        column_avx2(rows, weight, count, shift, out, n);
        return;
    }
    const __m512i half = _mm512_set1_epi32(1 << shift >> 1), by = _mm512_set1_epi32(shift);
    const __m512i zero = _mm512_setzero_si512();
    for (int start = 0; start < n; start += 64) {
        int x = start + 64 <= n ? start : n - 64;
        __m512i sum[4] = {half, half, half, half};
        for (int k = 0; k < count; k += 2) {
            __m512i w = _mm512_set1_epi32(two_weights(weight + k));
            __m512i a = _mm512_loadu_si512(rows[k] + x), b = _mm512_loadu_si512(rows[k + 1] + x);
            __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
            sum[0] = _mm512_dpwssd_epi32(sum[0], _mm512_unpacklo_epi8(low, zero), w);
            sum[1] = _mm512_dpwssd_epi32(sum[1], _mm512_unpackhi_epi8(low, zero), w);
            sum[2] = _mm512_dpwssd_epi32(sum[2], _mm512_unpacklo_epi8(high, zero), w);
            sum[3] = _mm512_dpwssd_epi32(sum[3], _mm512_unpackhi_epi8(high, zero), w);
        }
        __m512i low = _mm512_packs_epi32(_mm512_srav_epi32(sum[0], by), _mm512_srav_epi32(sum[1], by));
        __m512i high = _mm512_packs_epi32(_mm512_srav_epi32(sum[2], by), _mm512_srav_epi32(sum[3], by));
        _mm512_storeu_si512(out + x, _mm512_packus_epi16(low, high));
    }
}

static const bv_kernels avx2 = {"AVX2", widen, spread, rows_avx2, column_avx2, bv_band_avx2, bv_luma_avx2};
static const bv_kernels avx512 = {"AVX-512 VNNI", widen,          spread,       rows_avx512,
                                  column_avx512,  bv_band_avx512, bv_luma_avx512};

const bv_kernels *bv_kernels_x86(int narrow) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) return NULL;
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return wide && !narrow ? &avx512 : &avx2;
}
#else
const bv_kernels *bv_kernels_x86(int narrow) {
    (void)narrow;
    return NULL;
}
#endif
