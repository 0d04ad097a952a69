/* What the markers of a JPEG say. Keep in step with shards/decode/header.py. */
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

static int judge(const bv_header *header, int frame, int precision, int tables, int scans) {
    if (!frame || !tables || scans == BV_CORRUPT) return BV_CORRUPT;
    int parts = header->components;
    if (frame < 0xC0 || frame > 0xC2 || precision != 8 || (parts != 1 && parts != 3 && parts != 4) || scans != BV_OK)
        return BV_UNSUPPORTED;
    if (header->width < 1 || header->height < 1) return BV_CORRUPT;
    return (int64_t)header->width * header->height <= BV_MAX_PIXELS ? BV_OK : BV_UNSUPPORTED;
}

int bv_read_header(const uint8_t *data, size_t size, bv_header *header) {
    *header = (bv_header){0, 0, 0, 1, 0};
    int frame = 0, precision = 0, tables = 0;
    if (size < 2 || data[0] != 0xFF || data[1] != 0xD8) return size < 8 ? BV_CORRUPT : BV_UNSUPPORTED;
    for (size_t at = 2; at + 4 <= size;) {
        if (data[at] != 0xFF) return BV_CORRUPT;
        uint8_t marker = data[at + 1];
        if (marker == 0xFF) {
            at++;
            continue;
        }
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) {
            at += 2;
            continue;
        }
        size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
        if (length < 2 || at + 2 + length > size) return BV_CORRUPT;
        const uint8_t *body = data + at + 4;
        if (marker == 0xDB) tables = 1;
        if (is_frame(marker) && length >= 8) {
            if (frame) return BV_CORRUPT;
            frame = marker;
            precision = body[0];
            header->height = body[1] << 8 | body[2];
            header->width = body[3] << 8 | body[4];
            header->components = body[5];
        } else if (marker == 0xE1 && header->orientation == 1) {
            header->orientation = exif_orientation(body, length - 2);
        } else if (marker == 0xEE && length >= 7 && memcmp(body, "Adobe", 5) == 0) {
            header->inverted = 1;
        } else if (marker == 0xDA) {
            return judge(header, frame, precision, tables, scans_fit(data, size, at));
        }
        at += 2 + length;
    }
    return BV_CORRUPT;
}

/* For tests: the header of one image as five numbers; returns its status. */
BV_API int32_t bv_inspect(const uint8_t *data, uint64_t size, int32_t out[5]) {
    bv_header header;
    int status = bv_read_header(data, (size_t)size, &header);
    out[0] = header.width, out[1] = header.height, out[2] = header.components;
    out[3] = header.orientation, out[4] = header.inverted;
    return status;
}
