/* What the markers of a JPEG say. Keep in step with shards/decode/jpeg.py. */
#include "biovfm_decode.h"

#include <string.h>

typedef struct {
    const uint8_t *data;
    size_t size;
    int big;
} tiff;

static uint32_t number(const tiff *t, size_t at, int bytes) {
    uint32_t value = 0;
    for (int k = 0; k < bytes; k++) value = (value << 8) | t->data[at + (size_t)(t->big ? k : bytes - 1 - k)];
    return value;
}

/* Orientation tag of the first directory of an EXIF block, 1 where there is none or it makes no sense. */
static int exif_orientation(const uint8_t *body, size_t size) {
    if (size < 14 || memcmp(body, "Exif\0\0", 6) != 0) return 1;
    tiff t = {body + 6, size - 6, body[6] == 'M'};
    if (memcmp(t.data, "II*\0", 4) != 0 && memcmp(t.data, "MM\0*", 4) != 0) return 1;
    size_t start = number(&t, 4, 4);
    if (start + 2 > t.size) return 1;
    size_t entries = number(&t, start, 2);
    for (size_t k = 0; k < entries; k++) {
        size_t at = start + 2 + 12 * k;
        if (at + 12 > t.size) return 1;
        if (number(&t, at, 2) != 0x0112) continue;
        uint32_t value = number(&t, at + 8, 2);
        int fits = number(&t, at + 2, 2) == 3 && number(&t, at + 4, 4) == 1 && value >= 1 && value <= 8;
        return fits ? (int)value : 1;
    }
    return 1;
}

/* Whether an end-of-image marker follows the first scan at `from`, and the scans are not too many. */
static int scans_fit(const uint8_t *data, size_t size, size_t from) {
    const uint8_t *end = data + size - 1, *at = data + from;
    int scans = 0, complete = 0;
    while (at < end && (at = memchr(at, 0xFF, (size_t)(end - at))) != NULL) {
        at++;
        scans += *at == 0xDA;
        complete |= *at == 0xD9;
    }
    return !complete ? BV_CORRUPT : scans > BV_MAX_SCANS ? BV_UNSUPPORTED : BV_OK;
}

static int is_frame(uint8_t marker) {
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

static int stands_alone(uint8_t marker) { return marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7); }

/* One segment before or between scans, except the start of a scan. */
static int read_segment(bv_tables *t, bv_header *header, uint8_t marker, const uint8_t *body, size_t n) {
    if (is_frame(marker)) return bv_read_frame(t, header, marker, body, n);
    switch (marker) {
    case 0xC4: return bv_read_huffman(t, body, n);
    case 0xCC: return bv_read_arithmetic(body, n);
    case 0xDB: return bv_read_quant(t, body, n);
    case 0xDD: return n == 2 ? BV_OK : BV_CORRUPT;
    case 0xDC: case 0xFE: return BV_OK;
    }
    if (marker < 0xE0 || marker > 0xEF) return BV_CORRUPT;
    if (marker == 0xE1 && header->orientation == 1) header->orientation = exif_orientation(body, n);
    if (marker == 0xEE && n >= 5 && memcmp(body, "Adobe", 5) == 0) header->inverted = 1;
    return BV_OK;
}

/* Where the next marker of a segment begins, past the data of a scan; `size` where none is left. */
static size_t next_segment(const uint8_t *data, size_t size, size_t at) {
    while (at + 1 < size) {
        const uint8_t *found = memchr(data + at, 0xFF, size - 1 - at);
        if (!found) break;
        at = (size_t)(found - data);
        uint8_t marker = data[at + 1];
        if (marker != 0 && marker != 0xFF && !stands_alone(marker)) return at;
        at += marker == 0xFF ? 1 : 2;
    }
    return size;
}

/* The segments behind the first scan, up to the end of the image. */
static int read_later_scans(bv_tables *t, bv_header *header, const uint8_t *data, size_t size, size_t at) {
    int several = 1;
    for (;;) {
        at = next_segment(data, size, at);
        if (at == size) return BV_CORRUPT;
        uint8_t marker = data[at + 1];
        if (marker == 0xD9) return BV_OK;
        if (at + 4 > size) return BV_CORRUPT;
        size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
        if (length < 2 || at + 2 + length > size) return BV_CORRUPT;
        const uint8_t *body = data + at + 4;
        int status = marker == 0xDA ? bv_read_scan(t, header, body, length - 2, &several)
                                    : read_segment(t, header, marker, body, length - 2);
        if (status != BV_OK) return status;
        at += 2 + length;
    }
}

/* What is decided where the first scan begins, at `at`. */
static int judge(bv_tables *t, bv_header *header, const uint8_t *data, size_t size, size_t at, size_t length) {
    int scans = scans_fit(data, size, at), several = 0;
    if (!t->frame || !t->quant || scans == BV_CORRUPT) return BV_CORRUPT;
    int status = bv_judge_frame(t, header);
    if (status == BV_OK) status = scans;
    if (status == BV_OK) status = bv_read_scan(t, header, data + at + 4, length - 2, &several);
    if (status != BV_OK || !several) return status;
    bv_header unchanged = *header;
    status = read_later_scans(t, header, data, size, at + 2 + length);
    *header = unchanged;
    return status;
}

int bv_read_header(const uint8_t *data, size_t size, bv_header *header) {
    *header = (bv_header){0, 0, 0, 1, 0};
    bv_tables tables = {0};
    if (size < 2 || data[0] != 0xFF || data[1] != 0xD8) return size < 8 ? BV_CORRUPT : BV_UNSUPPORTED;
    for (size_t at = 2; at + 4 <= size;) {
        if (data[at] != 0xFF) return BV_CORRUPT;
        uint8_t marker = data[at + 1];
        if (marker == 0xFF || stands_alone(marker)) {
            at += marker == 0xFF ? 1 : 2;
            continue;
        }
        size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
        if (length < 2 || at + 2 + length > size) return BV_CORRUPT;
        if (marker == 0xDA) return judge(&tables, header, data, size, at, length);
        int status = read_segment(&tables, header, marker, data + at + 4, length - 2);
        if (status != BV_OK) return status;
        at += 2 + length;
    }
    return BV_CORRUPT;
}

/* The check of n images: status, width, height, components, orientation and inks of each; no JPEG is BV_OTHER. */
BV_API void bv_check(int32_t n, const uint8_t *const *data, const uint64_t *sizes, int32_t (*out)[6]) {
    for (int32_t i = 0; i < n; i++) {
        bv_header header;
        out[i][0] = bv_read_header(data[i], (size_t)sizes[i], &header);
        if (sizes[i] < 2 || data[i][0] != 0xFF || data[i][1] != 0xD8) out[i][0] = BV_OTHER;
        out[i][1] = header.width, out[i][2] = header.height, out[i][3] = header.components;
        out[i][4] = header.orientation, out[i][5] = header.inverted;
    }
}
