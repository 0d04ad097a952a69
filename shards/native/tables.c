/* The tables and scans of a JPEG: whether libjpeg can begin each scan. Keep in step with shards/decode/tables.py.
 *
 * What ITU-T T.81 (Annex B, C and G) asks of a segment, and what libjpeg asks beyond it: everything that ends its
 * decoding with an error, so that an image which passes here has pixels in every decoder. */
#include "biovfm_decode.h"

#include <string.h>

enum { MAX_SIDE = 65500, MAX_BLOCKS = 10, MAX_SHIFT = 13, LAST_COEFFICIENT = 63, SHORT_CODES = 16 };

int bv_read_quant(bv_tables *t, const uint8_t *body, size_t n) {
    for (size_t at = 0; at < n;) {
        int wide = body[at] >> 4, index = body[at] & 15;
        if (index >= 4) return BV_CORRUPT;
        t->quant |= 1u << index;
        at += 1 + (wide ? 128 : 64);
        if (at > n) return BV_CORRUPT;
    }
    return BV_OK;
}

/* Whether codes of these lengths can be told apart, none of them all ones. */
static int is_code(const uint8_t *counts) {
    uint32_t code = 0;
    for (int length = 1; length <= SHORT_CODES; length++) {
        code += counts[length - 1];
        if (counts[length - 1] && code >= 1u << length) return 0;
        code <<= 1;
    }
    return 1;
}

int bv_read_huffman(bv_tables *t, const uint8_t *body, size_t n) {
    size_t at = 0;
    while (n - at > SHORT_CODES - 2) {
        if (n - at < 1 + SHORT_CODES) return BV_CORRUPT;
        const uint8_t *counts = body + at + 1, *values = counts + SHORT_CODES;
        int kind = body[at] >> 4 & 1, index = body[at] & 0xEF, sound;
        size_t total = 0;
        for (int k = 0; k < SHORT_CODES; k++) total += counts[k];
        at += 1 + SHORT_CODES;
        if (total > 256 || total > n - at || index >= 4) return BV_CORRUPT;
        sound = is_code(counts);
        for (size_t k = 0; kind == 0 && k < total; k++) sound &= values[k] <= 15;
        t->there[kind] |= 1u << index;
        t->sound[kind] = (t->sound[kind] & ~(1u << index)) | (unsigned)sound << index;
        at += total;
    }
    return at == n ? BV_OK : BV_CORRUPT;
}

int bv_read_arithmetic(const uint8_t *body, size_t n) {
    if (n % 2) return BV_CORRUPT;
    for (size_t at = 0; at < n; at += 2)
        if (body[at] >= 32 || (body[at] < 16 && (body[at + 1] & 15) > body[at + 1] >> 4)) return BV_CORRUPT;
    return BV_OK;
}

int bv_read_frame(bv_tables *t, bv_header *header, uint8_t marker, const uint8_t *body, size_t n) {
    if (t->frame || n < 6) return BV_CORRUPT;
    t->frame = marker;
    t->precision = body[0];
    header->height = body[1] << 8 | body[2];
    header->width = body[3] << 8 | body[4];
    header->components = body[5];
    if (n != 6 + 3 * (size_t)body[5]) return BV_CORRUPT;
    for (int k = 0; k < header->components && k < 4; k++) {
        const uint8_t *part = body + 6 + 3 * k;
        t->parts[k] = (bv_component){part[0], part[1] >> 4, part[1] & 15, part[2]};
    }
    return BV_OK;
}

/* Whether the frame is one that all decoders take. */
int bv_judge_frame(const bv_tables *t, const bv_header *header) {
    int num = header->components, widest = 1, tallest = 1;
    if (t->frame < 0xC0 || t->frame > 0xC2 || t->precision != 8 || (num != 1 && num != 3 && num != 4))
        return BV_UNSUPPORTED;
    if (header->width < 1 || header->height < 1) return BV_CORRUPT;
    if (header->width > MAX_SIDE || header->height > MAX_SIDE) return BV_UNSUPPORTED;
    for (int k = 0; k < num; k++) {
        int h = t->parts[k].h, v = t->parts[k].v;
        if (h < 1 || h > 4 || v < 1 || v > 4) return BV_CORRUPT;
        widest = h > widest ? h : widest, tallest = v > tallest ? v : tallest;
    }
    for (int k = 0; k < num; k++)
        if (widest % t->parts[k].h || tallest % t->parts[k].v) return BV_UNSUPPORTED;
    return (int64_t)header->width * header->height <= BV_MAX_PIXELS ? BV_OK : BV_UNSUPPORTED;
}

/* The number of the component with this id that is not in the scan yet, as libjpeg looks for it; -1 where none is. */
static int find_part(const bv_tables *t, int num, uint8_t id, const int *chosen, int so_far) {
    for (int k = 0; k < num; k++)
        if (t->parts[k].id == id && k >= so_far) {
            for (int before = 0; before < so_far; before++)
                if (chosen[before] == k) return -1;
            return k;
        }
    return -1;
}

static int has_table(const bv_tables *t, int kind, int index) {
    if (index >= 4) return 0;
    if (t->there[kind] >> index & 1) return t->sound[kind] >> index & 1;
    return t->frame != 0xC2 && index < 2; /* libjpeg has the standard's tables for those */
}

static int is_progression(const uint8_t *limits, int num) {
    int first = limits[0], last = limits[1], high = limits[2] >> 4, low = limits[2] & 15;
    if (first == 0 ? last != 0 : first > last || last > LAST_COEFFICIENT || num != 1) return 0;
    return (high == 0 || low == high - 1) && low <= MAX_SHIFT;
}

/* Whether a scan can begin, and in `several` whether other scans are read behind it. */
int bv_read_scan(const bv_tables *t, const bv_header *header, const uint8_t *body, size_t n, int *several) {
    int num = n ? body[0] : 0, chosen[4] = {0}, blocks = 0, progressive = t->frame == 0xC2;
    if (num < 1 || num > 4 || n != 4 + 2 * (size_t)num) return BV_CORRUPT;
    const uint8_t *limits = body + 1 + 2 * num;
    if (progressive && !is_progression(limits, num)) return BV_CORRUPT;
    int needs_dc = !progressive || (limits[0] == 0 && limits[2] >> 4 == 0);
    int needs_ac = !progressive || limits[0] != 0;
    for (int k = 0; k < num; k++) {
        uint8_t tables = body[2 + 2 * k];
        chosen[k] = find_part(t, header->components, body[1 + 2 * k], chosen, k);
        if (chosen[k] < 0) return BV_CORRUPT;
        const bv_component *part = &t->parts[chosen[k]];
        blocks += part->h * part->v;
        if (part->quant >= 4 || !(t->quant >> part->quant & 1)) return BV_CORRUPT;
        if (needs_dc && !has_table(t, 0, tables >> 4)) return BV_CORRUPT;
        if (needs_ac && !has_table(t, 1, tables & 15)) return BV_CORRUPT;
    }
    *several |= progressive || num < header->components;
    return num > 1 && blocks > MAX_BLOCKS ? BV_CORRUPT : BV_OK;
}
